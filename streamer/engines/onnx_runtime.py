"""The CPU engine: model.onnx through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # pyright: ignore[reportAttributeAccessIssue]

from streamer.engines.base import Answers, first_line
from streamer.manifest import ONNX_FILE, Manifest
from streamer.messages import F32, Classification, GraphSample
from streamer.onnx_file import check_model

# All that ONNX Runtime raises; most of it has no common base below Exception.
_ORT_ERRORS = (
    *(e for e in vars(ort_errors).values() if isinstance(e, type) and issubclass(e, Exception)),
    RuntimeError,
    MemoryError,
    UnicodeDecodeError,  # names or messages out of a damaged model
)

# Off before any session is made (where it exists, it is on by default).
ort.disable_telemetry_events()


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
        self._answers = Answers(self._manifest, folder / ONNX_FILE)
        model = self._manifest.read_file(folder, ONNX_FILE)
        try:
            check_model(model, self._manifest.opset)
        except ValueError as error:
            raise self._answers.error(str(error)) from error
        self._session: ort.InferenceSession | None = self._open(model)
        self._outputs = [binding.name for binding in self._manifest.outputs]
        self._features = np.zeros((1, *self._answers.shape), np.float32)
        self._scores = np.zeros((1, len(self._manifest.classes)), np.float32)
        self._action_units = np.zeros((1, len(self._manifest.action_units)), np.float32)
        try:
            self._io = self._session.io_binding()
            self._io.bind_ortvalue_input("features", ort.OrtValue.ortvalue_from_numpy(self._features))
            for name, buffer in zip(self._outputs, (self._scores, self._action_units), strict=False):
                self._io.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(buffer))
        except _ORT_ERRORS as error:
            raise self._answers.error(f"ONNX Runtime cannot bind it ({first_line(error)})") from error
        # The first runs allocate, and show here what would otherwise fail in the middle of a stream.
        self.classify(GraphSample(self._features[0].copy()))
        self.classify_batch(np.zeros((2, *self._answers.shape), np.float32))

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def classify(self, sample: GraphSample) -> Classification:
        session = self._open_session()
        self._features[0] = self._answers.features(sample.features, 3)
        try:
            session.run_with_iobinding(self._io)
        except _ORT_ERRORS as error:
            raise self._answers.error(f"it failed on a sample ({first_line(error)})") from error
        return self._answers.one(self._scores[0].tolist(), self._action_units[0].tolist())

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        session = self._open_session()
        batch = self._answers.features(features, 4)
        count = len(batch)
        if count == 0:
            return self._scores[:0].copy(), self._action_units[:0].copy()
        try:
            results = [np.asarray(result) for result in session.run(self._outputs, {"features": batch})]
        except _ORT_ERRORS as error:
            raise self._answers.error(f"it failed on a batch of {count} ({first_line(error)})") from error
        if len(results) == 1:
            results.append(np.zeros((count, 0), np.float32))
        return self._answers.batch(results[0], results[1], count)

    def close(self) -> None:
        self._session = None
        self._io = None

    def _open_session(self) -> ort.InferenceSession:
        if self._session is None:
            raise self._answers.closed()
        return self._session

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
            raise self._answers.error(f"ONNX Runtime cannot load it ({first_line(error)})") from error
        return session

    def _check_bindings(self, session: ort.InferenceSession) -> None:
        for kind, found, expected in (
            ("inputs", session.get_inputs(), self._manifest.inputs),
            ("outputs", session.get_outputs(), self._manifest.outputs),
        ):
            described = [(b.name, _shape(b.shape), b.type) for b in found]
            wanted = [(b.name, b.shape, "tensor(float)") for b in expected]
            if described != wanted:
                raise self._answers.error(f"its {kind} are {described}, the manifest says {wanted}")


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
