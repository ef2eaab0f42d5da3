"""Engines: what turns a `GraphSample` into class and action-unit probabilities.

    engine = load_engine("gtsgn-simulated", "auto")
    sample = build_graph(key_frames.nodes, engine.manifest.features)
    engine.classify(sample)

`docs/engines.md` says how to add one. Nothing here needs torch; the GPU engine imports it when it is used.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

from streamer.engines.base import Answers, Engine
from streamer.engines.cuda import Gpu, GpuUnavailable, first_gpu, serves
from streamer.engines.onnx_runtime import OnnxEngine
from streamer.errors import EngineError
from streamer.manifest import (
    BATCH_ENGINE_FILE,
    ENGINE_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    Binding,
    FileEntry,
    Manifest,
)
from streamer.onnx_file import check_model

__all__ = ["Binding", "Engine", "FileEntry", "Manifest", "OnnxEngine", "find_engine", "load_engine"]

log = logging.getLogger(__name__)

ENGINES_FOLDER = Path(__file__).resolve().parent.parent / "engines"
"""Where an engine's name is looked up."""
AUTO = "auto"
"""As an engine's name: the default engine, on the GPU where there is one."""
DEFAULT_ENGINE = "gtsgn-simulated"

Device = Literal["auto", "cpu", "cuda"]


def load_engine(name_or_path: str | Path, device: Device = "auto", node_set: str | None = None) -> Engine:
    """The engine of that name (a folder of `engines/`) or at that path (a folder with a manifest.json).

    name_or_path: "auto" is the default engine; with a GPU it is built from its model.onnx on first use.
    device: "cpu" runs model.onnx; "cuda" the GPU engine, built on first use where the folder has none;
    "auto" takes the manifest's runtime where this machine has it, else model.onnx of the same folder, with
    one warning.
    node_set: refuse an engine for other nodes, which are all that the caller has.

    Raises: EngineError if there is no such engine, if a file is not what the manifest says, or if the
        device cannot be had.
    """
    auto = os.fspath(name_or_path) == AUTO
    folder = find_engine(DEFAULT_ENGINE if auto else name_or_path)
    manifest = Manifest.read(folder)
    if node_set is not None and manifest.features.node_set != node_set:
        raise EngineError(
            f"{folder}: reads the nodes {manifest.features.node_set}, and here are {node_set};"
            " use another engine (--engine)"
        )
    if device == "cpu" or (device == "auto" and manifest.runtime == "onnx" and not auto):
        return _on_cpu(folder, manifest)
    gpu = first_gpu()
    try:
        if gpu is None:
            raise GpuUnavailable("no CUDA device was found")
        return _on_gpu(folder, manifest, gpu)
    except GpuUnavailable as error:
        if device == "cuda":
            raise EngineError(
                f"--device cuda: engine {manifest.name}: {error} (or use --device cpu)"
            ) from error
        if ONNX_FILE not in manifest.files:
            raise EngineError(
                f"{folder}: {error}, and it has no {ONNX_FILE} to run instead; use another engine (--engine)"
            ) from error
        engine = _on_cpu(folder, manifest)
        # Whoever asked for the best there is misses nothing where there is no GPU at all.
        level = logging.INFO if auto and gpu is None else logging.WARNING
        log.log(level, "engine %s: %s: running its %s on the CPU", manifest.name, error, ONNX_FILE)
        return engine


def _on_cpu(folder: Path, manifest: Manifest) -> Engine:
    if manifest.runtime == "onnx":
        manifest.verify(folder)
    elif ONNX_FILE not in manifest.files:
        raise EngineError(
            f"{folder}: is a {manifest.runtime} engine without {ONNX_FILE}, which the CPU would run;"
            " use another engine (--engine)"
        )
    return OnnxEngine(folder, manifest)


def _on_gpu(folder: Path, manifest: Manifest, gpu: Gpu) -> Engine:
    """The GPU engine of a folder: its own, or one built of its model.onnx.

    Raises: GpuUnavailable if it cannot run on this GPU; EngineError if a file is not the manifest's.
    """
    # Only here: hashing, files and libraries that a CPU run has no use for.
    from streamer.engines.tensorrt_build import MAX_BATCH, cached, import_tensorrt, runtime_for
    from streamer.engines.tensorrt_gpu import TensorRTEngine

    if manifest.runtime == "onnx":
        manifest.verify(folder)
        answers = Answers(manifest, folder / ONNX_FILE)
        model = manifest.read_file(folder, ONNX_FILE)
        try:
            check_model(model, manifest.opset)
        except ValueError as error:
            raise answers.error(str(error)) from error
        runtime = runtime_for(gpu)
        tensorrt = import_tensorrt(runtime)
        single, batches = (cached(model, gpu, runtime, batch) for batch in (1, MAX_BATCH))
    else:
        built_for, version = manifest.compute_capability or "", manifest.runtime_version
        if not serves(gpu.capability, manifest.runtime, built_for):
            raise GpuUnavailable(
                f"it is built for compute capability {built_for}, {gpu.name} has {gpu.capability_text}"
            )
        tensorrt = import_tensorrt(manifest.runtime)
        if str(tensorrt.__version__) != version:
            raise GpuUnavailable(
                f"it is built by {manifest.runtime} {version}, installed is {tensorrt.__version__}"
            )
        answers = Answers(manifest, folder / ENGINE_FILE)
        single, batches = (manifest.read_file(folder, name) for name in (ENGINE_FILE, BATCH_ENGINE_FILE))
    return TensorRTEngine(manifest, answers, tensorrt, single, batches, MAX_BATCH)


def find_engine(name_or_path: str | Path) -> Path:
    """The folder meant: a name of `engines/` first, then a path."""
    text = os.fspath(name_or_path)
    known = _known_engines()
    if text in known:
        return ENGINES_FOLDER / text
    path = Path(text).expanduser()
    try:
        if (path / MANIFEST_FILE).is_file():
            return path
        problem = f"has no {MANIFEST_FILE}" if path.is_dir() else "is no engine folder"
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, no home folder
        problem = f"cannot be looked up ({error})"
    raise EngineError(
        f"engine {text!r}: {problem}; known engines: {', '.join(known) or 'none'}"
        " (give one of these, or the path of a folder with a manifest.json)"
    )


def _known_engines() -> list[str]:
    if not ENGINES_FOLDER.is_dir():
        return []
    return sorted(path.parent.name for path in ENGINES_FOLDER.glob(f"*/{MANIFEST_FILE}"))
