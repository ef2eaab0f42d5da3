"""Training a network from scratch on simulated micro-expressions."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from streamer.errors import UsageError
from streamer.graph import FeatureSpec, build_graphs
from train.losses import AuLossName, TotalLoss
from train.metrics import summarise
from train.models import GTSGN, ModelConfig, Output, build_model
from train.simulate import (
    ACTION_UNIT_NAMES,
    CLASSES,
    Expressions,
    SimulationConfig,
    TrackerNoise,
    load_noise,
    simulate,
)

AMPLITUDE_EDGES = (0.003, 0.005, 0.01, 0.02, 0.0301)
"""Bins of the peak displacement, IOD, for the figures by amplitude."""

BEYOND_VARIATION = (2.0, 2.0)
"""Variation of the action units for the second set of metrics: more than any training expression has."""

# What a random draw is for; with the run's seed it makes draws that never overlap.
_CALIBRATION, _VALIDATION, _BEYOND, _TRAINING = 0, 1, 2, 3

CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class FitConfig:
    """Train on simulated micro-expressions, drawn anew for every epoch."""

    out: Path
    """Folder for the checkpoint: weights.safetensors, config.json, metrics.json."""
    seed: int = 0
    """Of the weights, of the order and of all draws. One seed, one machine, one result."""
    samples: int = 40_000
    """Expressions an epoch."""
    epochs: int = 15
    """Fixed beforehand; nothing is selected on the validation expressions."""
    validation_samples: int = 6_000
    """Expressions drawn anew (other faces, other action-unit parameters) for the metrics; as many
    again for the calibration of the confidences."""
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


@dataclass(frozen=True)
class Samples:
    """Network inputs and targets, as tensors.

    features: (N, 3, nodes, 4) float32. label: (N,) int64. units: (N, action units) float32 of 0 and 1.
    """

    features: Tensor
    label: Tensor
    units: Tensor

    @classmethod
    def of(cls, expressions: Expressions, spec: FeatureSpec) -> Samples:
        return cls(
            torch.from_numpy(build_graphs(expressions.nodes, spec)),
            torch.from_numpy(expressions.label),
            torch.from_numpy(expressions.units),
        )

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Samples]:
        """All samples in random order, in batches of `size`; a rest smaller than that is left out."""
        order = torch.randperm(len(self.label), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            pick = order[start : start + size]
            yield Samples(self.features[pick], self.label[pick], self.units[pick])


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it was trained with.

    temperature: the class logits are divided by it before the softmax.
    info: contents of config.json. metrics: contents of metrics.json.
    """

    model: nn.Module
    features: FeatureSpec
    classes: tuple[str, ...]
    action_units: tuple[str, ...]
    temperature: float
    info: dict[str, Any]
    metrics: dict[str, Any]


def predict(model: nn.Module, features: Tensor, batch: int = 1024) -> Output:
    """Logits of `features` (N, 3, nodes, 4) in evaluation mode; `Output.features` is left empty."""
    model.eval()
    with torch.inference_mode():
        parts: list[Output] = [model(part) for part in features.split(batch)]
    heads = zip(*(part.action_units for part in parts), strict=True)
    return Output(torch.cat([part.classes for part in parts]), [torch.cat(h) for h in heads], [])


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


def train(config: FitConfig, noise: TrackerNoise, progress: bool = True) -> tuple[nn.Module, TotalLoss]:
    """A network and its loss after `config.epochs` epochs. Seeds torch's global random state."""
    torch.manual_seed(config.seed)
    units = len(ACTION_UNIT_NAMES) if config.au_loss != "none" else 0
    try:
        model = build_model(config.model, config.features, len(CLASSES), units)
        heads = len(model.action_units) if isinstance(model, GTSGN) else 0
        loss_function = TotalLoss(heads, config.au_loss, config.au_layer, config.beta)
    except ValueError as error:
        raise UsageError(f"{error}; change the --model, --features or --au-loss flags") from error
    parameters = [*model.parameters(), *loss_function.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = config.epochs * (config.samples // config.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, steps))
    shuffle = torch.Generator().manual_seed(config.seed)
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        for epoch in range(config.epochs):
            seed = (config.seed, _TRAINING + epoch)
            data = Samples.of(
                simulate(config.samples, seed, config.simulation, noise),
                config.features,
            )
            model.train()
            total, right, seen = 0.0, 0, 0
            for part in data.batches(config.batch, shuffle):
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


def evaluate(
    model: nn.Module, expressions: Expressions, spec: FeatureSpec, temperature: float
) -> dict[str, Any]:
    """Metrics of `model` on `expressions`; the action units are those of the last head."""
    samples = Samples.of(expressions, spec)
    output = predict(model, samples.features)
    probabilities = torch.softmax(output.classes / temperature, 1).numpy()
    units = torch.sigmoid(output.action_units[-1]).numpy() if output.action_units else _no_units(samples)
    return summarise(
        probabilities,
        units,
        expressions.label,
        expressions.units,
        expressions.amplitude,
        CLASSES,
        ACTION_UNIT_NAMES,
        AMPLITUDE_EDGES,
    )


def _no_units(samples: Samples) -> NDArray[np.float32]:
    return np.zeros((len(samples.label), 0), np.float32)


def fit(config: FitConfig, progress: bool = True) -> dict[str, Any]:
    """Train, calibrate, measure and write the checkpoint; returns the metrics.

    Raises:
        UsageError: a setting does not make sense, or the folder cannot be written.
    """
    if config.epochs < 1 or not 2 <= config.batch <= config.samples or config.validation_samples < 1:
        raise UsageError(
            "--epochs and --validation-samples must be at least 1, --batch at least 2 and at most --samples"
        )
    if config.seed < 0 or config.threads < 1 or not config.learning_rate > 0.0:
        raise UsageError("--seed must be at least 0, --threads at least 1, --learning-rate above 0")
    if config.features.node_set != "gm14":
        raise UsageError("simulated expressions have the nodes gm14; leave --features.node-set as it is")
    _prepare_folder(config.out)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    noise = load_noise()
    started = time.monotonic()
    model, loss_function = train(config, noise, progress)
    seconds = time.monotonic() - started

    count = config.validation_samples
    calibration = Samples.of(
        simulate(count, (config.seed, _CALIBRATION), config.simulation, noise),
        config.features,
    )
    temperature = fit_temperature(predict(model, calibration.features).classes, calibration.label)
    validation = simulate(count, (config.seed, _VALIDATION), config.simulation, noise)
    metrics: dict[str, Any] = {"validation": evaluate(model, validation, config.features, temperature)}
    strange = replace(config.simulation, variation=BEYOND_VARIATION)
    beyond = simulate(count, (config.seed, _BEYOND), strange, noise)
    metrics["beyond"] = evaluate(model, beyond, config.features, temperature)
    if loss_function.aau is not None:
        metrics["aau_weights"] = loss_function.aau.weights().tolist()
    save_checkpoint(config, model, temperature, metrics, noise, seconds)
    return metrics


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the folder {folder}: {error.strerror}; choose another --out"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write into the folder {folder}; choose another --out")


def save_checkpoint(
    config: FitConfig,
    model: nn.Module,
    temperature: float,
    metrics: dict[str, Any],
    noise: TrackerNoise,
    seconds: float,
) -> None:
    """Write weights.safetensors, config.json and metrics.json into `config.out`; config.json comes last,
    so that a folder that has one is whole."""
    info = {
        "version": CHECKPOINT_VERSION,
        "classes": list(CLASSES),
        "action_units": list(ACTION_UNIT_NAMES) if getattr(model, "action_units", ()) else [],
        "temperature": temperature,
        "training_data": "simulated",
        "tracker_noise": noise.reference,
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "fit": {k: v for k, v in asdict(config).items() if k != "out"},
    }
    (config.out / "config.json").unlink(missing_ok=True)
    state = {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}
    save_file(state, config.out / "weights.safetensors")
    _write_json(config.out / "metrics.json", metrics)
    _write_json(config.out / "config.json", info)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def load_checkpoint(folder: Path) -> Checkpoint:
    """The network that `fit` wrote into `folder`, in evaluation mode.

    Raises:
        UsageError: there is no whole checkpoint, or it is of another version.
    """
    try:
        info = json.loads((folder / "config.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        if info["version"] != CHECKPOINT_VERSION:
            raise UsageError(
                f"{folder}: checkpoint version {info['version']}, this program writes and reads "
                f"{CHECKPOINT_VERSION}; train it again with `python -m train fit`"
            )
        fit_info = info["fit"]
        spec = FeatureSpec(**fit_info["features"])
        model = build_model(
            ModelConfig(**fit_info["model"]),
            spec,
            len(info["classes"]),
            len(info["action_units"]),
        )
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: no usable checkpoint ({error}); train one with `python -m train fit --out {folder}`"
        ) from error
    model.eval()
    return Checkpoint(
        model,
        spec,
        tuple(info["classes"]),
        tuple(info["action_units"]),
        float(info["temperature"]),
        info,
        metrics,
    )
