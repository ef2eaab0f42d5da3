"""The evidence on a movement's shape, each on fields and courses made up by the test."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.confidence import MIRROR, breadth, coherence, shrink, symmetry
from streamer.simulation.facs import TEMPLATE_NODES, motion

TIMES = np.arange(30) / 30
FORM = np.clip(1 - abs(TIMES - 0.5) / 0.2, 0, None)
LOWER = slice(7, 14)


def test_mirrored_nodes_lie_opposite():
    np.testing.assert_allclose(TEMPLATE_NODES[MIRROR] * (-1, 1), TEMPLATE_NODES, atol=0.03)


def test_a_smile_mirrors_itself_and_a_turn_does_not():
    smile = motion(TEMPLATE_NODES, {"AU12": 1.0})
    assert symmetry(smile.ravel(), LOWER) > 0.95
    assert symmetry(np.tile([0.01, 0.0], 14), LOWER) == pytest.approx(-1.0)
    one_sided = smile * (TEMPLATE_NODES[:, :1] < 0)
    assert -0.2 < symmetry(one_sided.ravel(), LOWER) < 0.6


def test_breadth_counts_the_nodes_that_take_part():
    assert breadth(np.array([0.01, 0, 0, 0])) == pytest.approx(0.0)
    assert breadth(np.array([0.01, 0.01, 0.01, 0])) == pytest.approx(np.log(3))


def _values(shares: np.ndarray, others: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1e-4, (30, 28))
    return FORM[:, None] * shares + others + noise


def test_what_moves_otherwise_meanwhile_has_no_part_in_the_event():
    shares = np.zeros(28)
    shares[20] = shares[24] = 0.01  # the corners of the mouth
    others = np.zeros((30, 28))
    others[:, 4] = 0.01 * np.sin(2 * np.pi * 3 * TIMES + 1)  # a brow in a rhythm of its own
    found = shares.copy()
    found[4] = 0.004  # what a fit made of it
    factors = shrink(TIMES, _values(shares, others), FORM, found)
    assert factors[10] > 0.99 and found[20] == pytest.approx(0.01, rel=0.02)
    assert factors[2] < 0.3 and abs(found[4]) < 0.0012


def test_coherence_is_the_share_of_one_common_course():
    shares = np.zeros(28)
    shares[20] = shares[24] = 0.01
    precision = np.zeros(28)
    precision[[20, 24]] = 1.0
    apart = np.zeros((30, 28))
    apart[:, 24] = 0.01 * np.roll(FORM, 6)
    together = coherence(TIMES, _values(shares, np.zeros((30, 28))), FORM, shares, precision)
    assert together > 0.98
    assert coherence(TIMES, _values(shares, apart), FORM, shares, precision) < 0.8
