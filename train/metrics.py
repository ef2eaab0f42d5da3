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
        label: (N,) class indices. units: (N, action units) of 0 and 1.
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
        per_unit = {
            name: {
                "average_precision": average_precision(units[:, k], unit_probabilities[:, k]),
                "f1": f1_score(units[:, k], unit_probabilities[:, k] >= 0.5),
                "positives": int(units[:, k].sum()),
            }
            for k, name in enumerate(unit_names)
            if units[:, k].any()
        }
        summary["action_units"] = per_unit
        summary["mean_average_precision"] = float(
            np.mean([u["average_precision"] for u in per_unit.values()])
        )
        summary["mean_unit_f1"] = float(np.mean([u["f1"] for u in per_unit.values()]))
    return summary
