"""The plain GCN baseline on the whole GM-Graph: all nodes of the three frames at once."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from train.models.gts_gn import WIDTHS, Output
from train.models.layers import FRAMES, GraphConv, Head, InputNorm


class GCN(nn.Module):
    """Four graph convolutions over the 42 nodes of onset, apex and offset, then a fully connected layer.

    Input: (B, 3, 14, 4) or (B, 3, 14, 2); channels past `channels` are not looked at.

    Args:
        graph: (42, 42), L of the graph with spatial edges in each frame and temporal edges between
            them; nodes in order of frame, then landmark.
        classes: number of classes.
        channels: 2 for type A, 4 for type B.
        lam: with the learnable adjacency matrix.
    """

    def __init__(self, graph: Tensor, classes: int, channels: int = 2, lam: bool = False) -> None:
        super().__init__()
        nodes = graph.shape[0] // FRAMES
        self.channels = channels
        self.input_norm = InputNorm(nodes, channels)
        sizes = (channels, *WIDTHS)
        self.layers = nn.ModuleList(GraphConv(graph, a, b, lam) for a, b in pairwise(sizes))
        self.classes = Head(nodes, WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Output:
        h = self.input_norm(x[..., : self.channels]).flatten(1, 2)
        features = []
        for layer in self.layers:
            h = layer(h)
            features.append(h.unflatten(1, (FRAMES, -1)))
        return Output(self.classes(features[-1]), [], features)
