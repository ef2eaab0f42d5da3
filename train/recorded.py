"""A database as training data of the live engine: one's own, CASME II, SAMM, or a simulated one.

The nodes are those that the live tracker measures (`train.landmarks`), in all views; the subjects are cut
into three parts, of which one is trained on, one gives the temperature, and one is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from streamer.errors import UsageError
from train.combinations import ACTION_UNIT_NAMES, CLASSES
from train.datasets import Sample, Selection, label_of, load, select
from train.datasets.action_units import OBJECTIVE_NAMES
from train.folds import Fold, check_folds
from train.landmarks import extract
from train.loop import FitConfig, Samples, probabilities
from train.metrics import bootstrap_intervals, summarise
from train.simulate import simulate
from train.tracker_noise import TrackerNoise

AMPLITUDE_EDGES = (0.0, 0.003, 0.005, 0.01, 0.02, 1.0)
"""Bins of the measured peak displacement, IOD, for the figures by amplitude."""

_SPLIT, _TRAINING = 0, 1  # what a random draw is for
_SPLITS_TRIED = 500


def split_subjects(
    persons: Sequence[str], label: NDArray[np.int64], classes: Sequence[str], held_out: float, seed: int
) -> Fold:
    """Three parts without a common subject: `train`, `validation` for the temperature, `test` to measure on.

    Of many random splits the one whose parts are most alike in classes and in samples a subject, all classes
    being trained.

    Args:
        persons: (N,). label: (N,) index into `classes`. held_out: part of the subjects in each of the
            smaller parts.

    Raises:
        UsageError: too few subjects, or a class that cannot be in training whatever the split.
    """
    everybody = list(dict.fromkeys(persons))
    size = max(1, round(held_out * len(everybody)))
    if len(everybody) < 3 or len(everybody) - 2 * size < 1:
        raise UsageError(
            f"{len(everybody)} subjects: training, the temperature and measuring need at least one each, and "
            f"--held-out {held_out:g} takes {size} and {size}: add subjects, or lower it"
        )
    owner = np.array([everybody.index(person) for person in persons])
    counts = np.zeros((len(everybody), len(classes)))  # samples by subject and class
    np.add.at(counts, (owner, label), 1)
    rng = np.random.default_rng((seed, _SPLIT))
    best, least = None, np.inf
    for _ in range(_SPLITS_TRIED):
        order = rng.permutation(len(everybody))
        parts = (order[2 * size :], order[:size], order[size : 2 * size])
        drawn = np.stack([counts[part].sum(0) for part in parts])
        if not drawn[0].all():
            continue
        expected = counts.sum(0) * np.array([[len(part)] for part in parts]) / len(everybody)
        unlike = float((np.abs(drawn - expected) / np.sqrt(expected + 1.0)).sum())
        if unlike < least:
            best, least = parts, unlike
    if best is None:
        rare = min(range(len(classes)), key=lambda k: int((counts[:, k] > 0).sum()))
        raise UsageError(
            f"no split of {len(everybody)} subjects has all classes in training: {classes[rare]} comes from "
            f"{int((counts[:, rare] > 0).sum())}: add subjects who show it, or leave it out with --classes"
        )
    train, validation, test = (np.flatnonzero(np.isin(owner, part)) for part in best)
    return Fold("held out", train, validation, test)


def _selected(samples: Sequence[Sample], config: FitConfig) -> Selection:
    """The samples of the setting.

    Raises:
        UsageError: a class that nobody knows, or of which there is no sample.
    """
    known = {label_of(sample, config.setting) for sample in samples} - {None}
    for name in config.classes:
        if name not in known:
            raise UsageError(
                f"--classes: no sample has the class {name!r} in setting {config.setting}; there are: "
                f"{', '.join(sorted(str(k) for k in known)) or 'none'}"
            )
    selection = select(samples, config.setting, tuple(dict.fromkeys(config.classes)) or None)
    for name, count in selection.counts.items():
        if count == 0:
            there = " ".join(key for key, value in selection.counts.items() if value)
            raise UsageError(
                f"no sample of class {name} (setting {config.setting}): add some, or train the others with "
                f"--classes {there}"
            )
    return selection


class RecordedData:
    """A database's samples; with `simulated_share`, simulated expressions of the same classes among them.
    See `train.loop.TrainingData`.

    Raises:
        UsageError: the settings do not fit the database. Others as `train.datasets.load` and
            `train.landmarks.extract`.
    """

    def __init__(self, config: FitConfig, noise: TrackerNoise, progress: bool = True) -> None:
        assert config.dataset is not None and config.root is not None
        if not 0.0 <= config.simulated_share <= 0.95 or not 0.0 < config.held_out < 0.5:
            raise UsageError("--simulated-share must be 0 to 0.95, --held-out above 0 and below 0.5")
        if config.landmarks.magnifier is not None:
            raise UsageError("the live program magnifies no pictures: leave --landmarks.magnifier out")
        if config.simulated_share and config.setting not in ("objective", "objective5"):
            raise UsageError(
                f"simulated expressions have objective classes, setting {config.setting} has others: leave "
                f"--simulated-share out"
            )
        if config.workers < 1:
            raise UsageError("--workers must be at least 1")
        database = load(config.dataset, config.root, config.sheet)
        wanted = _selected(database.samples, config)  # before the landmarks, which take long
        measured = extract(wanted.samples, config.landmarks, config.cache, config.workers, progress)
        selection = _selected(measured.samples, config)
        self._config, self._noise, self._selection = config, noise, selection
        self._database = database
        self._failed = len(database.missing) + len(measured.failed)
        self._nodes = measured.of(selection.samples)
        self._units = selection.units(ACTION_UNIT_NAMES)
        self._fold = split_subjects(
            selection.persons, selection.label, selection.classes, config.held_out, config.seed
        )
        check_folds([self._fold], selection.persons, self._nodes)
        if config.au_loss != "none" and not np.nansum(self._units[self._fold.train]):
            raise UsageError(
                f"no sample that is trained on has one of the action units {' '.join(ACTION_UNIT_NAMES)}: "
                f"give --au-loss none"
            )
        objective = config.setting in ("objective", "objective5")
        self.class_names = {
            name: OBJECTIVE_NAMES.get(name, name) if objective else name for name in selection.classes
        }

    def epoch(self, number: int) -> Samples:
        """Samples drawn with replacement, each in a random view."""
        config, selection = self._config, self._selection
        rng = np.random.default_rng((config.seed, _TRAINING, number))
        simulated = round(config.simulated_share * config.samples)
        pick = rng.choice(self._fold.train, config.samples - simulated)
        view = rng.integers(self._nodes.shape[1], size=len(pick))
        nodes, label, units = self._nodes[pick, view], selection.label[pick], self._units[pick]
        if simulated:
            more = self._simulated(simulated, number)
            nodes = np.concatenate((nodes, more[0]))
            label = np.concatenate((label, more[1]))
            units = np.concatenate((units, more[2]))
        return Samples.of(nodes, label, units, config.features)

    def _simulated(self, count: int, number: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Nodes, labels and action units of `count` simulated expressions of the classes."""
        place = np.array([self._place(name) for name in CLASSES])
        if not (place >= 0).any():
            raise UsageError("none of the classes is simulated: leave --simulated-share out")
        draw = int(np.ceil(1.3 * count * len(CLASSES) / (place >= 0).sum())) + 50
        drawn = simulate(
            draw, (self._config.seed, _TRAINING, number, 1), self._config.simulation, self._noise
        )
        keep = np.flatnonzero(place[drawn.label] >= 0)[:count]
        return drawn.nodes[keep], place[drawn.label[keep]], drawn.units[keep]

    def _place(self, name: str) -> int:
        classes = self._selection.classes
        return classes.index(name) if name in classes else -1

    def _of(self, pick: NDArray[np.int64]) -> Samples:
        """Some samples as serving sees them: the whole image."""
        label = self._selection.label[pick]
        return Samples.of(self._nodes[pick, 0], label, self._units[pick], self._config.features)

    def calibration(self) -> Samples:
        """Of the subjects who are neither trained nor measured on."""
        return self._of(self._fold.validation)

    def measure(self, model: nn.Module, temperature: float) -> dict[str, Any]:
        """`validation`, on the held-out subjects, with intervals over subjects."""
        pick, selection = self._fold.test, self._selection
        moved = np.linalg.norm(self._nodes[pick, 0, 1] - self._nodes[pick, 0, 0], axis=2).max(1)
        scores, units = probabilities(model, self._of(pick), temperature)
        persons = [selection.persons[k] for k in pick]
        figures = summarise(
            scores,
            units,
            selection.label[pick],
            self._units[pick],
            moved,
            selection.classes,
            ACTION_UNIT_NAMES,
            AMPLITUDE_EDGES,
        )
        intervals = bootstrap_intervals(
            persons, selection.label[pick], scores.argmax(1), len(selection.classes)
        )
        figures["subjects"] = len(set(persons))
        figures["intervals"] = {name: [part.low, part.high] for name, part in intervals.items()}
        return {"validation": figures}

    def described(self) -> dict[str, Any]:
        """See `TrainingData`. Subjects are counted, not named: an engine may be given away."""
        config, selection = self._config, self._selection
        parts = {
            "training": self._fold.train,
            "temperature": self._fold.validation,
            "held out": self._fold.test,
        }
        people = {name: len({selection.persons[k] for k in part.tolist()}) for name, part in parts.items()}
        name = f"{self._database.name}{' (simulated)' if selection.simulated else ''}"
        share = config.simulated_share
        beside = f", {share:.0%} of each epoch simulated (train/simulate.py)" if share else ""
        return {
            "what": f"{len(selection.samples)} samples of {sum(people.values())} subjects of {name}{beside}",
            "simulated": selection.simulated or bool(share),
            "recorded_is_simulated": selection.simulated,
            "protocol": f"{config.epochs} epochs of {config.samples} drawn with replacement, a fixed number; "
            f"trained on {people['training']} subjects, temperature fitted on {people['temperature']} "
            f"others, measured on {people['held out']} further ones",
            "database": name,
            "setting": selection.setting,
            "left_out": self._failed,
            "subjects": people,
            "counts": {
                part: np.bincount(selection.label[pick], minlength=len(selection.classes)).tolist()
                for part, pick in parts.items()
            },
            "tracker_noise": self._noise.reference if share else None,
        }
