"""python -m train fit: train, calibrate, measure, and write a checkpoint for `python -m train export`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from streamer.errors import UsageError
from train.checkpoint import prepare_folder, save_checkpoint
from train.combinations import ACTION_UNIT_NAMES, CLASSES
from train.datasets.action_units import OBJECTIVE_NAMES
from train.loop import FitConfig, Samples, fit_temperature, predict, probabilities, train
from train.metrics import summarise
from train.recorded import RecordedData
from train.simulate import Expressions, simulate
from train.tracker_noise import TrackerNoise, load_noise

AMPLITUDE_EDGES = (0.003, 0.005, 0.01, 0.02, 0.0301)
"""Bins of the peak displacement, IOD, for the figures by amplitude."""

BEYOND_VARIATION = (2.0, 2.0)
"""Variation of the action units for the second set of metrics: more than any training expression has."""

# What a random draw is for; with the run's seed it makes draws that never overlap.
_CALIBRATION, _VALIDATION, _BEYOND, _TRAINING = 0, 1, 2, 3


class SimulatedData:
    """Simulated expressions, drawn anew for every epoch. See `train.loop.TrainingData`."""

    def __init__(self, config: FitConfig, noise: TrackerNoise) -> None:
        self.class_names = {name: OBJECTIVE_NAMES[name] for name in CLASSES}
        self._config, self._noise = config, noise

    def _draw(self, count: int, purpose: int) -> Expressions:
        return simulate(count, (self._config.seed, purpose), self._config.simulation, self._noise)

    def _samples(self, drawn: Expressions) -> Samples:
        return Samples.of(drawn.nodes, drawn.label, drawn.units, self._config.features)

    def epoch(self, number: int) -> Samples:
        """New faces, new expressions."""
        return self._samples(self._draw(self._config.samples, _TRAINING + number))

    def calibration(self) -> Samples:
        """Further ones."""
        return self._samples(self._draw(self._config.validation_samples, _CALIBRATION))

    def measure(self, model: nn.Module, temperature: float) -> dict[str, Any]:
        """`validation`: others as strange as those of training; `beyond`: stranger ones."""
        count, seed = self._config.validation_samples, self._config.seed
        strange = replace(self._config.simulation, variation=BEYOND_VARIATION)
        sets = {
            "validation": self._draw(count, _VALIDATION),
            "beyond": simulate(count, (seed, _BEYOND), strange, self._noise),
        }
        return {
            name: summarise(
                *probabilities(model, self._samples(drawn), temperature),
                drawn.label,
                drawn.units,
                drawn.amplitude,
                CLASSES,
                ACTION_UNIT_NAMES,
                AMPLITUDE_EDGES,
            )
            for name, drawn in sets.items()
        }

    def described(self) -> dict[str, Any]:
        """See `TrainingData`."""
        config = self._config
        return {
            "what": "simulated micro-expressions (train/simulate.py); no recording of a person",
            "simulated": True,
            "protocol": f"{config.epochs} epochs of {config.samples} expressions drawn anew, a fixed number;"
            f" measured on {config.validation_samples} further ones; temperature fitted on a third draw",
            "tracker_noise": self._noise.reference,
        }


def fit(config: FitConfig, progress: bool = True) -> dict[str, Any]:
    """Train, calibrate, measure and write the checkpoint; returns the metrics.

    Raises:
        UsageError: a setting does not make sense, the database cannot be trained on, or the folder cannot
            be written. Others as `train.landmarks.extract`.
    """
    if config.epochs < 1 or not 2 <= config.batch <= config.samples or config.validation_samples < 1:
        raise UsageError(
            "--epochs and --validation-samples must be at least 1, --batch at least 2 and at most --samples"
        )
    if config.seed < 0 or config.threads < 1 or not config.learning_rate > 0.0:
        raise UsageError("--seed must be at least 0, --threads at least 1, --learning-rate above 0")
    if config.features.node_set != "gm14" or config.landmarks.node_set != "gm14":
        raise UsageError(
            "an engine reads the nodes gm14: leave the --features and --landmarks node set as is"
        )
    if (config.dataset is None) != (config.root is None):
        raise UsageError("--dataset and --root go together: which database, and the folder it lies in")
    prepare_folder(config.out)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    noise = load_noise()
    if config.dataset is None:
        if config.simulated_share or config.classes or config.setting != "objective":
            raise UsageError("--setting, --classes and --simulated-share are for a database: add --dataset")
        data = SimulatedData(config, noise)
    else:
        data = RecordedData(config, noise, progress)
    started = time.monotonic()
    model, loss_function = train(config, data, progress)
    seconds = time.monotonic() - started
    calibration = data.calibration()
    temperature = fit_temperature(predict(model, calibration.features).classes, calibration.label)
    metrics = data.measure(model, temperature)
    if loss_function.aau is not None:
        metrics["aau_weights"] = loss_function.aau.weights().tolist()
    save_checkpoint(
        config.out,
        model,
        data.class_names,
        ACTION_UNIT_NAMES,
        temperature,
        metrics,
        config,
        data.described(),
        seconds,
    )
    return metrics
