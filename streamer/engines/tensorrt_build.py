"""TensorRT engines from model.onnx, built on first use and kept in the user's cache.

Both flavours of TensorRT have the same Python interface. An engine fits one version of one flavour and one
GPU, so the cached file is named after these and the model; its first bytes are its SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
from pathlib import Path
from types import ModuleType

from streamer.engines.base import first_line
from streamer.engines.cuda import Gpu, GpuUnavailable, serves
from streamer.fetching import FetchError, cache_folder, write_whole
from streamer.manifest import MAX_FILE_BYTES

log = logging.getLogger(__name__)

MODULES = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
"""Runtime of the manifest -> Python module."""
MAX_BATCH = 64
"""Most expressions that the engine for batches takes at once."""
RTX_FROM = "8.0+"
"""Compute capabilities that TensorRT-RTX builds for when none is asked for."""
_HASH_BYTES = hashlib.sha256().digest_size


def import_tensorrt(runtime: str) -> ModuleType:
    """The library of that runtime.

    Raises: GpuUnavailable if it is not installed, or does not load.
    """
    try:
        return importlib.import_module(MODULES[runtime])
    except (ImportError, OSError, RuntimeError) as error:
        extra = "trt-rtx" if runtime == "tensorrt-rtx" else "trt"
        raise GpuUnavailable(
            f"{MODULES[runtime]} cannot be imported ({first_line(error)}); pip install '.[{extra}]'"
        ) from error


def runtime_for(gpu: Gpu) -> str:
    """The flavour to build with: TensorRT-RTX where it serves the GPU and is installed, else TensorRT.

    Raises: GpuUnavailable if neither can be had.
    """
    if serves(gpu.capability, "tensorrt-rtx", RTX_FROM):
        try:
            import_tensorrt("tensorrt-rtx")
        except GpuUnavailable as error:
            try:
                import_tensorrt("tensorrt")
            except GpuUnavailable:
                raise error from None
        else:
            return "tensorrt-rtx"
    import_tensorrt("tensorrt")
    return "tensorrt"


def build(tensorrt: ModuleType, model: bytes, batch: int) -> bytes:
    """A serialised engine of an ONNX model, for a batch of one to `batch`.

    The network computes in the model's own types, float32 without TF32.

    Raises: GpuUnavailable if TensorRT does not take the model.
    """
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    # From version 11 on every network is strongly typed, and there is no flag for it.
    typed = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model) or network.num_inputs != 1:
        problems = "; ".join(parser.get_error(k).desc() for k in range(parser.num_errors))
        raise GpuUnavailable(f"TensorRT does not take the model ({problems[:200]}); use --device cpu")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # ten bits of mantissa
    features = network.get_input(0)
    rest = tuple(features.shape)[1:]
    if batch == 1:
        features.shape = (1, *rest)
    else:
        profile = builder.create_optimization_profile()
        profile.set_shape(features.name, (1, *rest), (min(16, batch), *rest), (batch, *rest))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise GpuUnavailable("TensorRT builds no engine of the model; use --device cpu")
    return bytes(engine)


def cached(model: bytes, gpu: Gpu, runtime: str, batch: int) -> bytes:
    """The engine of `build` for this GPU, out of the user's cache, or built and put there.

    Raises: GpuUnavailable.
    """
    tensorrt = import_tensorrt(runtime)
    path = cached_path(model, gpu, runtime, str(tensorrt.__version__), batch)
    engine = _read(path)
    if engine is None:
        log.info("building the TensorRT engine %s (once)", path)
        engine = build(tensorrt, model, batch)
        try:
            write_whole(path, hashlib.sha256(engine).digest() + engine)
        except OSError as error:
            log.warning(
                "%s: cannot be written (%s): the engine is built anew next time", path, error.strerror
            )
    return engine


def cached_path(model: bytes, gpu: Gpu, runtime: str, version: str, batch: int) -> Path:
    """Where that engine is kept.

    Raises: GpuUnavailable if there is no home folder.
    """
    try:
        folder = cache_folder() / "engines"
    except FetchError as error:
        raise GpuUnavailable(f"there is nowhere to keep a built engine ({error})") from error
    parts = (hashlib.sha256(model).hexdigest()[:16], runtime, version, gpu.name, gpu.capability_text)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts))
    return folder / f"{name}-batch{batch}.engine"


def _read(path: Path) -> bytes | None:
    """The engine of a cached file, None if there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES[".engine"] + _HASH_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: cannot be read (%s): building it anew", path, error.strerror)
        return None
    engine = data[_HASH_BYTES:]
    if not engine or hashlib.sha256(engine).digest() != data[:_HASH_BYTES]:
        log.warning("%s: damaged, building it anew", path)
        return None
    return engine
