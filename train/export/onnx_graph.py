"""A folded network as an ONNX file.

Written out here rather than traced by torch's exporter, whose graph changes from one version to the next
and carries paths of the machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from streamer.engines.folding import FRAMES, FoldedLayer, FoldedNetwork

OPSET = 20
IR_VERSION = 10
"""ONNX operator set and file format; ONNX Runtime has read both since 1.18."""


class OnnxGraph:
    """ONNX nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[np.float32] | list[int]) -> str:
        """Add a constant; returns its name."""
        array = np.array(value, np.int64) if isinstance(value, list) else value
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


class _FoldedGraph(OnnxGraph):
    """The parts of a folded network."""

    def layer(self, layer: FoldedLayer, x: str) -> str:
        """relu(A X W + b)."""
        aggregated = self.add("MatMul", self.constant(layer.adjacency), x)
        product = self.add("MatMul", aggregated, self.constant(layer.weight))
        return self.add("Relu", self.add("Add", product, self.constant(layer.bias)))

    def rows(self, network: FoldedNetwork) -> str:
        """The first layer's X of the features, see `streamer.engines.folding`."""
        nodes, channels = network.nodes, network.channels
        if network.streams:
            x = self.add("Reshape", "features", self.constant([-1, FRAMES, nodes, 2, 2]))
            x = self.add("Transpose", x, perm=[0, 3, 2, 1, 4])  # batch, stream, node, frame, channel
            return self.add("Reshape", x, self.constant([-1, 2, nodes, 2 * FRAMES]))
        x = "features"
        if channels < 4:
            x = self.add("Slice", x, *(self.constant([n]) for n in (0, channels, 3)))
        if network.frame_rows:
            return self.add("Reshape", x, self.constant([-1, FRAMES * nodes, channels]))
        x = self.add("Transpose", x, perm=[0, 2, 1, 3])
        return self.add("Reshape", x, self.constant([-1, nodes, FRAMES * channels]))


def to_onnx(network: FoldedNetwork) -> bytes:
    """`network` as one self-contained ONNX file with a free batch axis; equal networks give equal bytes.

    The operations of `streamer.engines.numpy_reference.run`, one by one.
    """
    nodes = network.nodes
    graph = _FoldedGraph()
    x = graph.add("Mul", graph.rows(network), graph.constant(network.input_scale))
    for layer in network.streams:
        x = graph.layer(layer, x)
    if network.streams:
        x = graph.add("ReduceSum", x, graph.constant([1]), keepdims=0)
    for layer in network.fused:
        x = graph.layer(layer, x)
    width = network.head_weight.shape[0] // nodes
    frames_apart, axis = ([FRAMES, nodes], 1) if network.frame_rows else ([nodes, FRAMES], 2)
    x = graph.add("Reshape", x, graph.constant([-1, *frames_apart, width]))
    x = graph.add("ReduceMean", x, graph.constant([axis]), keepdims=0)
    x = graph.add("Reshape", x, graph.constant([-1, nodes * width]))
    x = graph.add("MatMul", x, graph.constant(network.head_weight))
    x = graph.add("Add", x, graph.constant(network.head_bias))
    total = len(network.head_bias)
    ends = {"scores": (0, network.classes, "Softmax"), "action_units": (network.classes, total, "Sigmoid")}
    outputs = []
    for name in network.outputs:
        first, last, activation = ends[name]
        part = graph.add("Slice", x, *(graph.constant([n]) for n in (first, last, 1)))
        graph.add(activation, part, output=name)
        shape = ["batch", last - first]
        outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    features = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["batch", FRAMES, nodes, 4])
    model = helper.make_model(
        helper.make_graph(graph.nodes, _name(network), [features], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _name(network: FoldedNetwork) -> str:
    if network.streams:
        return "gts-gn"
    return "gcn" if network.frame_rows else "ss-gn"
