"""The building blocks of the graph networks.

Node features run through the network as (batch, frames, nodes, channels); the three frames are onset,
apex and offset. A graph enters as the matrix L = I + D^-1/2 A D^-1/2 of `streamer.graph` (equation 4).

In memory the layers lay them out node by node, so that a layer is two large matrix products and nothing is
copied between two layers: a training step takes about two thirds of the time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES = 3
"""Onset, apex, offset."""


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Weights for a layer whose inputs number `fan_in`; uniform, variance 2 / fan_in (for ReLU)."""
    bound = math.sqrt(6.0 / fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Adjacency(nn.Module):
    """The graph that a layer aggregates over: L, or L + A_L with the learnable matrix (LAM, equation 6).

    A_L starts at zero, so an untrained network aggregates over the fixed graph.
    """

    def __init__(self, graph: Tensor, lam: bool) -> None:
        super().__init__()
        self.register_buffer("fixed", graph.clone(), persistent=False)
        self.learned = nn.Parameter(torch.zeros_like(graph)) if lam else None

    def forward(self) -> Tensor:
        """(nodes, nodes)."""
        fixed = self.get_buffer("fixed")
        return fixed if self.learned is None else fixed + self.learned


class InputNorm(nn.Module):
    """Batch normalisation of one stream's input: statistics for each (node, channel), over batch and frames.

    (B, frames, nodes, channels) -> the same shape. All frames share the statistics, so the differences
    between frames, which are the motion, survive.
    """

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(nodes * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(2).flatten(0, 1)).view_as(x)


class ChannelNorm(nn.Module):
    """Batch normalisation of the channels, over batch, frames and nodes: (..., channels) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, -2)).view_as(x)


class GraphConv(nn.Module):
    """GCN layer with ReLU: relu(BN((L + A_L) X theta)), equation 6; X is (B, nodes, channels)."""

    def __init__(self, graph: Tensor, inputs: int, outputs: int, lam: bool) -> None:
        super().__init__()
        self.adjacency = Adjacency(graph, lam)
        self.theta = _uniform(inputs, outputs, fan_in=inputs)
        self.norm = ChannelNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, nodes, channels = x.shape
        rows = x.transpose(0, 1).reshape(nodes, batch * channels)
        aggregated = torch.matmul(self.adjacency(), rows).view(nodes * batch, channels)
        y = F.relu(self.norm(torch.matmul(aggregated, self.theta)))
        return y.view(nodes, batch, -1).transpose(0, 1)


class SSModule(nn.Module):
    """Spatial-then-temporal module (equation 8) with ReLU: relu(BN(TCN(GCN'(X)))).

    The GCN (filter theta) aggregates over the nodes of each frame, the TCN (three taps) over the frames
    of each node. Nothing non-linear stands between the two in equation 8, so theta and the taps are
    multiplied first and the features meet the product: the same function at 60 % of the work.
    """

    def __init__(self, graph: Tensor, inputs: int, outputs: int, lam: bool) -> None:
        super().__init__()
        self.adjacency = Adjacency(graph, lam)
        self.theta = _uniform(inputs, outputs, fan_in=inputs)
        self.taps = _uniform(FRAMES, outputs, outputs, fan_in=FRAMES * outputs)
        self.norm = ChannelNorm(outputs)

    def filters(self) -> Tensor:
        """(3 * inputs, 3 * outputs): how each of the three frames passes into each of the three; onset to
        offset and back does not, and beyond them stand zeros (a convolution with "same" padding)."""
        before, this, after = torch.matmul(self.theta, self.taps).unbind(0)
        none = torch.zeros_like(this)
        rows = ((this, before, none), (after, this, before), (none, after, this))
        return torch.cat([torch.cat(row, 1) for row in rows], 0)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, nodes, channels = x.shape
        rows = x.permute(2, 0, 1, 3).reshape(nodes, batch * frames * channels)
        aggregated = torch.matmul(self.adjacency(), rows).view(nodes * batch, frames * channels)
        y = torch.matmul(aggregated, self.filters()).view(nodes * batch * frames, -1)
        return F.relu(self.norm(y)).view(nodes, batch, frames, -1).permute(1, 2, 0, 3)


class Head(nn.Module):
    """Fully connected layer to classes or action units: mean over the frames, then all (node, channel).

    The paper only says "Full Connected layer"; this reading meets its parameter counts.
    (B, frames, nodes, channels) -> (B, outputs) logits.
    """

    def __init__(self, nodes: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(nodes * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=1).flatten(1))
