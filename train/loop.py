"""The training loop of the live engine, whatever it is trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from streamer.errors import UsageError
from streamer.graph import FeatureSpec, build_graphs
from train.combinations import ACTION_UNIT_NAMES
from train.datasets import SettingName
from train.datasets.check import DatabaseName
from train.landmarks import LandmarkConfig
from train.losses import AuLossName, TotalLoss
from train.models import GTSGN, ModelConfig, Output, build_model
from train.simulate import SimulationConfig


@dataclass(frozen=True)
class FitConfig:
    """Train the network of an engine: on a database (--dataset, --root), or else on simulated expressions."""

    out: Path
    """Folder for the checkpoint: weights.safetensors, config.json, metrics.json."""
    dataset: DatabaseName | None = None
    """Which database; manifest: a CSV file of your own. Without one, simulated expressions alone."""
    root: Path | None = None
    """Folder that the database was unpacked into."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""
    setting: SettingName = "objective"
    """Which samples take part, and as what (docs/datasets.md)."""
    classes: tuple[str, ...] = ()
    """Instead of the setting's own classes."""
    held_out: float = 0.15
    """Part of the subjects that is measured on and never trained; as large a part again is held back for the
    temperature of the confidences. At least one subject each."""
    simulated_share: float = 0.0
    """Part of what is trained on that is simulated beside a database's samples, 0 to 0.95."""
    cache: Path = Path("out/landmarks")
    """Folder that measured landmarks are kept in."""
    workers: int = 1
    """Processes that measure landmarks."""
    seed: int = 0
    """Of the weights, of the order and of all draws. One seed, one machine, one result."""
    samples: int = 40_000
    """Expressions an epoch. A database's samples are drawn again and again, each time in another view."""
    epochs: int = 15
    """Fixed beforehand; nothing is selected on what is measured."""
    validation_samples: int = 6_000
    """Simulated expressions drawn anew (other faces, other action-unit parameters) for the metrics; as many
    again for the calibration of the confidences. Of no meaning with a database."""
    batch: int = 256
    """Expressions a step."""
    learning_rate: float = 3e-3
    """Highest rate of AdamW; the rate rises for a tenth of the steps and falls to 0 as a cosine."""
    weight_decay: float = 0.01
    """Of AdamW."""
    au_loss: AuLossName = "aau"
    """aau: all layers from the fusion on (adaptive); au: one layer; none: cross-entropy alone."""
    au_layer: int = 0
    """With --au-loss au: which of the layers from the fusion on, 0 = the fusion layer."""
    beta: float = 1.0
    """Weight of the action-unit loss."""
    threads: int = 1
    """Threads for the arithmetic. With one, the result does not depend on the number of cores, and a
    busy machine slows it down least (docs/training.md)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureSpec = field(default_factory=lambda: FeatureSpec(magnification="peak", max_factor=80.0))
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)


@dataclass(frozen=True)
class Samples:
    """Network inputs and targets, as tensors.

    features: (N, 3, nodes, 4) float32. label: (N,) int64. units: (N, action units) float32 of 0 and 1,
    NaN where nobody has coded them.
    """

    features: Tensor
    label: Tensor
    units: Tensor

    @classmethod
    def of(
        cls,
        nodes: NDArray[np.float32],
        label: NDArray[np.int64],
        units: NDArray[np.float32],
        spec: FeatureSpec,
    ) -> Samples:
        """nodes: (N, 3, nodes, 2), face frame, IOD; label: (N,); units: (N, action units)."""
        return cls(
            torch.from_numpy(build_graphs(nodes, spec)), torch.from_numpy(label), torch.from_numpy(units)
        )

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Samples]:
        """All samples in random order, in batches of `size`; a rest smaller than that is left out."""
        order = torch.randperm(len(self.label), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            pick = order[start : start + size]
            yield Samples(self.features[pick], self.label[pick], self.units[pick])


class TrainingData(Protocol):
    """What a network is trained, calibrated and measured on; three sets of which none shares a subject.

    class_names: usual reading by class, in the order of a network's outputs.
    """

    class_names: dict[str, str]

    def epoch(self, number: int) -> Samples:
        """The samples of an epoch, `FitConfig.samples` of them."""
        ...

    def calibration(self) -> Samples:
        """What the temperature of the confidences is fitted on."""
        ...

    def measure(self, model: nn.Module, temperature: float) -> dict[str, Any]:
        """The figures for metrics.json; `validation` among them."""
        ...

    def described(self) -> dict[str, Any]:
        """For config.json and the model card: `what` and `protocol` in words, `simulated`, and more."""
        ...


def predict(model: nn.Module, features: Tensor, batch: int = 1024) -> Output:
    """Logits of `features` (N, 3, nodes, 4) in evaluation mode; `Output.features` is left empty."""
    model.eval()
    with torch.inference_mode():
        parts: list[Output] = [model(part) for part in features.split(batch)]
    heads = zip(*(part.action_units for part in parts), strict=True)
    return Output(torch.cat([part.classes for part in parts]), [torch.cat(h) for h in heads], [])


def probabilities(
    model: nn.Module, samples: Samples, temperature: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, classes) and, of the last head, (N, action units): width 0 where the network has none."""
    output = predict(model, samples.features)
    classes = torch.softmax(output.classes / temperature, 1).numpy()
    if not output.action_units:
        return classes, np.zeros((len(classes), 0), np.float32)
    return classes, torch.sigmoid(output.action_units[-1]).numpy()


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """The temperature T that makes softmax(logits / T) most likely (Guo et al., 2017); by golden section
    on log T in 0.1 .. 10."""

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_t), label))

    low, high = math.log(0.1), math.log(10.0)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return math.exp(0.5 * (low + high))


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear rise over the first tenth of `steps`, then half a cosine down to 0."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def train(config: FitConfig, data: TrainingData, progress: bool = True) -> tuple[nn.Module, TotalLoss]:
    """A network and its loss after `config.epochs` epochs. Seeds torch's global random state."""
    torch.manual_seed(config.seed)
    units = len(ACTION_UNIT_NAMES) if config.au_loss != "none" else 0
    try:
        model = build_model(config.model, config.features, len(data.class_names), units)
        heads = len(model.action_units) if isinstance(model, GTSGN) else 0
        loss_function = TotalLoss(heads, config.au_loss, config.au_layer, config.beta)
    except ValueError as error:
        raise UsageError(f"{error}; change the --model, --features or --au-loss flags") from error
    parameters = [*model.parameters(), *loss_function.parameters()]
    try:
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    except ValueError as error:
        raise UsageError(f"{error}: change --learning-rate or --weight-decay") from error
    steps = config.epochs * (config.samples // config.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, steps))
    shuffle = torch.Generator().manual_seed(config.seed)
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        for epoch in range(config.epochs):
            samples = data.epoch(epoch)
            model.train()
            total, right, seen = 0.0, 0, 0
            for part in samples.batches(config.batch, shuffle):
                output: Output = model(part.features)
                loss = loss_function(output.classes, output.action_units, part.label, part.units)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item() * len(part.label)
                right += int((output.classes.argmax(1) == part.label).sum())
                seen += len(part.label)
                bar.update()
            bar.set_postfix(
                epoch=epoch + 1,
                loss=f"{total / seen:.3f}",
                accuracy=f"{right / seen:.3f}",
            )
    return model, loss_function
