"""Engine folders for tests: sound ones, changed ones, and how a refusal has to read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.engine import load_engine
from streamer.errors import EngineError
from streamer.graph import NODE_SETS, FeatureSpec, build_graphs

SHA = "a" * 64


def samples(count: int = 4, seed: int = 0) -> np.ndarray:
    """(count, 3, 14, 4) float32 features."""
    rng = np.random.default_rng(seed)
    rest = NODE_SETS["gm14"].rest
    nodes = rest + rng.normal(0, 0.02, (count, 3, *rest.shape))
    return build_graphs(nodes, FeatureSpec())


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest on disk behind everyone's back."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in a file, and the right checksum in the manifest, as somebody hostile would."""
    (folder / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(folder, lambda m: m["files"].update({name: entry}))


def refused(folder: Path, *words: str, device: Any = "cpu") -> str:
    """The message with which the engine is refused: one line that names the folder and says what to do."""
    with pytest.raises(EngineError) as caught:
        load_engine(folder, device).close()
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert re.search("export|restore|--engine|--device", message), f"no remedy in: {message}"
    assert len(message) < 1500
    for word in words:
        assert word in message, f"{word!r} not in: {message}"
    return message


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    *path, last, value = path_and_value

    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in path:
            target = target[key]
        target[last] = value

    return change
