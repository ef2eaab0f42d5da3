"""Figures of merit for classes and action units, on predictions pooled over all samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def confusion_matrix(truth: I64, predicted: I64, classes: int) -> I64:
    """(classes, classes) counts, rows the truth, columns the prediction."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassMetrics:
    """Single-label metrics.

    accuracy: part of the samples that are right.
    f1: F1 score of each class, 2 TP / (2 TP + FP + FN); 0 for a class neither present nor predicted.
    macro_f1: mean of `f1` over the classes that have samples (UF1).
    uar: mean recall over the classes that have samples.
    confusion: (classes, classes), rows the truth.
    """

    accuracy: float
    macro_f1: float
    uar: float
    f1: F64
    confusion: I64


def class_metrics(truth: I64, predicted: I64, classes: int) -> ClassMetrics:
    """Metrics of predicted class indices against the truth, both (N,).

    Raises:
        ValueError: there are no samples.
    """
    if len(truth) == 0:
        raise ValueError("no samples to measure on")
    confusion = confusion_matrix(truth, predicted, classes)
    hits = np.diag(confusion).astype(np.float64)
    support, claimed = confusion.sum(1), confusion.sum(0)
    f1 = 2.0 * hits / np.maximum(support + claimed, 1)
    present = support > 0
    return ClassMetrics(
        accuracy=float(hits.sum() / len(truth)),
        macro_f1=float(f1[present].mean()),
        uar=float((hits[present] / support[present]).mean()),
        f1=f1,
        confusion=confusion,
    )


FIGURES = ("accuracy", "macro_f1", "uar")
"""What intervals and tests are given for, see `ClassMetrics`."""


def _figures(confusion: NDArray[Any]) -> F64:
    """(..., 3) `FIGURES` of confusion matrices (..., classes, classes)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, claimed = confusion.sum(-1), confusion.sum(-2)
    present = support > 0
    count = np.maximum(present.sum(-1), 1)
    f1 = 2.0 * hits / np.maximum(support + claimed, 1)
    recall = hits / np.maximum(support, 1)
    return np.stack(
        [
            hits.sum(-1) / np.maximum(support.sum(-1), 1),
            np.where(present, f1, 0.0).sum(-1) / count,
            np.where(present, recall, 0.0).sum(-1) / count,
        ],
        axis=-1,
    )


def _by_person(persons: Sequence[str], truth: I64, predicted: I64, classes: int) -> I64:
    """(P, classes, classes) confusion matrix of each person.

    Raises:
        ValueError: there are no samples, or as many of one as not of another.
    """
    if not len(persons) == len(truth) == len(predicted) > 0:
        raise ValueError(f"{len(persons)} persons, {len(truth)} labels, {len(predicted)} predictions")
    names = np.array(persons)
    return np.stack(
        [confusion_matrix(truth[names == p], predicted[names == p], classes) for p in np.unique(names)]
    )


@dataclass(frozen=True)
class Interval:
    """A figure, and the interval that holds it with the stated probability."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    persons: Sequence[str],
    truth: I64,
    predicted: I64,
    classes: int,
    level: float = 0.95,
    repeats: int = 5000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap interval of each of `FIGURES`, pooled over all samples.

    Persons are drawn with replacement, each with all of their samples: samples of one person resemble each
    other, and what is asked is how the figure would be with other persons.

    persons: (N,). truth, predicted: (N,) class indices.
    """
    confusion = _by_person(persons, truth, predicted, classes)
    people = len(confusion)
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1.0 / people), repeats)
    spread = _figures(np.tensordot(drawn, confusion, 1))
    value = _figures(confusion.sum(0))
    low, high = np.quantile(spread, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return {name: Interval(float(value[k]), float(low[k]), float(high[k])) for k, name in enumerate(FIGURES)}


@dataclass(frozen=True)
class Comparison:
    """Second model minus first. low, high: bootstrap interval. p: of no difference, two-sided."""

    difference: float
    low: float
    high: float
    p: float


def compare_models(
    persons: Sequence[str],
    truth: I64,
    first: I64,
    second: I64,
    classes: int,
    level: float = 0.95,
    repeats: int = 5000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Paired comparison of two models' predictions on the same samples, for each of `FIGURES`.

    The test is a randomisation test by person: if the models were equally good, swapping all of a person's
    predictions between them would change nothing but chance. McNemar's test is not used: it takes samples for
    independent, which those of one person are not, and knows only accuracy. The interval is a bootstrap over
    persons, the same persons for both.

    persons: (N,). truth, first, second: (N,) class indices.
    """
    a = _by_person(persons, truth, first, classes)
    b = _by_person(persons, truth, second, classes)
    people, rng = len(a), np.random.default_rng(seed)
    difference = _figures(b.sum(0)) - _figures(a.sum(0))
    swapped = rng.integers(0, 2, (repeats, people))
    moved = np.tensordot(swapped, b - a, 1)
    chance = _figures(b.sum(0) - moved) - _figures(a.sum(0) + moved)
    p = (1 + (np.abs(chance) >= np.abs(difference) - 1e-12).sum(0)) / (1 + repeats)
    drawn = rng.multinomial(people, np.full(people, 1.0 / people), repeats)
    spread = _figures(np.tensordot(drawn, b, 1)) - _figures(np.tensordot(drawn, a, 1))
    low, high = np.quantile(spread, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return {
        name: Comparison(float(difference[k]), float(low[k]), float(high[k]), float(p[k]))
        for k, name in enumerate(FIGURES)
    }


def average_precision(truth: NDArray[Any], score: NDArray[Any]) -> float:
    """Area under the precision-recall curve: sum over thresholds of (recall step) * precision.

    truth: (N,) of 0 and 1; score: (N,), larger = more likely. Equal scores share one threshold.
    NaN where no sample is positive.
    """
    positives = float(truth.sum())
    if positives == 0.0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(truth[order], dtype=np.float64)[last_of_tie]
    precision = hits / (last_of_tie + 1)
    return float((np.diff(hits, prepend=0.0) * precision).sum() / positives)


def f1_score(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """F1 of one yes/no question; both (N,) of 0 and 1. 0 where nothing is true or claimed."""
    truth, predicted = truth.astype(bool), predicted.astype(bool)
    total = int(truth.sum() + predicted.sum())
    return 2.0 * int((truth & predicted).sum()) / total if total else 0.0


def calibration_error(probabilities: NDArray[Any], truth: I64, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, over equal-width bins.

    probabilities: (N, classes); truth: (N,). (Guo et al., "On calibration of modern neural networks", 2017.)
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(index, minlength=bins)
    gap = np.bincount(index, right, minlength=bins) - np.bincount(index, confidence, minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


def summarise(
    probabilities: NDArray[Any],
    unit_probabilities: NDArray[Any],
    label: I64,
    units: NDArray[Any],
    amplitude: NDArray[Any],
    class_names: Sequence[str],
    unit_names: Sequence[str],
    amplitude_edges: Sequence[float],
) -> dict[str, Any]:
    """All metrics of one set of predictions as plain numbers, for JSON.

    Args:
        probabilities: (N, classes). unit_probabilities: (N, action units), claimed from 0.5 up; width 0
            where the network has no action-unit heads.
        label: (N,) class indices. units: (N, action units) of 0 and 1, NaN where nobody has coded them.
        amplitude: (N,) peak displacement, IOD; amplitude_edges: bins for the figures by amplitude.
    """
    predicted = probabilities.argmax(1)
    overall = class_metrics(label, predicted, len(class_names))
    summary: dict[str, Any] = {
        "samples": len(label),
        "accuracy": overall.accuracy,
        "macro_f1": overall.macro_f1,
        "uar": overall.uar,
        "calibration_error": calibration_error(probabilities, label),
        "f1": dict(zip(class_names, overall.f1.tolist(), strict=True)),
        "confusion": overall.confusion.tolist(),
        "by_amplitude": {},
    }
    for low, high in pairwise(amplitude_edges):
        inside = (amplitude >= low) & (amplitude < high)
        if inside.any():
            part = class_metrics(label[inside], predicted[inside], len(class_names))
            summary["by_amplitude"][f"{100 * low:g}-{100 * high:g} %"] = {
                "samples": int(inside.sum()),
                "accuracy": part.accuracy,
                "macro_f1": part.macro_f1,
            }
    if unit_probabilities.shape[1]:
        coded = ~np.isnan(units).any(1)
        known, claimed = units[coded], unit_probabilities[coded]
        per_unit = {
            name: {
                "average_precision": average_precision(known[:, k], claimed[:, k]),
                "f1": f1_score(known[:, k], claimed[:, k] >= 0.5),
                "positives": int(known[:, k].sum()),
            }
            for k, name in enumerate(unit_names)
            if known[:, k].any()
        }
        if not per_unit:
            return summary
        summary["action_units"] = per_unit
        summary["mean_average_precision"] = float(
            np.mean([u["average_precision"] for u in per_unit.values()])
        )
        summary["mean_unit_f1"] = float(np.mean([u["f1"] for u in per_unit.values()]))
    return summary
