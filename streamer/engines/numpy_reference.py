"""The reference engine: the folded network in NumPy, straight from weights.safetensors.

It needs neither ONNX Runtime nor model.onnx, and shares no code with them: `python -m train export --check`
and the tests hold both against it. ONNX Runtime takes half its time, so the recogniser does not choose it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load

from streamer.engines.base import Answers, first_line
from streamer.engines.folding import FRAMES, FoldedNetwork, fold
from streamer.manifest import WEIGHTS_FILE, Manifest
from streamer.messages import F32, Classification, GraphSample


class NumpyEngine:
    """The folded network in NumPy.

    Args:
        folder: an engine's folder, whose manifest lists weights.safetensors of one of the project's
            networks and has `training.temperature`.
        manifest: its manifest, if it has been read already.

    Raises: EngineError if the weights are not the file of the manifest, or not those of such a network.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None) -> None:
        self._manifest = Manifest.read(folder) if manifest is None else manifest
        self._answers = Answers(self._manifest, folder / WEIGHTS_FILE)
        data = self._manifest.read_file(folder, WEIGHTS_FILE)
        self._network: FoldedNetwork | None = self._fold(data)
        self.classify(GraphSample(np.zeros(self._answers.shape, np.float32)))

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    def classify(self, sample: GraphSample) -> Classification:
        network = self._open_network()
        scores, action_units = run(network, self._answers.features(sample.features, 3)[None])
        return self._answers.one(scores[0].tolist(), action_units[0].tolist())

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        network = self._open_network()
        batch = self._answers.features(features, 4)
        return self._answers.batch(*run(network, batch), len(batch))

    def close(self) -> None:
        self._network = None

    def _open_network(self) -> FoldedNetwork:
        if self._network is None:
            raise self._answers.closed()
        return self._network

    def _fold(self, data: bytes) -> FoldedNetwork:
        temperature = self._manifest.training.get("temperature")
        if not isinstance(temperature, float):
            raise self._answers.error("its manifest has no training.temperature")
        try:
            network = fold(load(data), self._manifest.features.node_set, temperature)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise self._answers.error(f"its weights cannot be used ({first_line(error)})") from error
        found = network.classes, len(network.head_bias) - network.classes
        wanted = len(self._manifest.classes), len(self._manifest.action_units)
        if found != wanted:
            raise self._answers.error(
                f"it has {found[0]} classes and {found[1]} action units, the manifest says {wanted}"
            )
        return network


def run(network: FoldedNetwork, features: F32) -> tuple[F32, F32]:
    """Probabilities of `features` (B, 3, nodes, 4): scores (B, classes), action units (B, aus)."""
    count, nodes = len(features), network.nodes
    if network.streams:
        x = features.reshape(count, FRAMES, nodes, 2, 2).transpose(0, 3, 2, 1, 4)
        x = x.reshape(count, 2, nodes, FRAMES * 2)
    elif network.frame_rows:
        x = features[..., : network.channels].reshape(count, FRAMES * nodes, network.channels)
    else:
        x = features[..., : network.channels].transpose(0, 2, 1, 3).reshape(count, nodes, -1)
    x = x * network.input_scale
    for layer in network.streams:
        x = np.maximum(layer.adjacency @ x @ layer.weight + layer.bias, np.float32(0.0))
    if network.streams:
        x = x.sum(axis=1)
    for layer in network.fused:
        x = np.maximum(layer.adjacency @ x @ layer.weight + layer.bias, np.float32(0.0))
    if network.frame_rows:
        pooled = x.reshape(count, FRAMES, nodes, -1).mean(axis=1)
    else:
        pooled = x.reshape(count, nodes, FRAMES, -1).mean(axis=2)
    logits = pooled.reshape(count, -1) @ network.head_weight + network.head_bias
    classes = logits[:, : network.classes]
    # exp of what is at most 0 cannot overflow; tanh saturates where exp(-x) would.
    scores = np.exp(classes - classes.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    units = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits[:, network.classes :]) + np.float32(1.0))
    return scores, units
