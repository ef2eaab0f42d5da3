"""The GPU engine: a serialised TensorRT engine, run as one CUDA graph.

The only part of the recogniser that needs torch, which lends it memory, streams and graphs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streamer.engines.base import Answers, first_line
from streamer.engines.cuda import GpuUnavailable
from streamer.manifest import Binding, Manifest
from streamer.messages import F32, Classification, GraphSample

_WARM_UP_RUNS = 3


class TensorRTEngine:
    """Two serialised engines: one for a single expression, one for batches.

    A single call writes the pinned input, replays one CUDA graph (copy in, network, copy out) on a stream
    of its own, and waits for it; nothing is allocated.

    Args:
        manifest: of the engine's folder.
        answers: the checks, with the path that errors name.
        tensorrt: the module of the flavour that built the engines.
        single: engine of batch 1. batches: engine of batch 1 to `max_batch`.

    Raises: GpuUnavailable if TensorRT does not read them here, or the GPU does not run them;
        EngineError if their bindings are not the manifest's, or they give no probabilities.
    """

    def __init__(
        self,
        manifest: Manifest,
        answers: Answers,
        tensorrt: ModuleType,
        single: bytes,
        batches: bytes,
        max_batch: int,
    ) -> None:
        self._manifest = manifest
        self._answers = answers
        self._max_batch = max_batch
        self._single: _Program | None = None
        self._batches: _Program | None = None
        try:
            import torch

            if not torch.cuda.is_available():
                raise GpuUnavailable(f"torch {torch.__version__} sees no GPU; install its CUDA build")
            self._single = _Program(torch, tensorrt, single, 1, manifest, answers)
            self._batches = _Program(torch, tensorrt, batches, max_batch, manifest, answers)
            self._single.capture()
        except ImportError as error:
            raise GpuUnavailable(f"torch cannot be imported ({first_line(error)})") from error
        except RuntimeError as error:  # all that torch raises of CUDA
            raise GpuUnavailable(f"the GPU does not run it ({first_line(error)})") from error
        self.classify(GraphSample(np.zeros(answers.shape, np.float32)))
        self.classify_batch(np.zeros((2, *answers.shape), np.float32))

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def classify(self, sample: GraphSample) -> Classification:
        program = self._single
        if program is None:
            raise self._answers.closed()
        program.features[0] = self._answers.features(sample.features, 3)
        try:
            program.replay()
        except RuntimeError as error:
            raise self._answers.error(f"it failed on a sample ({first_line(error)})") from error
        action_units = program.results[1][0].tolist() if len(program.results) > 1 else []
        return self._answers.one(program.results[0][0].tolist(), action_units)

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        program = self._batches
        if program is None:
            raise self._answers.closed()
        batch = self._answers.features(features, 4)
        results = [np.empty((len(batch), int(b.shape[1])), np.float32) for b in self._manifest.outputs]
        for first in range(0, len(batch), self._max_batch):
            part = batch[first : first + self._max_batch]
            program.features[: len(part)] = part
            try:
                program.run(len(part))
            except RuntimeError as error:
                raise self._answers.error(
                    f"it failed on a batch of {len(part)} ({first_line(error)})"
                ) from error
            for result, buffer in zip(results, program.results, strict=True):
                result[first : first + len(part)] = buffer[: len(part)]
        if len(results) == 1:
            results.append(np.zeros((len(batch), 0), np.float32))
        return self._answers.batch(results[0], results[1], len(batch))

    def close(self) -> None:
        self._single = None
        self._batches = None


class _Program:
    """One deserialised engine with its pinned buffers, GPU buffers, context and stream.

    features: (batch, 3, nodes, 4) float32, write here. results: one (batch, size) float32 for each output
    of the manifest, read here after a run.
    """

    def __init__(
        self,
        torch: Any,
        tensorrt: ModuleType,
        data: bytes,
        batch: int,
        manifest: Manifest,
        answers: Answers,
    ) -> None:
        self._torch = torch
        self._answers = answers
        self._batch = batch
        self._graph: Any = None
        # The context holds neither alive by itself.
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:  # TensorRT says why on standard error, and raises nothing
            raise GpuUnavailable(
                f"TensorRT {tensorrt.__version__} does not read it (built by another version, or for"
                " another GPU); export it again here (python -m train export)"
            )
        self._input, *self._output_names = check_bindings(tensorrt, self._engine, batch, manifest, answers)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise GpuUnavailable("TensorRT makes no execution context for it, perhaps for want of memory")
        self._stream = torch.cuda.Stream()
        self._host_in, self._in = self._buffers(manifest.inputs[0])
        pairs = [self._buffers(binding) for binding in manifest.outputs]
        self._host_out, self._out = [p[0] for p in pairs], [p[1] for p in pairs]
        self.features = self._host_in.numpy()
        self.results = [host.numpy() for host in self._host_out]
        for name, tensor in zip((self._input, *self._output_names), (self._in, *self._out), strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())

    def run(self, count: int) -> None:
        """The first `count` rows of `features` through the network; waits for the results.

        Raises: RuntimeError.
        """
        with self._torch.cuda.stream(self._stream):
            self._enqueue(count)
        self._stream.synchronize()

    def capture(self) -> None:
        """Make the CUDA graph of a full batch that `replay` launches.

        Raises: RuntimeError.
        """
        for _ in range(_WARM_UP_RUNS):  # the first ones compile and allocate, which no graph may hold
            self.run(self._batch)
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            self._enqueue(self._batch)
        self._graph = graph

    def replay(self) -> None:
        """As `run` of a full batch, but launched as one CUDA graph.

        Raises: RuntimeError.
        """
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()
        self._stream.synchronize()

    def _enqueue(self, count: int) -> None:
        if not self._context.set_input_shape(self._input, (count, *self._answers.shape)):
            raise RuntimeError(f"TensorRT refuses a batch of {count}")
        self._in[:count].copy_(self._host_in[:count], non_blocking=True)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT cannot enqueue the network")
        for host, device in zip(self._host_out, self._out, strict=True):
            host[:count].copy_(device[:count], non_blocking=True)

    def _buffers(self, binding: Binding) -> tuple[Any, Any]:
        """A pinned and a GPU tensor of the binding's shape with the full batch."""
        shape = (self._batch, *(int(size) for size in binding.shape[1:]))
        pinned = self._torch.zeros(shape, dtype=self._torch.float32, pin_memory=True)
        return pinned, self._torch.zeros(shape, dtype=self._torch.float32, device="cuda")


def check_bindings(
    tensorrt: ModuleType, engine: Any, batch: int, manifest: Manifest, answers: Answers
) -> list[str]:
    """The names of an engine's input and outputs, after comparing them with the manifest.

    An engine that was built from ONNX has the manifest's names. Torch-TensorRT names outputs output0,
    output1, ... in the order of the manifest.

    engine: an ICudaEngine, or what describes its tensors alike.

    Raises: EngineError if number, names, shapes or types are others.
    """
    wanted: list[tuple[str, str, tuple[int, ...]]] = []
    free = 1 if batch == 1 else -1
    for kind, bindings in (("INPUT", manifest.inputs), ("OUTPUT", manifest.outputs)):
        wanted += [(kind, b.name, (free, *(int(size) for size in b.shape[1:]))) for b in bindings]
    found = {}
    for k in range(engine.num_io_tensors):
        name = engine.get_tensor_name(k)
        kind = "INPUT" if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT else "OUTPUT"
        if engine.get_tensor_dtype(name) != tensorrt.float32:
            raise answers.error(f"its {name} is not float32")
        found[name] = (kind, tuple(engine.get_tensor_shape(name)))
    names = []
    for k, (kind, name, shape) in enumerate(wanted):
        own = name if name in found or kind == "INPUT" else f"output{k - 1}"
        if found.get(own) != (kind, shape):
            raise answers.error(f"its bindings are {found}, the manifest says {wanted}")
        names.append(own)
    if len(found) != len(wanted):
        raise answers.error(f"its bindings are {found}, the manifest says {wanted}")
    return names
