"""ResNet18 as an ONNX file with batch normalisation folded, as a user would run it on a CPU."""

from __future__ import annotations

import onnx
import torch
from onnx import helper
from torch import nn

from train.export.onnx_graph import IR_VERSION, OPSET, OnnxGraph
from train.models.resnet18 import SIDE, Block, ResNet18


class _Graph(OnnxGraph):
    """Convolutions and blocks of them."""

    def convolution(self, x: str, layer: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """A convolution and the batch normalisation after it, in evaluation mode, as one convolution."""
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight = (layer.weight * scale[:, None, None, None]).numpy()
            bias = (norm.bias - norm.running_mean * scale).numpy()
        padding = int(layer.padding[0])
        return self.add(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            strides=list(layer.stride),
            pads=[padding] * 4,
        )

    def block(self, x: str, block: Block) -> str:
        """A block of two convolutions and its shortcut."""
        shortcut = x
        if isinstance(block.shortcut, nn.Sequential):
            layer, norm = block.shortcut
            assert isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            shortcut = self.convolution(x, layer, norm)
        h = self.add("Relu", self.convolution(x, block.first, block.first_norm))
        h = self.convolution(h, block.second, block.second_norm)
        return self.add("Relu", self.add("Add", h, shortcut))


def resnet18_to_onnx(model: ResNet18) -> bytes:
    """`pictures` (batch, 3, 224, 224) -> class probabilities (batch, classes), in evaluation mode."""
    graph = _Graph()
    x = graph.add("Relu", graph.convolution("pictures", model.stem, model.stem_norm))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block in model.blocks:
        assert isinstance(block, Block)
        x = graph.block(x, block)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    linear = model.linear
    weight, bias = (graph.constant(part.detach().numpy()) for part in (linear.weight, linear.bias))
    x = graph.add("Softmax", graph.add("Gemm", x, weight, bias, transB=1))
    pictures = helper.make_tensor_value_info("pictures", onnx.TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    scores = helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, ["batch", linear.out_features])
    model_proto = helper.make_model(
        helper.make_graph(graph.nodes, "resnet18", [pictures], [scores], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model_proto, full_check=True)
    return model_proto.SerializeToString()
