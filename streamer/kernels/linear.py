"""Small linear systems without a linear-algebra library: Numba's own calls SciPy, which is not installed."""

from __future__ import annotations

import math

import numba
import numpy as np


@numba.njit(cache=True)
def solve_positive(matrix: np.ndarray, right: np.ndarray, out: np.ndarray) -> bool:
    """Solve matrix (N, N) out = right (N,) for a symmetric positive definite matrix, by Cholesky.

    The matrix is overwritten by its factor (only its lower triangle is read). False, and `out`
    undefined, if the matrix is not positive definite to within rounding.
    """
    count = matrix.shape[0]
    for j in range(count):
        pivot = matrix[j, j]
        smallest = 1e-12 * abs(pivot)
        for k in range(j):
            pivot -= matrix[j, k] * matrix[j, k]
        if not pivot > smallest:
            return False
        root = math.sqrt(pivot)
        matrix[j, j] = root
        for i in range(j + 1, count):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = value / root
    for i in range(count):
        value = right[i]
        for k in range(i):
            value -= matrix[i, k] * out[k]
        out[i] = value / matrix[i, i]
    for i in range(count - 1, -1, -1):
        value = out[i]
        for k in range(i + 1, count):
            value -= matrix[k, i] * out[k]
        out[i] = value / matrix[i, i]
    return True
