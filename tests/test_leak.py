"""What the head leaves in the displacement: learned from changes, bounded by what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.kernels.leak import learn_leak, predict_leak


def _taught(leak: np.ndarray, head: np.ndarray, limit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    covariance, cross = np.zeros((6, 6)), np.zeros((len(leak), 6))
    for step in head:
        learn_leak(covariance, cross, step, leak @ step, 0.99, 0.03, limit)
    return covariance, cross


@pytest.fixture
def leak() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.05, (28, 6))


def test_a_linear_leak_is_learned(leak):
    random = np.random.default_rng(2)
    covariance, cross = _taught(leak, random.normal(0, 0.02, (200, 6)))
    step, out = random.normal(0, 0.02, 6), np.empty(28)
    predict_leak(covariance, cross, 1e-9, step, out)
    np.testing.assert_allclose(out, leak @ step, atol=1e-5)


def test_nothing_is_claimed_before_anything_was_seen():
    out = np.ones(28)
    predict_leak(np.zeros((6, 6)), np.zeros((28, 6)), 1e-12, np.ones(6), out)
    np.testing.assert_array_equal(out, 0.0)


def test_a_head_that_hardly_moves_teaches_little(leak):
    covariance, cross = _taught(leak, np.random.default_rng(2).normal(0, 1e-4, (200, 6)))
    step, out = np.full(6, 0.02), np.empty(28)
    predict_leak(covariance, cross, 2.0 * 0.003**2, step, out)
    assert np.abs(out).max() < 0.05 * np.abs(leak @ step).max()


def test_a_large_displacement_counts_as_the_limit(leak):
    head = np.random.default_rng(2).normal(0, 0.02, (200, 6))
    whole, cut = _taught(leak, head)[1], _taught(leak, head, limit=1e-4)[1]
    assert np.abs(cut).max() < 0.2 * np.abs(whole).max()
