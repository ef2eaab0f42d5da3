"""The networks, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from streamer.graph import (
    FeatureSpec,
    adjacency,
    normalised_adjacency,
    temporal_adjacency,
)
from streamer.messages import F32
from train.models.gcn import GCN
from train.models.gts_gn import GTSGN, SSGN, Output
from train.models.resnet18 import ResNet18

__all__ = ["GCN", "GTSGN", "SSGN", "ModelConfig", "Output", "ResNet18", "build_model"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: Literal["gts-gn", "ss-gn", "gcn"] = "gts-gn"
    """GTS-GN, its one-stream relative, or the plain GCN baseline."""
    fusion_layer: int = 1
    """GTS-GN: the layer (1..4) after which the two streams are summed."""
    lam: bool = True
    """With the learnable adjacency matrix."""


def build_model(
    config: ModelConfig, features: FeatureSpec, classes: int, action_units: int
) -> GTSGN | SSGN | GCN:
    """A freshly initialised network for features of that form (from torch's global random state).

    `action_units` heads exist in GTS-GN alone; 0 builds none.

    Raises:
        ValueError: GTS-GN is asked to read type A, or the fusion layer does not exist.
    """
    if config.name == "gcn":
        graph = _graph(temporal_adjacency(features.node_set))
        return GCN(graph, classes, features.channels, config.lam)
    graph = _graph(adjacency(features.node_set))
    if config.name == "ss-gn":
        return SSGN(graph, classes, features.channels, config.lam)
    if features.type != "B":
        raise ValueError("GTS-GN has a stream for (D, alpha): it needs features of type B")
    return GTSGN(graph, classes, action_units, config.fusion_layer, config.lam)


def _graph(matrix: F32) -> Tensor:
    return torch.from_numpy(normalised_adjacency(matrix))
