"""What an engine is made of: a checkpoint of `python -m train fit`, or an engine's own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from streamer.engine import FileEntry, Manifest
from streamer.engines.folding import FoldedNetwork
from streamer.errors import UsageError
from streamer.graph import FeatureSpec
from streamer.manifest import MANIFEST_FILE, WEIGHTS_FILE
from train.checkpoint import load_checkpoint
from train.model_card import model_card
from train.models import ModelConfig, build_model
from train.models.inference import folded

CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class Source:
    """A trained network, in evaluation mode, and what its manifest and model card say.

    temperature: the class logits are divided by it before the softmax. card: Markdown; `name` in its
    heading is that of the source.
    """

    name: str
    model: nn.Module
    features: FeatureSpec
    classes: tuple[str, ...]
    class_names: dict[str, str]
    action_units: tuple[str, ...]
    temperature: float
    torch_version: str
    training: dict[str, Any]
    metrics: dict[str, Any]
    card: str

    def folded(self) -> FoldedNetwork:
        """The network as it runs."""
        return folded(self.model, self.features.node_set, self.temperature)

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the trained network itself, unfolded, says of `features` (N, 3, nodes, 4):
        (N, classes + action units)."""
        with torch.inference_mode():
            output = self.model(torch.from_numpy(features))
            scores = torch.softmax(output.classes.double() / self.temperature, 1).numpy()
            heads = output.action_units
            units = torch.sigmoid(heads[-1].double()).numpy() if heads else np.zeros((len(features), 0))
        return np.concatenate((scores, units), 1)

    def manifest(self, name: str, opset: int, files: dict[str, FileEntry]) -> Manifest:
        """The manifest of this network as an ONNX engine."""
        return Manifest(
            name=name,
            opset=opset,
            classes=self.classes,
            class_names=self.class_names,
            action_units=self.action_units,
            features=self.features,
            torch_version=self.torch_version,
            files=files,
            training=self.training,
            metrics=self.metrics,
        )

    def card_named(self, name: str) -> str:
        """The model card under another engine's name."""
        return self.card.replace(f"\n# {self.name}\n", f"\n# {name}\n", 1)


def read_source(folder: Path) -> Source:
    """The network of a checkpoint's folder or of an engine's folder.

    Raises: UsageError if it is neither, or its weights are not those of its network; EngineError if a file
        is not what the engine's manifest says.
    """
    if (folder / MANIFEST_FILE).is_file():
        return _of_engine(folder)
    checkpoint = load_checkpoint(folder)
    card = model_card(folder.name, checkpoint)
    fit, data = checkpoint.info["fit"], checkpoint.info["data"]
    return Source(
        name=folder.name,
        model=checkpoint.model,
        features=checkpoint.features,
        classes=checkpoint.classes,
        class_names=checkpoint.class_names,
        action_units=checkpoint.action_units,
        temperature=checkpoint.temperature,
        torch_version=checkpoint.info["torch"],
        training={
            "data": data["what"],
            "simulated": data["simulated"],
            "seed": fit["seed"],
            "protocol": data["protocol"],
            "tracker_noise": data["tracker_noise"],
            "temperature": checkpoint.temperature,
            "model": fit["model"],
            "loss": {key: fit[key] for key in ("au_loss", "au_layer", "beta")},
        },
        metrics=checkpoint.metrics,
        card=card,
    )


def _of_engine(folder: Path) -> Source:
    manifest = Manifest.read(folder)
    weights = manifest.read_file(folder, WEIGHTS_FILE)
    card = manifest.read_file(folder, CARD_FILE).decode("utf-8", "replace")
    try:
        model = build_model(
            ModelConfig(**manifest.training["model"]),
            manifest.features,
            len(manifest.classes),
            len(manifest.action_units),
        )
        model.load_state_dict(load(weights))
        temperature = float(manifest.training["temperature"])
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: its weights are not those of the network that its manifest names ({error}); give the"
            " folder of a checkpoint (python -m train fit)"
        ) from error
    return Source(
        name=manifest.name,
        model=model.eval(),
        features=manifest.features,
        classes=manifest.classes,
        class_names=manifest.class_names,
        action_units=manifest.action_units,
        temperature=temperature,
        torch_version=manifest.torch_version,
        training=manifest.training,
        metrics=manifest.metrics,
        card=card,
    )
