"""A trained GTS-GN rewritten for speed: the same function in far fewer operations.

Three rewritings, all exact up to rounding:

- Batch normalisation at run time is a fixed scale and shift. Each goes into the weights beside it.
- theta and the taps of the TCN are multiplied out, and the convolution over three frames, zero-padded,
  is written as one block matrix (3 * inputs, 3 * outputs) on the concatenated frames.
- The two streams have layers of equal shape: they run as one batch of two until they are summed.

A layer is then relu(A X W + b) with X (B, [streams,] nodes, 3 * channels): two products, a sum, a ReLU.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.gts_gn import GTSGN
from train.models.layers import FRAMES, Head, SSModule


def _stack(layers: nn.ModuleList) -> list[SSModule]:
    return cast("list[SSModule]", list(layers))


def _scale_and_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """(channels,) each: evaluation-mode batch normalisation is x * scale + shift."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("batch normalisation without running statistics cannot be folded")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


class FoldedLayer(nn.Module):
    """relu(A X W + b): the SS module of one depth, or those of both streams as a batch of two.

    adjacency: (nodes, nodes). weight: (3 * inputs, 3 * outputs). bias: (1 or nodes, 3 * outputs).
    X: (B, nodes, 3 * inputs), frame by frame. With two streams all have an axis for them before these.
    """

    @torch.no_grad()
    def __init__(self, modules: list[SSModule], input_shift: list[Tensor] | None = None) -> None:
        super().__init__()
        folded = [_fold(m, input_shift[k] if input_shift else None) for k, m in enumerate(modules)]
        for name, parts in zip(("adjacency", "weight", "bias"), zip(*folded, strict=True), strict=True):
            self.register_buffer(name, (parts[0] if len(parts) == 1 else torch.stack(parts)).float())

    def forward(self, x: Tensor) -> Tensor:
        aggregated = torch.matmul(self.get_buffer("adjacency"), x)
        return F.relu(torch.matmul(aggregated, self.get_buffer("weight")) + self.get_buffer("bias"))


def _fold(module: SSModule, input_shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Adjacency (nodes, nodes), weight (3 * inputs, 3 * outputs) and bias (1 or nodes, 3 * outputs).

    input_shift: (nodes, inputs) that the input normalisation adds; it becomes part of the bias.
    """
    adjacency = module.adjacency().double()
    filters = module.theta.double() @ module.taps.double()  # (tap, inputs, outputs)
    scale, shift = _scale_and_shift(module.norm.norm)
    filters = filters * scale
    _, inputs, outputs = filters.shape
    weight = torch.zeros(FRAMES, inputs, FRAMES, outputs, dtype=torch.float64)
    for frame in range(FRAMES):
        for tap in range(FRAMES):
            source = frame + tap - 1
            if 0 <= source < FRAMES:
                weight[source, :, frame] = filters[tap]
    weight = weight.reshape(FRAMES * inputs, FRAMES * outputs)
    bias = shift.repeat(FRAMES)[None]
    if input_shift is not None:
        bias = bias + (adjacency @ input_shift.repeat(1, FRAMES)) @ weight
    return adjacency, weight, bias


class InferenceNetwork(nn.Module):
    """Features (B, 3, nodes, 4) -> class probabilities, and action-unit probabilities if it has heads.

    Args:
        model: the trained network; it is not changed.
        temperature: the class logits are divided by it before the softmax.
    """

    @torch.no_grad()
    def __init__(self, model: GTSGN, temperature: float = 1.0) -> None:
        super().__init__()
        scales, shifts = [], []
        for stream in (model.low_norm, model.high_norm):
            scale, shift = _scale_and_shift(stream.norm)
            scales.append(scale.view(-1, 2).repeat(1, FRAMES))
            shifts.append(shift.view(-1, 2))
        self.register_buffer("input_scale", torch.stack(scales).float())
        self.streams = nn.ModuleList(
            FoldedLayer([low, high], shifts if depth == 0 else None)
            for depth, (low, high) in enumerate(zip(_stack(model.low), _stack(model.high), strict=True))
        )
        self.fused = nn.ModuleList(FoldedLayer([layer]) for layer in _stack(model.fused))
        linear = model.classes.linear
        self.classes = linear.out_features
        weights, biases = (
            [linear.weight.double() / temperature],
            [linear.bias.double() / temperature],
        )
        if model.action_units:
            linear = cast("Head", model.action_units[-1]).linear
            weights.append(linear.weight.double())
            biases.append(linear.bias.double())
        self.register_buffer("head_weight", torch.cat(weights).T.contiguous().float())
        self.register_buffer("head_bias", torch.cat(biases).float())

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        units = self.get_buffer("head_bias").shape[0] > self.classes
        return ("scores", "action_units") if units else ("scores",)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """scores (B, classes), softmax; action_units (B, action units), sigmoid of the last head."""
        nodes = features.shape[2]
        x = features.view(-1, FRAMES, nodes, 2, 2).permute(0, 3, 2, 1, 4).reshape(-1, 2, nodes, 2 * FRAMES)
        x = x * self.get_buffer("input_scale")
        for layer in self.streams:
            x = layer(x)
        x = x.sum(dim=1)
        for layer in self.fused:
            x = layer(x)
        pooled = x.view(-1, nodes, FRAMES, x.shape[-1] // FRAMES).mean(dim=2).flatten(1)
        logits = torch.matmul(pooled, self.get_buffer("head_weight")) + self.get_buffer("head_bias")
        scores = torch.softmax(logits[:, : self.classes], 1)
        if len(self.outputs) == 1:
            return (scores,)
        return scores, torch.sigmoid(logits[:, self.classes :])
