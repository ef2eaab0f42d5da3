"""Every artifact of an engine folder, read again, hashed again, and compared with the trained network."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors.torch import load
from torch import equal

from streamer.engine import Manifest, load_engine
from streamer.engines.numpy_reference import NumpyEngine
from streamer.engines.onnx_runtime import OnnxEngine
from streamer.errors import EngineError, OutputError
from streamer.manifest import BATCH_ENGINE_FILE, ENGINE_FILE, ONNX_FILE, WEIGHTS_FILE
from train.export.difference import CHECKED_INPUTS, check_engine
from train.export.folder import ExportConfig
from train.export.source import Source, read_source
from train.export.tensorrt_engines import differs_from_rebuild

log = logging.getLogger(__name__)

_INPUTS = f"{CHECKED_INPUTS} expressions, one by one and together"


def check(config: ExportConfig) -> str:
    """Check `config.out` against the network of `config.checkpoint`; returns one line for each artifact.

    Raises: EngineError if a file is not what the manifest says; OutputError if an artifact is not the
        source's, or differs from it by more than `TOLERANCE`.
    """
    source, folder = read_source(config.checkpoint), config.out
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    lines = [f"{folder}: size and SHA-256 of {len(manifest.files)} files are the manifest's"]
    _check_manifest(manifest, source, folder)
    lines.append("manifest.json: classes, action units, features and training are the source's")
    weights = load(manifest.read_file(folder, WEIGHTS_FILE))
    state = source.model.state_dict()
    if weights.keys() != state.keys() or not all(equal(weights[key], state[key]) for key in state):
        raise OutputError(f"{folder / WEIGHTS_FILE}: its weights are not the source's; export it again")
    lines.append(f"{WEIGHTS_FILE}: {len(state)} tensors equal the source's")
    for name, kind in ((WEIGHTS_FILE, NumpyEngine), (ONNX_FILE, OnnxEngine)):
        engine = kind(folder, manifest)
        difference = check_engine(engine, str(folder / name), source)
        engine.close()
        lines.append(f"{name} ({kind.__name__}): largest difference {difference:.1e} on {_INPUTS}")
    if manifest.runtime != "onnx":
        lines.append(_check_tensorrt(folder, manifest, source))
    return "\n".join(lines)


def _check_manifest(manifest: Manifest, source: Source, folder: Path) -> None:
    expected = source.manifest(manifest.name, manifest.opset, manifest.files)
    for key in ("classes", "class_names", "action_units", "features", "torch_version", "training", "metrics"):
        if getattr(manifest, key) != getattr(expected, key):
            raise OutputError(f"{folder}: key {key!r} of the manifest is not the source's; export it again")


def _check_tensorrt(folder: Path, manifest: Manifest, source: Source) -> str:
    """Run the TensorRT engines where that is possible, else build them again and compare the bytes."""
    files = f"{ENGINE_FILE}, {BATCH_ENGINE_FILE}"
    try:
        engine = load_engine(folder, "cuda")
    except EngineError as error:
        log.info("%s", error)
        differing = differs_from_rebuild(folder, manifest)
        if ENGINE_FILE in differing:
            raise OutputError(
                f"{folder / ENGINE_FILE}: is not what building it again gives; export it again"
            ) from error
        return f"{ENGINE_FILE}: equals a second build, byte for byte; not run, for want of its GPU"
    difference = check_engine(engine, f"{folder}: {files}", source, manifest.dtype)
    engine.close()
    return f"{files} ({manifest.dtype}): largest difference {difference:.1e} on {_INPUTS}"
