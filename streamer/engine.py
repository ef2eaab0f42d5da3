"""Engines: what turns a `GraphSample` into class and action-unit probabilities.

    engine = load_engine("gtsgn-simulated", "auto")
    sample = build_graph(key_frames.nodes, engine.manifest.features)
    engine.classify(sample)

`docs/engines.md` says how to add one. Nothing here needs torch.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import sys
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # pyright: ignore[reportAttributeAccessIssue]

from streamer.errors import EngineError
from streamer.manifest import MANIFEST_FILE, ONNX_FILE, Binding, FileEntry, Manifest
from streamer.messages import F32, Classification, GraphSample
from streamer.onnx_file import summarise

__all__ = ["Binding", "Engine", "FileEntry", "Manifest", "OnnxEngine", "load_engine"]

log = logging.getLogger(__name__)

ENGINES_FOLDER = Path(__file__).resolve().parent.parent / "engines"
"""Where an engine's name is looked up."""

# A softmax in float32 sums to 1 within a few rounding errors; a half-precision engine within about 1e-3.
SUM_TOLERANCE = 1e-2
RANGE_TOLERANCE = 1e-3

# All that ONNX Runtime raises; most of it has no common base below Exception.
_ORT_ERRORS = (
    *(e for e in vars(ort_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    MemoryError,
    UnicodeDecodeError,  # names or messages out of a damaged model
)

# Off before any session is made (where it exists, it is on by default).
ort.disable_telemetry_events()


class Engine(Protocol):
    """A loaded classifier. One thread at a time may use it."""

    @property
    def manifest(self) -> Manifest: ...

    def classify(self, sample: GraphSample) -> Classification:
        """Probabilities of one expression, whose features have the form `manifest.features`.

        Raises: EngineError if the engine gives what is no probability, or is closed.
        """
        ...

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        """Probabilities of many expressions.

        features: (B, 3, n, 4) float32. Returns scores (B, classes) and action units (B, aus), float32,
        in the order of the manifest.

        Raises: ValueError for features of another shape or that are not finite; EngineError as `classify`.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. It cannot be used afterwards; closing twice is fine."""
        ...


class OnnxEngine:
    """The CPU engine: ONNX Runtime on one thread.

    One thread, because on a network of this size a second one makes the slow calls slower still (p99 from
    0.2 to 4.4 ms on two cores). The buffers of a batch of one are allocated once and bound to the session.

    Args:
        folder: an engine's folder.
        manifest: its manifest, if it has been read already.

    Raises: EngineError if model.onnx is not the file of the manifest, cannot be run, refers to other
        files, or does not have the manifest's bindings.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None) -> None:
        self._manifest = Manifest.read(folder) if manifest is None else manifest
        self._path = folder / ONNX_FILE
        model = self._manifest.read_file(folder, ONNX_FILE)
        self._check_file(model)
        self._session: ort.InferenceSession | None = self._open(model)
        nodes = self._manifest.inputs[0].shape[2]
        self._outputs = [binding.name for binding in self._manifest.outputs]
        self._features = np.zeros((1, 3, int(nodes), 4), np.float32)
        self._scores = np.zeros((1, len(self._manifest.classes)), np.float32)
        self._action_units = np.zeros((1, len(self._manifest.action_units)), np.float32)
        try:
            self._io = self._session.io_binding()
            self._io.bind_ortvalue_input("features", ort.OrtValue.ortvalue_from_numpy(self._features))
            for name, buffer in zip(self._outputs, (self._scores, self._action_units), strict=False):
                self._io.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(buffer))
        except _ORT_ERRORS as error:
            raise self._error(f"ONNX Runtime cannot bind it ({_first_line(error)})") from error
        # The first runs allocate, and show here what would otherwise fail in the middle of a stream.
        self.classify(GraphSample(self._features[0].copy()))
        self.classify_batch(np.zeros((2, 3, int(nodes), 4), np.float32))

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def classify(self, sample: GraphSample) -> Classification:
        session = self._open_session()
        self._check_features(sample.features, 3)
        self._features[0] = sample.features
        try:
            session.run_with_iobinding(self._io)
        except _ORT_ERRORS as error:
            raise self._error(f"it failed on a sample ({_first_line(error)})") from error
        # Lists: for a handful of numbers they are quicker than arrays.
        scores = self._probabilities(self._scores[0].tolist())
        action_units = self._probabilities(self._action_units[0].tolist())
        if abs(sum(scores) - 1.0) > SUM_TOLERANCE:
            raise self._error(f"its scores do not sum to 1: {scores}")
        return Classification(
            dict(zip(self._manifest.classes, scores, strict=True)),
            dict(zip(self._manifest.action_units, action_units, strict=True)),
        )

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        session = self._open_session()
        batch = np.ascontiguousarray(features, np.float32)
        self._check_features(batch, 4)
        if len(batch) == 0:
            return self._scores[:0].copy(), self._action_units[:0].copy()
        try:
            results = [np.asarray(result) for result in session.run(self._outputs, {"features": batch})]
        except _ORT_ERRORS as error:
            raise self._error(f"it failed on a batch of {len(batch)} ({_first_line(error)})") from error
        if len(results) == 1:
            results.append(np.zeros((len(batch), 0), np.float32))
        for result, one in zip(results, (self._scores, self._action_units), strict=True):
            if result.shape != (len(batch), one.shape[1]):
                raise self._error(f"it gave shape {result.shape} for a batch of {len(batch)}")
            # NaN fails the comparisons.
            if not ((result >= -RANGE_TOLERANCE) & (result <= 1.0 + RANGE_TOLERANCE)).all():
                raise self._error("it gave no probabilities for a batch")
        scores, action_units = results
        if not (np.abs(scores.sum(axis=1) - 1.0) <= SUM_TOLERANCE).all():
            raise self._error("its scores do not sum to 1")
        return np.clip(scores, 0.0, 1.0), np.clip(action_units, 0.0, 1.0)

    def close(self) -> None:
        self._session = None
        self._io = None

    def _open_session(self) -> ort.InferenceSession:
        if self._session is None:
            raise EngineError(f"engine {self._manifest.name} is closed; load it again")
        return self._session

    def _check_file(self, model: bytes) -> None:
        try:
            summary = summarise(model)
        except ValueError as error:
            raise self._error(f"it is no ONNX model ({error})") from error
        if summary.external_data:
            raise self._error("its weights lie in another file; export it with all data inside")
        if summary.control_flow:
            raise self._error("it has control flow (If, Loop or Scan); export it as one plain graph")
        if summary.opset != self._manifest.opset:
            raise self._error(f"its opset is {summary.opset}, the manifest says {self._manifest.opset}")

    def _open(self, model: bytes) -> ort.InferenceSession:
        try:
            session = ort.InferenceSession(
                model,
                _session_options(),
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # which would print to standard output and try the same again
                read_config_from_model=0,
            )
            self._check_bindings(session)
        except _ORT_ERRORS as error:
            raise self._error(f"ONNX Runtime cannot load it ({_first_line(error)})") from error
        return session

    def _check_bindings(self, session: ort.InferenceSession) -> None:
        for kind, found, expected in (
            ("inputs", session.get_inputs(), self._manifest.inputs),
            ("outputs", session.get_outputs(), self._manifest.outputs),
        ):
            described = [(b.name, _shape(b.shape), b.type) for b in found]
            wanted = [(b.name, b.shape, "tensor(float)") for b in expected]
            if described != wanted:
                raise self._error(f"its {kind} are {described}, the manifest says {wanted}")

    def _check_features(self, features: F32, axes: int) -> None:
        shape = self._features.shape[1:]
        if features.ndim != axes or features.shape[-3:] != shape:
            raise ValueError(f"features have shape {features.shape}; their last axes must be {shape}")
        # A ReLU can swallow a NaN, so the outputs need not show it.
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")

    def _probabilities(self, values: list[float]) -> list[float]:
        """`values` clipped to 0..1, after checking that there is only rounding to clip."""
        if not values:
            return values
        low, high = min(values), max(values)
        # NaN hides from min and max, but not from the sum.
        if low < -RANGE_TOLERANCE or high > 1.0 + RANGE_TOLERANCE or math.isnan(sum(values)):
            raise self._error(f"it gave no probabilities: {values}")
        if low < 0.0 or high > 1.0:
            return [min(max(value, 0.0), 1.0) for value in values]
        return values

    def _error(self, problem: str) -> EngineError:
        return EngineError(
            f"{self._path}: {problem};"
            " use another engine (--engine) or export it again (python -m train export)"
        )


def load_engine(name_or_path: str | Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> Engine:
    """The engine of that name (a folder of `engines/`) or at that path (a folder with a manifest.json).

    device: "cpu" runs model.onnx; "cuda" needs the GPU engine; "auto" takes the manifest's runtime where
    this machine has it, else model.onnx of the same folder, with one warning.

    Raises: EngineError if there is no such engine, if a file is not what the manifest says, or if the
        device cannot be had.
    """
    folder = _find(name_or_path)
    manifest = Manifest.read(folder)
    if device == "cuda":
        missing = "" if _cuda_device_found() else "no CUDA device was found, and "
        raise EngineError(
            f"--device cuda: {missing}the GPU engine is not part of this version; use --device cpu"
        )
    if manifest.runtime == "onnx":
        manifest.verify(folder)
        return OnnxEngine(folder, manifest)
    if ONNX_FILE not in manifest.files:
        raise EngineError(
            f"{folder}: is a {manifest.runtime} engine without {ONNX_FILE}, and the GPU engine is not part"
            " of this version; use another engine (--engine)"
        )
    engine = OnnxEngine(folder, manifest)
    if device == "auto":
        log.warning(
            "engine %s is built for %s, which is not part of this version: running its %s on the CPU",
            *(manifest.name, manifest.runtime, ONNX_FILE),
        )
    return engine


def _find(name_or_path: str | Path) -> Path:
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


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # fatal; every other error arrives as an exception
    return options


def _shape(shape: list[int | str | None]) -> tuple[int | str, ...]:
    """A session's shape in the manifest's words: the one free axis is the batch, whatever its symbol."""
    return tuple(size if isinstance(size, int) else "batch" for size in shape)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return ascii(lines[0][:200])[1:-1] if lines else type(error).__name__


def _cuda_device_found() -> bool:
    """Ask the driver itself how many devices it has."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
