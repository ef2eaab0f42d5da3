"""A trained network as it runs: the folded weights as a torch module, for TensorRT and for torch's compiler.

`streamer.engines.folding` says what is folded and how.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamer.engines.folding import FRAMES, FoldedNetwork, fold
from streamer.engines.folding import FoldedLayer as Arrays


def folded(model: nn.Module, node_set: str, temperature: float = 1.0) -> FoldedNetwork:
    """The folded weights of a GTS-GN, SS-GN or GCN; the model is not changed.

    Raises: ValueError for another network.
    """
    state = {name: value.numpy(force=True) for name, value in model.state_dict().items()}
    return fold(state, node_set, temperature)


class FoldedLayer(nn.Module):
    """relu(A X W + b), see `streamer.engines.folding.FoldedLayer`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("adjacency", "weight", "bias"):
            self.register_buffer(name, torch.from_numpy(getattr(arrays, name)))

    def forward(self, x: Tensor) -> Tensor:
        aggregated = torch.matmul(self.get_buffer("adjacency"), x)
        return F.relu(torch.matmul(aggregated, self.get_buffer("weight")) + self.get_buffer("bias"))


class InferenceNetwork(nn.Module):
    """Features (B, 3, nodes, 4) float32 -> class probabilities, and action-unit probabilities if the network
    has them, float32.

    Args:
        network: the folded weights.
        dtype: what it computes in. The first layer is float32 always, since the input's mean, which its bias
            takes out, is large beside the motion: in float16 it alone would cost 2e-2 of a probability,
            the rest costs 1e-3. Softmax and sigmoid are float32, too.
    """

    def __init__(self, network: FoldedNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.nodes, self.channels, self.classes = network.nodes, network.channels, network.classes
        self.frame_rows, self.dtype = network.frame_rows, dtype
        self.outputs = network.outputs
        """Names of what `forward` returns."""
        self.register_buffer("input_scale", torch.from_numpy(network.input_scale))
        self.register_buffer("head_weight", torch.from_numpy(network.head_weight).to(dtype))
        self.register_buffer("head_bias", torch.from_numpy(network.head_bias).to(dtype))
        self.streams = nn.ModuleList(FoldedLayer(layer) for layer in network.streams)
        self.fused = nn.ModuleList(FoldedLayer(layer) for layer in network.fused)
        for layer in (*self.streams, *self.fused)[1:]:
            layer.to(dtype)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """scores (B, classes), softmax; action_units (B, action units), sigmoid of the last head."""
        nodes = self.nodes
        x = features
        if self.streams:
            x = x.reshape(-1, FRAMES, nodes, 2, 2).permute(0, 3, 2, 1, 4).reshape(-1, 2, nodes, 2 * FRAMES)
        elif self.frame_rows:
            x = x[..., : self.channels].reshape(-1, FRAMES * nodes, self.channels)
        else:
            x = x[..., : self.channels].permute(0, 2, 1, 3).reshape(-1, nodes, FRAMES * self.channels)
        x = x * self.get_buffer("input_scale")
        for layer in self.streams:
            x = layer(x).to(self.dtype)
        if self.streams:
            x = x.sum(dim=1)
        for layer in self.fused:
            x = layer(x).to(self.dtype)
        if self.frame_rows:
            pooled = x.reshape(-1, FRAMES, nodes, x.shape[-1]).mean(dim=1)
        else:
            pooled = x.reshape(-1, nodes, FRAMES, x.shape[-1] // FRAMES).mean(dim=2)
        logits = torch.matmul(pooled.flatten(1), self.get_buffer("head_weight")) + self.get_buffer(
            "head_bias"
        )
        logits = logits.float()
        scores = torch.softmax(logits[:, : self.classes], 1)
        if len(self.outputs) == 1:
            return (scores,)
        return scores, torch.sigmoid(logits[:, self.classes :])
