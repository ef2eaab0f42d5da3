"""TensorRT engines through Torch-TensorRT, in a process of their own.

Of their own, because Torch-TensorRT has to be imported in a special way where there is no GPU
(`without_gpu.py`), and because its libraries write to standard error as they like.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from streamer.engine import Manifest
from streamer.errors import UsageError
from streamer.manifest import BATCH_ENGINE_FILE, ENGINE_FILE

Runtime = Literal["tensorrt", "tensorrt-rtx"]
PACKAGES = {"tensorrt-rtx": "torch-tensorrt-rtx", "tensorrt": "torch-tensorrt"}
EXTRAS = {"tensorrt-rtx": "trt-rtx", "tensorrt": "trt"}
REPORT_FILE = "tensorrt.json"
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Report:
    """What the child process did.

    version: of TensorRT. compute_capability: that it built for, as in the manifest.
    operators: how many the lowered network has; all of them are converted.
    lowered_difference: largest difference of a probability between the network and the lowered graph.
    """

    version: str
    compute_capability: str
    operators: int
    lowered_difference: float


def build_engines(folder: Path, runtime: str, dtype: str) -> Report:
    """Build model.engine (batch 1) and model_batch.engine (batch 1 to 64) of the weights of an engine
    folder, into it.

    Raises: UsageError if the library is not installed, an operator has no converter (it is named), or the
        build fails.
    """
    found = installed()
    if runtime not in found:
        other = f"; {PACKAGES[found[0]]} is, which excludes it: uninstall that first" if found else ""
        raise UsageError(
            f"{PACKAGES[runtime]} is not installed{other}: pip install '.[train,{EXTRAS[runtime]}]'"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "train.export.tensorrt_child"]
        command += [str(folder), temporary, runtime, dtype]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # or sets are walked in another order each time
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"building the {runtime} engine took over {TIMEOUT_S:g} s; try again") from error
        report = Path(temporary) / REPORT_FILE
        if done.returncode or not report.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            raise UsageError(f"{runtime} engine: {lines[-1][:400]}")
        for name in (ENGINE_FILE, BATCH_ENGINE_FILE):
            (folder / name).write_bytes((Path(temporary) / name).read_bytes())
        return Report(**json.loads(report.read_text(encoding="utf-8")))


def differs_from_rebuild(folder: Path, manifest: Manifest) -> list[str]:
    """The engine files of a folder that are not, byte for byte, what a new build of its weights gives.

    TensorRT-RTX builds the engine of batch 1 reproducibly; the one for batches has some internal names
    that vary.

    Raises: UsageError if it cannot be built here, as `build_engines`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary)
        for name in manifest.files:
            (again / name).write_bytes(manifest.read_file(folder, name))
        manifest.write(again)
        build_engines(again, manifest.runtime, manifest.dtype)
        return [
            name
            for name in (ENGINE_FILE, BATCH_ENGINE_FILE)
            if hashlib.sha256((again / name).read_bytes()).hexdigest() != manifest.files[name].sha256
        ]


def installed() -> list[str]:
    """Runtimes whose Torch-TensorRT is installed here."""
    found = []
    for runtime, package in PACKAGES.items():
        try:
            version(package)
        except PackageNotFoundError:
            continue
        found.append(runtime)
    return found
