"""Trained weights rewritten for speed: the same function in far fewer operations.

The weights are those of `weights.safetensors`, by the names that training gives them. Three rewritings,
all exact up to rounding:

- Batch normalisation at run time is a fixed scale and shift. Each goes into the weights beside it.
- theta and the taps of the TCN are multiplied out, and the convolution over three frames, zero-padded,
  is written as one block matrix (3 * inputs, 3 * outputs) on the concatenated frames.
- The two streams of GTS-GN have layers of equal shape: they run as one batch of two until they are summed.

A layer is then relu(A X W + b): two products, a sum, a ReLU. X is (B, [streams,] rows, columns): for GTS-GN
and SS-GN a row is a node and its columns are the channels of the three frames; for the plain GCN a row is
a node of one frame. `docs/training.md` has the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.graph import adjacency, node_set_named, normalised_adjacency, temporal_adjacency
from streamer.messages import F32

FRAMES = 3
"""Onset, apex, offset."""
NORM_EPSILON = 1e-5
"""Added to the variance by batch normalisation (torch's default, which training uses)."""
MAX_LAYERS = 16

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class FoldedLayer:
    """relu(adjacency X weight + bias); with two streams each array has an axis for them in front.

    adjacency: (rows, rows). weight: (columns in, columns out). bias: (1 or rows, columns out).
    """

    adjacency: F32
    weight: F32
    bias: F32


@dataclass(frozen=True)
class FoldedNetwork:
    """A network as a list of products.

    nodes: of one frame. channels: of one stream that are read, from the first on.
    streams: the layers before the streams are summed; empty for a network of one stream.
    fused: the layers of the one stream. frame_rows: a row is a node of one frame (the plain GCN), not a
    node with the channels of all frames.
    input_scale: factors of the first layer's X. head_weight (nodes * channels, classes + action units),
    head_bias: the last product; class logits come first and are divided by the temperature already.
    """

    nodes: int
    channels: int
    classes: int
    frame_rows: bool
    input_scale: F32
    streams: tuple[FoldedLayer, ...]
    fused: tuple[FoldedLayer, ...]
    head_weight: F32
    head_bias: F32

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the network gives."""
        return ("scores", "action_units") if len(self.head_bias) > self.classes else ("scores",)

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        arrays = [self.input_scale, self.head_weight, self.head_bias]
        for layer in (*self.streams, *self.fused):
            arrays += [layer.adjacency, layer.weight, layer.bias]
        return sum(array.size for array in arrays)


class _Weights:
    """Named arrays, each taken with the shape that it has to have."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def take(self, name: str, *shape: int) -> F64:
        """float64. A size of -1 may be anything.

        Raises: ValueError.
        """
        array = self._arrays.get(name)
        if array is None:
            raise ValueError(f"the weights have no {name}")
        fits = array.ndim == len(shape) and all(b in (a, -1) for a, b in zip(array.shape, shape, strict=True))
        if not fits or array.dtype.kind != "f":
            raise ValueError(f"{name} is {array.dtype} {array.shape}; it has to be float {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds what is not finite")
        return array.astype(np.float64)

    def has(self, name: str) -> bool:
        return name in self._arrays

    def count(self, stack: str) -> int:
        """How many layers `stack`.0, `stack`.1, ... there are."""
        return next(k for k in range(MAX_LAYERS + 1) if not self.has(f"{stack}.{k}.theta"))

    def scale_and_shift(self, norm: str, channels: int) -> tuple[F64, F64]:
        """(channels,) each: evaluation-mode batch normalisation is x * scale + shift."""
        weight, bias, mean, variance = (
            self.take(f"{norm}.{part}", channels)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        if (variance < 0.0).any():
            raise ValueError(f"{norm}.running_var has a negative value")
        scale = weight / np.sqrt(variance + NORM_EPSILON)
        return scale, bias - mean * scale


def fold(weights: Mapping[str, NDArray[Any]], node_set: str, temperature: float = 1.0) -> FoldedNetwork:
    """The network of these trained weights (GTS-GN, SS-GN or GCN; the names tell which).

    node_set: of the features, such as "gm14"; its graph is the fixed part of every layer's adjacency.
    temperature: the class logits are divided by it before the softmax.

    Raises: ValueError if these are not the weights of such a network.
    """
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"the temperature is {temperature}; it has to be above 0")
    with np.errstate(all="ignore"):  # what overflows is found below
        network = _fold(_Weights(weights), node_set, temperature)
    layers = (*network.streams, *network.fused)
    arrays = [network.input_scale, network.head_weight, network.head_bias]
    arrays += [array for layer in layers for array in (layer.adjacency, layer.weight, layer.bias)]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("the folded weights are not finite")
    return network


def _fold(w: _Weights, node_set: str, temperature: float) -> FoldedNetwork:
    nodes = len(node_set_named(node_set))
    if w.count("low"):
        norms, stacks, rest = ("low_norm", "high_norm"), ("low", "high"), "fused"
    elif w.count("layers"):
        norms, stacks, rest = ("input_norm",), (), "layers"
    else:
        raise ValueError("these are the weights of no GTS-GN, SS-GN or GCN")
    frame_rows = not stacks and not w.has("layers.0.taps")
    graph = normalised_adjacency((temporal_adjacency if frame_rows else adjacency)(node_set))
    repeats = (FRAMES, 1) if frame_rows else (1, FRAMES)
    channels = w.take(f"{(*stacks, rest)[0]}.0.theta", -1, -1).shape[0]
    if channels not in ((2,) if stacks else (2, 4)):
        raise ValueError(f"the first layer reads {channels} channels")
    scales, shifts = [], []
    for norm in norms:
        scale, shift = w.scale_and_shift(f"{norm}.norm", nodes * channels)
        scales.append(np.tile(scale.reshape(nodes, channels), repeats))
        shifts.append(np.tile(shift.reshape(nodes, channels), repeats))

    width = channels
    streams, fused = [], []
    for depth in range(w.count(stacks[0]) if stacks else 0):
        parts = [_layer(w, f"{stack}.{depth}", graph, width, frame_rows) for stack in stacks]
        streams.append(_finish(parts, shifts if depth == 0 else None))
        width = parts[0][3]
    for depth in range(w.count(rest)):
        part = _layer(w, f"{rest}.{depth}", graph, width, frame_rows)
        fused.append(_finish([part], shifts if depth == 0 and not stacks else None))
        width = part[3]

    heads = [w.take("classes.linear.weight", -1, nodes * width) / temperature]
    biases = [w.take("classes.linear.bias", len(heads[0])) / temperature]
    last = f"action_units.{len(fused)}.linear"  # one head for each layer from the fusion on
    if stacks and w.has(f"{last}.weight"):
        heads.append(w.take(f"{last}.weight", -1, nodes * width))
        biases.append(w.take(f"{last}.bias", len(heads[1])))
    return FoldedNetwork(
        nodes=nodes,
        channels=channels,
        classes=len(heads[0]),
        frame_rows=frame_rows,
        input_scale=_f32(np.stack(scales) if stacks else scales[0]),
        streams=tuple(streams),
        fused=tuple(fused),
        head_weight=_f32(np.concatenate(heads).T),
        head_bias=_f32(np.concatenate(biases)),
    )


def _layer(w: _Weights, name: str, graph: F32, inputs: int, frame_rows: bool) -> tuple[F64, F64, F64, int]:
    """Adjacency, weight and bias of one layer, and its output channels."""
    matrix = graph.astype(np.float64)
    if w.has(f"{name}.adjacency.learned"):
        matrix = matrix + w.take(f"{name}.adjacency.learned", *matrix.shape)
    theta = w.take(f"{name}.theta", inputs, -1)
    outputs = theta.shape[1]
    scale, shift = w.scale_and_shift(f"{name}.norm.norm", outputs)
    if frame_rows:
        return matrix, theta * scale, shift[None], outputs
    filters = theta @ w.take(f"{name}.taps", FRAMES, outputs, outputs) * scale  # (tap, inputs, outputs)
    weight = np.zeros((FRAMES, inputs, FRAMES, outputs))
    for frame in range(FRAMES):
        for tap in range(FRAMES):
            source = frame + tap - 1
            if 0 <= source < FRAMES:
                weight[source, :, frame] = filters[tap]
    weight = weight.reshape(FRAMES * inputs, FRAMES * outputs)
    return matrix, weight, np.tile(shift, FRAMES)[None], outputs


def _finish(parts: list[tuple[F64, F64, F64, int]], shifts: list[F64] | None) -> FoldedLayer:
    """One layer of all streams; `shifts`, which the input normalisation adds, become part of the bias."""
    arrays = []
    for k, (matrix, weight, bias, _) in enumerate(parts):
        arrays.append((matrix, weight, bias + matrix @ shifts[k] @ weight if shifts else bias))
    return FoldedLayer(
        *(_f32(same[0] if len(same) == 1 else np.stack(same)) for same in zip(*arrays, strict=True))
    )


def _f32(array: F64) -> F32:
    return np.ascontiguousarray(array, np.float32)
