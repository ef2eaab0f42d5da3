"""SS-GN and GTS-GN: networks of stacked SS modules (paper, sections III-B and III-C)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from train.models.layers import Head, InputNorm, SSModule

WIDTHS = (64, 64, 128, 128)
"""Output channels of the four layers (Table II)."""


class Output(NamedTuple):
    """What a network returns.

    classes: (B, classes) logits.
    action_units: one (B, action units) tensor of logits for each head, first layer first.
    features: the (B, frames, nodes, channels) output of every layer after the fusion, first layer first.
    """

    classes: Tensor
    action_units: list[Tensor]
    features: list[Tensor]


def _stack(graph: Tensor, inputs: int, widths: tuple[int, ...], lam: bool) -> nn.ModuleList:
    sizes = (inputs, *widths)
    return nn.ModuleList(SSModule(graph, a, b, lam) for a, b in pairwise(sizes))


class SSGN(nn.Module):
    """One stream of SS modules on (x, y), type A, or on (x, y, D, alpha), type B.

    Input: (B, 3, 14, 4) or (B, 3, 14, 2); channels past `channels` are not looked at.
    """

    def __init__(self, graph: Tensor, classes: int, channels: int = 2, lam: bool = False) -> None:
        super().__init__()
        nodes = graph.shape[0]
        self.channels = channels
        self.input_norm = InputNorm(nodes, channels)
        self.layers = _stack(graph, channels, WIDTHS, lam)
        self.classes = Head(nodes, WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Output:
        h = self.input_norm(x[..., : self.channels])
        features = []
        for layer in self.layers:
            h = layer(h)
            features.append(h)
        return Output(self.classes(h), [], features)


class GTSGN(nn.Module):
    """Geometric two-stream graph network, GTS-GN (layer n).

    The streams (x, y) and (D, alpha) have layers of equal shape; their outputs are summed after layer
    `fusion_layer`, and one stream of SS modules goes on. Each layer from the fusion on has a head for
    the action units, over which the AAU loss is taken; at run time only the last of them is of use.

    Input: (B, 3, 14, 4).

    Args:
        graph: (nodes, nodes), L of equation 4.
        classes: number of classes.
        action_units: number of action units; 0 builds no heads.
        fusion_layer: 1..4.
        lam: with the learnable adjacency matrix.
    """

    def __init__(
        self,
        graph: Tensor,
        classes: int,
        action_units: int,
        fusion_layer: int = 1,
        lam: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= fusion_layer <= len(WIDTHS):
            raise ValueError(f"fusion_layer must be 1..{len(WIDTHS)}, not {fusion_layer}")
        nodes = graph.shape[0]
        self.fusion_layer = fusion_layer
        before, after = WIDTHS[:fusion_layer], WIDTHS[fusion_layer:]
        self.low_norm = InputNorm(nodes, 2)
        self.high_norm = InputNorm(nodes, 2)
        self.low = _stack(graph, 2, before, lam)
        self.high = _stack(graph, 2, before, lam)
        self.fused = _stack(graph, before[-1], after, lam)
        self.classes = Head(nodes, WIDTHS[-1], classes)
        constrained = WIDTHS[fusion_layer - 1 :] if action_units else ()
        self.action_units = nn.ModuleList(Head(nodes, width, action_units) for width in constrained)

    def forward(self, x: Tensor) -> Output:
        low, high = self.low_norm(x[..., :2]), self.high_norm(x[..., 2:])
        for low_layer, high_layer in zip(self.low, self.high, strict=True):
            low, high = low_layer(low), high_layer(high)
        features = [torch.add(low, high)]
        for layer in self.fused:
            features.append(layer(features[-1]))
        heads = zip(self.action_units, features, strict=True) if self.action_units else ()
        return Output(self.classes(features[-1]), [head(h) for head, h in heads], features)
