"""What of the head's motion is left in the nodes' displacement, learned as it goes."""

from __future__ import annotations

import numba
import numpy as np

from streamer.kernels.linear import solve_positive


@numba.njit(cache=True)
def predict_leak(
    covariance: np.ndarray, cross: np.ndarray, ridge: float, step: np.ndarray, out: np.ndarray
) -> None:
    """out (K,) = what a step of the head (H,) moves the displacement by, from what `learn_leak` has seen.

    Ridge regression: cross (K, H) (covariance (H, H) + ridge)^-1 step. Zero where nothing was seen.
    """
    count = step.shape[0]
    normal = covariance.copy()
    for i in range(count):
        normal[i, i] += ridge
    weights = np.empty(count)
    out[:] = 0.0
    if solve_positive(normal, step, weights):
        for k in range(out.shape[0]):
            for i in range(count):
                out[k] += cross[k, i] * weights[i]


@numba.njit(cache=True)
def learn_leak(
    covariance: np.ndarray,
    cross: np.ndarray,
    head: np.ndarray,
    displacement: np.ndarray,
    keep: float,
    weight: float,
    limit: float,
) -> None:
    """Add a pair of changes, of the head (H,) and of the displacement (K,), to the running sums, in place.

    keep: share of the sums that is kept. weight: of the pair. limit: a larger change of displacement counts
    as one of this size: an expression, which is large and brief, teaches little.
    """
    for i in range(head.shape[0]):
        for j in range(head.shape[0]):
            covariance[i, j] = keep * covariance[i, j] + weight * head[i] * head[j]
    for k in range(displacement.shape[0]):
        moved = min(max(displacement[k], -limit), limit)
        for i in range(head.shape[0]):
            cross[k, i] = keep * cross[k, i] + weight * moved * head[i]
