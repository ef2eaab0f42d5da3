"""Intervals and comparisons of pooled predictions."""

from __future__ import annotations

import numpy as np
import pytest

from train.metrics import FIGURES, bootstrap_intervals, class_metrics, compare_models

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 4, 240)
PERSONS = [f"p{k % 24}" for k in range(240)]


def guess(right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(TRUTH)) < right, TRUTH, rng.integers(0, 4, len(TRUTH)))


def test_values_are_those_of_all_samples_pooled():
    predicted = guess(0.6, 1)
    known = class_metrics(TRUTH, predicted, 5)  # class 4 is neither there nor said
    intervals = bootstrap_intervals(PERSONS, TRUTH, predicted, 5)
    for name in FIGURES:
        assert intervals[name].value == pytest.approx(getattr(known, name))
        assert intervals[name].low < intervals[name].value < intervals[name].high


def test_the_interval_agrees_with_a_plain_bootstrap():
    predicted = guess(0.6, 1)
    rng, names = np.random.default_rng(9), np.array(PERSONS)
    groups = [np.flatnonzero(names == person) for person in np.unique(names)]
    spread = []
    for _ in range(800):
        drawn = np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))])
        spread.append(class_metrics(TRUTH[drawn], predicted[drawn], 4).macro_f1)
    interval = bootstrap_intervals(PERSONS, TRUTH, predicted, 4)["macro_f1"]
    assert interval.low == pytest.approx(np.quantile(spread, 0.025), abs=0.02)
    assert interval.high == pytest.approx(np.quantile(spread, 0.975), abs=0.02)


def test_persons_that_differ_widen_the_interval():
    """Samples of one person are alike: 240 of them are not 240 independent ones."""
    alike = np.where(np.array([int(person[1:]) < 14 for person in PERSONS]), TRUTH, (TRUTH + 1) % 4)
    scattered = np.where(np.arange(len(TRUTH)) // 24 < 6, TRUTH, (TRUTH + 1) % 4)

    def width(predicted: np.ndarray) -> float:
        interval = bootstrap_intervals(PERSONS, TRUTH, predicted, 4)["accuracy"]
        return interval.high - interval.low

    assert width(alike) > 3 * width(scattered)


def test_a_better_model_is_told_from_an_equal_one():
    worse, better = guess(0.5, 1), guess(0.8, 2)
    result = compare_models(PERSONS, TRUTH, worse, better, 4)
    for name in FIGURES:
        known = getattr(class_metrics(TRUTH, better, 4), name) - getattr(class_metrics(TRUTH, worse, 4), name)
        assert result[name].difference == pytest.approx(known)
        assert result[name].p < 0.001 and result[name].low > 0
    back = compare_models(PERSONS, TRUTH, better, worse, 4)
    assert back["accuracy"].difference == -result["accuracy"].difference
    same = compare_models(PERSONS, TRUTH, worse, worse, 4)["macro_f1"]
    assert same.p == 1.0 and same.difference == same.low == same.high == 0.0


def test_chance_is_called_significant_as_rarely_as_promised():
    p = []
    for k in range(120):
        pair = guess(0.6, 2 * k), guess(0.6, 2 * k + 1)
        p.append(compare_models(PERSONS, TRUTH, *pair, 4, repeats=300, seed=k)["macro_f1"].p)
    assert 0.0 < np.mean(np.array(p) < 0.1) < 0.2


def test_one_persons_luck_is_no_proof():
    """The second model is right for one person alone, in ten samples that are not independent."""
    first = (TRUTH + 1) % 4
    second = np.where(np.array(PERSONS) == "p0", TRUTH, first)
    assert compare_models(PERSONS, TRUTH, first, second, 4)["accuracy"].p > 0.4


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="0 persons"):
        bootstrap_intervals([], TRUTH[:0], TRUTH[:0], 4)
