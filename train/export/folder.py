"""The engine folder, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safetensors.torch import save

from streamer.engine import FileEntry, Manifest, OnnxEngine
from streamer.errors import OutputError, UsageError
from streamer.manifest import BATCH_ENGINE_FILE, ENGINE_FILE, MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE
from train.export.difference import TOLERANCE, check_engine, folded_difference
from train.export.onnx_graph import OPSET, to_onnx
from train.export.source import CARD_FILE, Source, read_source
from train.export.tensorrt_engines import build_engines


@dataclass(frozen=True)
class ExportConfig:
    """Make an engine folder of a trained network: model.onnx, weights, manifest and model card; with
    --to trt-rtx or trt also the TensorRT engines of one GPU family."""

    checkpoint: Path
    """Folder that `python -m train fit` wrote, or an engine folder, whose weights are taken."""
    out: Path
    """Folder of the engine; its last part is the engine's name."""
    to: Literal["onnx", "trt-rtx", "trt"] = "onnx"
    """onnx: for every machine. trt-rtx: TensorRT-RTX (compute capability 8.0 to 8.9, 12.0 up), built with or
    without a GPU. trt: TensorRT, for the GPU of this machine."""
    dtype: Literal["float32", "float16"] = "float32"
    """What the TensorRT engines compute in; model.onnx is float32 always."""
    check: bool = False
    """Write nothing; read every file of the folder again and compare it with the trained network."""


def write_onnx_engine(source: Source, folder: Path, name: str) -> float:
    """Write all files of the ONNX engine `name` into `folder`, load it, and compare it with the source.

    Returns the largest difference of a probability.

    Raises:
        UsageError: the network is not one that an engine can be made of.
        OutputError: the engine and the source differ too much.
        EngineError: the manifest would not be accepted, such as for a bad name.
    """
    try:
        network = source.folded()
    except ValueError as error:
        raise UsageError(f"no engine can be made of this network ({error})") from error
    (folder / ONNX_FILE).write_bytes(to_onnx(network))
    state = {key: value.contiguous() for key, value in sorted(source.model.state_dict().items())}
    (folder / WEIGHTS_FILE).write_bytes(save(state))
    (folder / CARD_FILE).write_text(source.card_named(name), encoding="utf-8")
    files = {f: FileEntry.of(folder / f) for f in (ONNX_FILE, WEIGHTS_FILE, CARD_FILE)}
    source.manifest(name, OPSET, files).write(folder)
    engine = OnnxEngine(folder)
    difference = check_engine(engine, f"engine {name}, not written", source)
    engine.close()
    return difference


def add_tensorrt(
    source: Source, folder: Path, to: Literal["trt-rtx", "trt"], dtype: Literal["float32", "float16"]
) -> str:
    """Build the TensorRT engines of an ONNX engine folder into it, and rewrite its manifest and card.

    Returns a few words about them for the user.

    Raises: UsageError if the library is not installed, or cannot build here; OutputError if the network
        does not bear to be computed in `dtype`.
    """
    runtime = "tensorrt-rtx" if to == "trt-rtx" else "tensorrt"
    difference = folded_difference(source, dtype)
    if not difference <= TOLERANCE[dtype]:
        raise OutputError(
            f"computed in {dtype}, a probability differs by {difference:.2g} from the trained network's"
            f" (allowed: {TOLERANCE[dtype]:g}); nothing was written; use --dtype float32"
        )
    report = build_engines(folder, runtime, dtype)
    card = folder / CARD_FILE
    text = card.read_text(encoding="utf-8").rstrip("\n")
    card.write_text(
        f"{text}\n\n## Built for\n\n{runtime} {report.version}, compute capability"
        f" {report.compute_capability}, computing in {dtype}. On another GPU or version the recogniser runs"
        f" {ONNX_FILE} instead.\n",
        encoding="utf-8",
    )
    manifest = Manifest.read(folder)
    names = (*manifest.files, ENGINE_FILE, BATCH_ENGINE_FILE)
    replace(
        manifest,
        runtime=runtime,
        runtime_version=report.version,
        compute_capability=report.compute_capability,
        dtype=dtype,
        files={name: FileEntry.of(folder / name) for name in names},
    ).write(folder)
    return (
        f"; {runtime} {report.version} for {report.compute_capability}, {dtype}: {report.operators} of"
        f" {report.operators} operators, lowered graph within {report.lowered_difference:.1e}, in {dtype} on"
        f" the CPU within {difference:.1e}"
    )


def write(config: ExportConfig) -> str:
    """Export; returns one line for the user."""
    if config.to == "onnx" and config.dtype != "float32":
        raise UsageError("--dtype float16 is for --to trt-rtx and --to trt; model.onnx is float32")
    source = read_source(config.checkpoint)
    name = config.out.resolve().name
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            difference = write_onnx_engine(source, folder, name)
            built = "" if config.to == "onnx" else add_tensorrt(source, folder, config.to, config.dtype)
            config.out.mkdir(parents=True, exist_ok=True)
            # The manifest last: a folder that has one is whole.
            for file in (*Manifest.read(folder).files, MANIFEST_FILE):
                partial = config.out / f"{file}.partial"
                partial.write_bytes((folder / file).read_bytes())
                os.replace(partial, config.out / file)
    except OSError as error:
        raise UsageError(
            f"{config.out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return f"{config.out}: written; largest difference to the trained network: {difference:.1e}{built}"
