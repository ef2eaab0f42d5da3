"""Metrics against plain computations and known values."""

from __future__ import annotations

import numpy as np
import pytest

from train.metrics import (
    average_precision,
    calibration_error,
    class_metrics,
    confusion_matrix,
    f1_score,
    summarise,
)


def test_class_metrics_of_a_small_case_worked_by_hand():
    truth = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 2])
    result = class_metrics(truth, predicted, classes=4)  # class 3 has no sample
    assert result.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.f1.tolist() == pytest.approx([4 / 6, 2 / 4, 1.0, 0.0])
    assert result.macro_f1 == pytest.approx((4 / 6 + 2 / 4 + 1.0) / 3)
    assert result.uar == pytest.approx((2 / 3 + 1 / 2 + 1.0) / 3)


def test_confusion_rows_are_the_truth():
    assert confusion_matrix(np.array([0]), np.array([1]), 2).tolist() == [[0, 1], [0, 0]]


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        class_metrics(np.zeros(0, int), np.zeros(0, int), 3)


def naive_average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Precision at every threshold, weighted by how much recall it adds."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        claimed = score >= threshold
        precision = truth[claimed].mean()
        recall = truth[claimed].sum() / truth.sum()
        total += precision * (recall - recall_before)
        recall_before = recall
    return total


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_with_ties(seed):
    rng = np.random.default_rng(seed)
    truth, score = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 12.0
    truth[0] = 1
    assert average_precision(truth, score) == pytest.approx(naive_average_precision(truth, score))


def test_average_precision_ends():
    truth = np.array([0, 0, 1, 1])
    assert average_precision(truth, np.array([0.1, 0.2, 0.3, 0.4])) == pytest.approx(1.0)
    assert average_precision(truth, np.zeros(4)) == pytest.approx(0.5)  # nothing told apart: the base rate
    assert np.isnan(average_precision(np.zeros(4), np.zeros(4)))


def test_f1_score():
    assert f1_score(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])) == pytest.approx(0.5)
    assert f1_score(np.zeros(3), np.zeros(3)) == 0.0


def test_calibration_error():
    truth = np.array([0] * 6 + [1] * 4)
    honest = np.tile([0.6, 0.4], (10, 1))
    assert calibration_error(honest, truth) == pytest.approx(0.0)
    assert calibration_error(np.tile([0.95, 0.05], (10, 1)), truth) == pytest.approx(0.35)
    assert calibration_error(np.tile([1.0, 0.0], (10, 1)), truth) == pytest.approx(0.4)


def test_summary_sorts_by_amplitude_and_leaves_out_units_without_a_sample():
    probabilities = np.eye(2)[[0, 1, 1, 0]]
    units = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    summary = summarise(
        probabilities,
        units,
        np.array([0, 1, 0, 0]),
        units,
        np.array([0.004, 0.004, 0.015, 0.02]),
        ["I", "II"],
        ["AU1", "AU2"],
        [0.003, 0.01, 0.0301],
    )
    assert summary["by_amplitude"]["0.3-1 %"] == {"samples": 2, "accuracy": 1.0, "macro_f1": 1.0}
    assert summary["by_amplitude"]["1-3.01 %"]["accuracy"] == 0.5
    assert list(summary["action_units"]) == ["AU1"]
    assert summary["action_units"]["AU1"] == {"average_precision": 1.0, "f1": 1.0, "positives": 2}
