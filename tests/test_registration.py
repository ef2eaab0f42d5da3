"""The head model: recovery of a known motion, outliers, depth learned from turning."""

from __future__ import annotations

import naive
import numpy as np
import pytest

from streamer.kernels.registration import (
    MOST_TURN,
    TERMS,
    fit_head,
    head_basis,
    learn_depth,
    move_head,
    pool_nodes,
    remove_head,
)

RIDGE = np.array([0, 0, 0, 0, 0.3, 0.3, 0.002, 0.002], np.float64)


@pytest.fixture
def face() -> np.ndarray:
    """(40, 3) points spread over a face, with depth."""
    rng = np.random.default_rng(5)
    return np.column_stack([rng.uniform(-1, 1, 40), rng.uniform(-0.6, 1.5, 40), rng.uniform(-0.6, 0.6, 40)])


def _fit(points, moved, weights=None, scale=0.003, rounds=6, ridge=RIDGE, information=None):
    information = np.tile([0.5, 0.0, 0.5], (len(points), 1)) if information is None else information
    weights = np.ones(len(points)) if weights is None else weights
    params = np.zeros(TERMS)
    residual = fit_head(points, moved, information, ridge, scale, rounds, weights, params)
    return params, residual, weights


def test_basis_equals_its_twin(face):
    basis = np.empty((2, TERMS))
    for point, expected in zip(face, naive.head_rows(face), strict=True):
        x, y, z = point
        head_basis(x, y, z, basis)
        np.testing.assert_allclose(basis, expected)


def _rigid(face: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """(N, 2) where a camera 10 IOD away sees the points after true rotations about the face's origin."""
    x, y, z = face.T
    points = np.stack([x * (10 + z) / 10, y * (10 + z) / 10, z])
    c, s = np.cos(yaw), np.sin(yaw)
    points = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ points
    c, s = np.cos(pitch), np.sin(pitch)
    points = np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ points
    return np.column_stack([*(10 * points[:2] / (10 + points[2])), points[2]])


def test_small_motion_is_the_basis_times_the_terms(face):
    params = 1e-4 * np.array([2.0, -1.0, 1.0, 1.5, -0.5, 0.7, 4.0, -3.0])
    out = np.empty_like(face)
    move_head(face, params, out)
    np.testing.assert_allclose(out[:, :2] - face[:, :2], naive.head_rows(face) @ params, atol=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.3, 0.0), (0.0, -0.25), (-0.3, 0.2)])
def test_a_turned_head_is_recovered_and_removed(face, yaw, pitch):
    """As large a turn as there is, in true perspective, and a shift and a roll on top."""
    seen = _rigid(face, yaw, pitch)
    moved = seen[:, :2] @ np.array([[1.0, 0.05], [-0.05, 1.0]]) + [0.03, -0.02] - face[:, :2]
    params, residual, _ = _fit(face, moved, ridge=RIDGE * 1e-6)
    np.testing.assert_allclose(params[6:], np.sin([yaw, pitch]), atol=1e-4)
    assert residual < 1e-5
    out = np.empty((40, 2))
    remove_head(face, moved, params, out)
    np.testing.assert_allclose(out, 0, atol=1e-4)
    turned = np.empty_like(face)
    move_head(face, params, turned)
    np.testing.assert_allclose(turned[:, 2], seen[:, 2], atol=1e-4)


def test_no_turn_is_more_than_a_turn(face):
    params, *_ = _fit(face, 5 * face[:, 2:] * [1.0, 0.0], ridge=RIDGE * 1e-6)
    assert np.isfinite(params).all() and abs(params[6:]).max() <= MOST_TURN


def test_one_round_equals_the_plain_twin(face):
    rng = np.random.default_rng(2)
    moved = rng.normal(0, 0.01, (40, 2))
    roots = rng.normal(size=(40, 2, 2))
    tensors = roots @ roots.transpose(0, 2, 1)
    information = np.stack([tensors[:, 0, 0], tensors[:, 0, 1], tensors[:, 1, 1]], 1)
    weights = rng.uniform(0.1, 1, 40)
    expected = naive.fit_head(face, moved, information, RIDGE, weights)
    params, _, _ = _fit(face, moved, weights=weights.copy(), rounds=1, information=information)
    np.testing.assert_allclose(params, expected, atol=1e-10)


def test_an_expression_does_not_move_the_head(face):
    """A quarter of the points move with an expression: the fit leaves them out and says so."""
    rng = np.random.default_rng(0)
    truth = np.array([0.01, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0])
    moved = naive.head_rows(face) @ truth + rng.normal(0, 2e-4, (40, 2))
    moved[:10, 1] -= 0.03
    params, _, weights = _fit(face, moved)
    np.testing.assert_allclose(params[:4], truth[:4], atol=2e-3)
    assert weights[:10].max() < 0.05 < 0.5 < np.median(weights[10:])


def test_points_without_weight_do_not_count(face):
    moved = np.zeros((40, 2))
    moved[3] = 100.0
    weights = np.ones(40)
    weights[3] = 0.0
    params, residual, _ = _fit(face, moved, weights=weights)
    np.testing.assert_allclose(params, 0, atol=1e-9)
    assert residual < 1e-9


def test_an_edge_constrains_only_the_motion_across_it(face):
    """Vertical edges (information in x alone) say nothing of y: wrong y shifts must not matter."""
    information = np.tile([1.0, 0.0, 0.0], (40, 1))
    moved = np.zeros((40, 2))
    moved[:, 0], moved[:, 1] = 0.01, 0.5
    ridge = RIDGE + 1e-9
    params, _, _ = _fit(face, moved, ridge=ridge, information=information)
    assert params[0] == pytest.approx(0.01, abs=1e-4)
    assert abs(params[1]) < 1e-3


def test_depth_is_learned_from_turning(face):
    """One point is believed 0.3 IOD too far away; a head that turns to and fro corrects it."""
    believed, depth = face.copy(), face[:, 2].copy()
    believed[0, 2] = depth[0] = face[0, 2] - 0.3
    for k in range(300):
        turn = 0.08 * np.sin(k / 10)
        params = np.array([0, 0, 0, 0, 0, 0, turn, 0.5 * turn])
        turned = np.empty_like(face)
        move_head(face, params, turned)
        moved = turned[:, :2] - face[:, :2]
        learn_depth(depth, believed, moved, params, 0.05, 0.05)
        believed[:, 2] = depth
    np.testing.assert_allclose(depth, face[:, 2], atol=0.02)


def test_a_still_head_teaches_no_depth(face):
    depth = face[:, 2].copy()
    learn_depth(depth, face, np.full((40, 2), 0.02), np.zeros(TERMS), 0.5, 0.05)
    np.testing.assert_array_equal(depth, face[:, 2])


def _pool(face, shift, quality, params=None, out=None):
    """4 nodes with 3 neighbours each: rows 0-3 and 28-39 of `face`."""
    roots = np.random.default_rng(3).normal(size=(40, 2, 2))
    tensors = roots @ roots.transpose(0, 2, 1)
    information = np.stack([tensors[:, 0, 0], tensors[:, 0, 1], tensors[:, 1, 1]], 1)
    out = np.full((4, 2), 9.0) if out is None else out
    pool_nodes(face, shift, information, quality, 28, np.zeros(TERMS) if params is None else params, out)
    return out, tensors


def test_pooled_nodes_are_the_least_squares_of_their_patches(face):
    rng = np.random.default_rng(4)
    shift, quality = rng.normal(0, 0.01, (40, 2)), rng.uniform(0.2, 1, 40)
    out, tensors = _pool(face, shift, quality)
    for node in range(4):
        rows = [node, *range(28 + 3 * node, 31 + 3 * node)]
        weights = quality[rows, None, None] * tensors[rows]
        right = np.einsum("kij,kj->i", weights, shift[rows])
        np.testing.assert_allclose(out[node], np.linalg.solve(weights.sum(0), right), atol=1e-12)


def test_pooled_nodes_are_free_of_the_head(face):
    params = np.array([0.02, -0.01, 0.01, 0.015, 0.0, 0.0, 0.04, -0.03])
    moved = np.empty_like(face)
    move_head(face, params, moved)
    out, _ = _pool(face, moved[:, :2] - face[:, :2], np.ones(40), params)
    np.testing.assert_allclose(out, 0, atol=1e-12)


def test_a_node_without_a_match_stays(face):
    quality = np.ones(40)
    quality[[1, 31, 32, 33]] = 0.0
    out, _ = _pool(face, np.full((40, 2), 0.01), quality)
    np.testing.assert_allclose(out[1], 9.0)
    np.testing.assert_allclose(out[0], 0.01)
