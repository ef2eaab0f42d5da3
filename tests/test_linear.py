"""The small solver against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.kernels.linear import solve_positive


@pytest.mark.parametrize("size", [1, 3, 8])
def test_solution_equals_numpys(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size))
    matrix, right = root @ root.T + 0.1 * np.eye(size), rng.normal(size=size)
    expected, out = np.linalg.solve(matrix, right), np.empty(size)
    assert solve_positive(matrix.copy(), right, out)
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


def test_only_the_lower_triangle_is_read():
    matrix = np.array([[2.0, np.nan], [1.0, 3.0]])
    out = np.empty(2)
    assert solve_positive(matrix, np.array([1.0, 2.0]), out)
    np.testing.assert_allclose(out, np.linalg.solve([[2.0, 1.0], [1.0, 3.0]], [1.0, 2.0]))


@pytest.mark.parametrize(
    "matrix", [[[1.0, 1.0], [1.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
)
def test_what_cannot_be_solved_is_refused(matrix):
    assert not solve_positive(np.array(matrix), np.ones(2), np.empty(2))


def test_what_is_no_number_is_refused():
    assert not solve_positive(np.array([[np.nan]]), np.ones(1), np.empty(1))
