"""Builds the TensorRT engines of an engine folder's weights. A process of its own:

    python -m train.export.tensorrt_child ENGINE_FOLDER OUT tensorrt-rtx float32

Writes model.engine, model_batch.engine and tensorrt.json into OUT. Fails with one last line on standard
error that says what is wrong.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from streamer.engines.base import Answers, first_line
from streamer.engines.tensorrt_build import MAX_BATCH, RTX_FROM
from streamer.engines.tensorrt_gpu import check_bindings
from streamer.errors import StreamerError, UsageError
from streamer.manifest import BATCH_ENGINE_FILE, ENGINE_FILE, Manifest
from train.export.source import read_source
from train.export.tensorrt_engines import REPORT_FILE, Report
from train.export.without_gpu import import_torch_tensorrt
from train.models.inference import InferenceNetwork

OPTIMAL_BATCH = 16
COMPARED_INPUTS = 64


def lower(torch_tensorrt: ModuleType, module: nn.Module, example: Tensor) -> torch.fx.GraphModule:
    """The graph that Torch-TensorRT converts, operator by operator."""
    from torch_tensorrt.dynamo._settings import CompilationSettings  # pyright: ignore[reportMissingImports]
    from torch_tensorrt.dynamo.lowering import (  # pyright: ignore[reportMissingImports]
        get_decompositions,
        post_lowering,
        pre_export_lowering,
    )

    settings = CompilationSettings()
    program = torch.export.export(module, (example,))
    program = pre_export_lowering(program, settings).run_decompositions(get_decompositions(False))
    return post_lowering(program.module(), settings)


def operators(torch_tensorrt: ModuleType, graph: torch.fx.GraphModule) -> tuple[int, list[str]]:
    """How many operators a lowered graph has, and the names of those without a converter."""
    from torch_tensorrt.dynamo.partitioning._global_partitioner import (  # pyright: ignore[reportMissingImports]
        TorchTensorRTOperatorSupport,
    )

    support = TorchTensorRTOperatorSupport(torch_executed_ops=set())
    modules = dict(graph.named_modules())
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    missing = {str(node.target) for node in nodes if not support.is_node_supported(modules, node)}
    return len(nodes), sorted(missing)


def lowered_difference(graph: torch.fx.GraphModule, module: nn.Module, features: Tensor) -> float:
    """Largest difference of any output between the lowered graph and the module itself; `features` is one
    batch of the size that the graph was made for, or several of it."""
    with torch.inference_mode():
        return max(
            float((ours.float() - theirs.float()).abs().max())
            for part in features.split(1)
            for ours, theirs in zip(_tensors(graph(part)), _tensors(module(part)), strict=True)
        )


def _tensors(output: Any) -> list[Tensor]:
    """All tensors of a nested output, in order."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in _tensors(part)]


def convert(
    torch_tensorrt: ModuleType, tensorrt: ModuleType, network: InferenceNetwork, batch: int
) -> tuple[bytes, Any]:
    """A serialised engine for a batch of one to `batch`, and its network definition.

    Raises: RuntimeError.
    """
    from torch_tensorrt.dynamo import conversion  # pyright: ignore[reportMissingImports]

    shape = (3, network.nodes, 4)
    dynamic = batch > 1
    program = torch.export.export(
        network,
        (torch.zeros(2 if dynamic else 1, *shape),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=batch)},) if dynamic else None,
    )
    if dynamic:
        inputs = torch_tensorrt.Input(
            min_shape=(1, *shape),
            opt_shape=(OPTIMAL_BATCH, *shape),
            max_shape=(batch, *shape),
            dtype=torch.float32,
            name="features",
        )
    else:
        inputs = torch_tensorrt.Input(shape=(1, *shape), dtype=torch.float32, name="features")
    definitions = []
    interpreter = conversion._TRTInterpreter.TRTInterpreter
    run = interpreter.run

    def run_and_keep(self: Any, *arguments: Any, **settings: Any) -> Any:
        definitions.append(self.ctx.net)
        return run(self, *arguments, **settings)

    interpreter.run = run_and_keep
    try:
        engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=(inputs,),
            require_full_compilation=True,
            min_block_size=1,
            disable_tf32=True,  # ten bits of mantissa
        )
    finally:
        interpreter.run = run
    return bytes(engine), Definition(tensorrt, definitions[-1])


class Definition:
    """The tensors of a network definition, by the names of ICudaEngine's members."""

    def __init__(self, tensorrt: ModuleType, network: Any) -> None:
        mode = tensorrt.TensorIOMode
        tensors = [(network.get_input(k), mode.INPUT) for k in range(network.num_inputs)]
        tensors += [(network.get_output(k), mode.OUTPUT) for k in range(network.num_outputs)]
        self._tensors = {tensor.name: (tensor, kind) for tensor, kind in tensors}
        self._names = list(self._tensors)
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, k: int) -> str:
        return self._names[k]

    def get_tensor_mode(self, name: str) -> Any:
        return self._tensors[name][1]

    def get_tensor_shape(self, name: str) -> Any:
        return self._tensors[name][0].shape

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name][0].dtype


def build(folder: Path, out: Path, runtime: str, dtype: str) -> None:
    """Build both engines; see the top of this file.

    Raises: UsageError, EngineError, and whatever Torch-TensorRT raises.
    """
    torch_tensorrt, tensorrt = import_torch_tensorrt()
    rtx = "rtx" in tensorrt.__name__
    if rtx != (runtime == "tensorrt-rtx"):
        raise UsageError(f"torch_tensorrt here is that of {tensorrt.__name__}, not of {runtime}")
    if not rtx and not torch.cuda.is_available():
        raise UsageError(
            "TensorRT builds on the GPU that it builds for, and there is none (see --to trt-rtx)"
        )
    manifest, source = Manifest.read(folder), read_source(folder)
    network = InferenceNetwork(source.folded(), getattr(torch, dtype)).eval()
    features = torch.randn(COMPARED_INPUTS, 3, network.nodes, 4, generator=torch.Generator().manual_seed(0))
    graph = lower(torch_tensorrt, network, features[:1])
    count, missing = operators(torch_tensorrt, graph)
    if missing:
        raise UsageError(f"TensorRT has no converter for {', '.join(missing)}")
    report = Report(
        version=tensorrt.__version__,
        compute_capability=RTX_FROM if rtx else "{}.{}".format(*torch.cuda.get_device_capability()),
        operators=count,
        lowered_difference=lowered_difference(graph, network, features),
    )
    for name, batch in ((ENGINE_FILE, 1), (BATCH_ENGINE_FILE, MAX_BATCH)):
        engine, definition = convert(torch_tensorrt, tensorrt, network, batch)
        check_bindings(tensorrt, definition, batch, manifest, Answers(manifest, folder / name))
        (out / name).write_bytes(engine)
    (out / REPORT_FILE).write_text(json.dumps(asdict(report)), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0, or 1 after one line on standard error."""
    folder, out, runtime, dtype = arguments
    try:
        build(Path(folder), Path(out), runtime, dtype)
    except (StreamerError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(first_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
