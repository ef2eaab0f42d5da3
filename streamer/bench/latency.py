"""Latency of the classifier's engines and of every stage, beside what a user would take instead.

    python -m streamer.bench latency
    python -m streamer.bench latency --out docs/benchmarks/latency.json --compare old.json

The measuring itself happens in a process of its own with its threads limited to one. With the train extra
(PyTorch) that process is the training side's, which adds its networks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streamer.bench.latency_report import compare, plot, table
from streamer.errors import OutputError, StreamerError, UsageError

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


@dataclass(frozen=True)
class LatencyConfig:
    """Measure the engines, the stages and their peers in one interleaved run."""

    engine: str = "gtsgn-simulated"
    """Engine name or path."""
    rounds: int = 30
    """In each round everything is measured once, in a new order."""
    block_ms: float = 100.0
    """About how long one block of calls takes; a slow contender has at least five calls in it."""
    frames: int = 150
    """Frames of the sample clip that the stages are timed on."""
    cold_starts: int = 3
    """Processes started for each cold start; 0 leaves these figures out."""
    core: int = -1
    """The core to stay on: -1 the last one, -2 whichever the system gives."""
    peers: bool = True
    """With PyTorch, where it is installed (the extra 'train')."""
    compare: Path | None = None
    """An older JSON file of this command: say what changed."""
    out: Path | None = None
    """Write the figures here as JSON, and beside it the table as Markdown and a histogram."""


def bench_latency(config: LatencyConfig) -> str:
    """Measure, write the files of `config.out`; returns the tables as Markdown.

    Raises: UsageError for settings that make no sense or an unreadable file to compare with; OutputError if
        a file cannot be written; StreamerError if the measuring process fails.
    """
    if config.rounds < 1 or not config.block_ms > 0.0 or config.frames < 1:
        raise UsageError("--rounds, --frames and --block-ms have to be above 0")
    old = None if config.compare is None else _read_old(config.compare)
    figures = _measure(config)
    text = table(figures)
    if old is not None:
        text += "\n" + compare(old, figures)
    if config.out is not None:
        try:
            config.out.parent.mkdir(parents=True, exist_ok=True)
            config.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            picture = config.out.with_suffix(".png")
            picture_line = f"\n![histogram]({picture.name})\n" if plot(figures, picture) else ""
            config.out.with_suffix(".md").write_text("# Latency\n\n" + text + picture_line, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{config.out}: cannot be written ({error.strerror}); name another --out"
            ) from error
    return text


def _read_old(path: Path) -> dict[str, Any]:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(old["contenders"], dict):
            raise TypeError("no contenders")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--compare {path}: no figures of this command ({error}); name one of its JSON files"
        ) from error
    return old


def _measure(config: LatencyConfig) -> dict[str, Any]:
    core = (os.cpu_count() or 1) - 1 if config.core == -1 else config.core
    if core >= (os.cpu_count() or 1):
        raise UsageError(f"--core {core}: this machine has the cores 0 to {(os.cpu_count() or 1) - 1}")
    settings = {
        "engine": config.engine,
        "rounds": config.rounds,
        "block_s": config.block_ms / 1e3,
        "frames": config.frames,
        "cold_starts": config.cold_starts,
        "core": None if core < 0 else core,
    }
    with_peers = config.peers and find_spec("torch") is not None and find_spec("train") is not None
    module = "train.latency" if with_peers else "streamer.bench.latency_process"
    with tempfile.TemporaryDirectory() as folder:
        request, figures = Path(folder) / "config.json", Path(folder) / "figures.json"
        request.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", module, str(request), str(figures)]
        done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=False)
        if done.returncode or not figures.is_file():
            raise StreamerError(
                f"the measuring process ended with code {done.returncode}; its own lines above say why"
            )
        return json.loads(figures.read_text(encoding="utf-8"))
