"""Rigid motion of the head from the displacement of its stable points."""

from __future__ import annotations

import numba
import numpy as np

from streamer.kernels.linear import solve_positive

TERMS = 8
"""Terms of the head model; see `head_basis`."""

MOST_TURN = 0.7
"""Most that a turn of the head model may be (its sine)."""


NEARNESS = 0.1
"""One over the distance from camera to face, 1 / IOD: ten eye distances, 0.6 m, as before a laptop."""


@numba.njit(cache=True)
def move_points(pose: np.ndarray, points: np.ndarray, out: np.ndarray) -> None:
    """out (N, 2) = points (N, 2) taken through an affine map, the first two rows of pose."""
    for i in range(points.shape[0]):
        x, y = points[i, 0], points[i, 1]
        out[i, 0] = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]
        out[i, 1] = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]


@numba.njit(cache=True, nogil=True)
def head_basis(x: float, y: float, z: float, out: np.ndarray) -> None:
    """Fill out (2, 8) with the small-motion model of a rigid head.

    Columns: shift x, shift y, scale, roll, the two shears of foreshortening, and the two
    out-of-plane turns, which move a point in proportion to its depth z (all IOD, face frame).
    A rigid body under a weak-perspective camera moves by an affine function of (x, y, z)
    (Koenderink and van Doorn 1991, "Affine structure from motion"): these are its eight terms. True
    perspective adds to the turns what grows with the square of the distance from the middle (Longuet-Higgins
    and Prazdny 1980, "The interpretation of a moving retinal image").
    """
    out[0, 0], out[1, 0] = 1.0, 0.0
    out[0, 1], out[1, 1] = 0.0, 1.0
    out[0, 2], out[1, 2] = x, y
    out[0, 3], out[1, 3] = -y, x
    out[0, 4], out[1, 4] = x, -y
    out[0, 5], out[1, 5] = y, x
    near = z / (1.0 + NEARNESS * z)
    out[0, 6], out[1, 6] = near + NEARNESS * x * x, NEARNESS * x * y
    out[0, 7], out[1, 7] = NEARNESS * x * y, near + NEARNESS * y * y


@numba.njit(cache=True, nogil=True)
def move_point(x: float, y: float, z: float, params: np.ndarray) -> tuple[float, float, float]:
    """Where the head model takes the point (x, y) of depth z (IOD, face frame): x, y and depth.

    The turns are true rotations under perspective; then the six affine terms of `head_basis`. For small
    motion this is `head_basis` times params.
    """
    sin_a, sin_b = params[6], params[7]
    cos_a, cos_b = np.sqrt(1.0 - sin_a * sin_a), np.sqrt(1.0 - sin_b * sin_b)
    far = 1.0 + NEARNESS * z
    wide, high = x * far, y * far
    turned, z = wide * cos_a + z * sin_a, z * cos_a - wide * sin_a
    nodded, z = high * cos_b + z * sin_b, z * cos_b - high * sin_b
    far = 1.0 + NEARNESS * z
    u, v = turned / far, nodded / far
    return (
        u + params[0] + (params[2] + params[4]) * u + (params[5] - params[3]) * v,
        v + params[1] + (params[2] - params[4]) * v + (params[5] + params[3]) * u,
        z,
    )


@numba.njit(cache=True)
def fit_head(
    points: np.ndarray,
    displacement: np.ndarray,
    information: np.ndarray,
    ridge: np.ndarray,
    scale: float,
    iterations: int,
    weights: np.ndarray,
    params: np.ndarray,
) -> float:
    """Robust weighted least squares of the head model (`move_point`); returns the weighted RMS residual
    (IOD), infinity if the points do not determine the head's motion.

    Args:
        points: (S, 3) stable points x, y, depth, IOD.
        displacement: (S, 2) their measured displacement, IOD.
        information: (S, 3) image information gxx, gxy, gyy of each point's patch, mean trace 1: an
            edge constrains only the motion across it.
        ridge: (8,) prior precision of each term, in the units of `information`.
        scale: residual (IOD) at which a point's weight has fallen to a quarter (Geman and McClure 1985).
        iterations: reweighting rounds.
        weights: (S,) in: a priori weight, 0 to leave a point out; out: final weight.
        params: (8,) in: a start near the answer, zero for a small motion; out: the fit, by Gauss and Newton's
            steps, one a round.
    """
    count = points.shape[0]
    basis = np.empty((2, TERMS))
    step_params = np.empty(TERMS)
    prior = weights.copy()
    normal = np.empty((TERMS, TERMS))
    right = np.empty(TERMS)
    rms = 0.0
    for step in range(iterations):
        width = scale * 2.0 ** max(0, 3 - step)  # from wide to narrow: no start to get stuck at
        for a in range(TERMS):
            right[a] = -ridge[a] * params[a]
            for b in range(TERMS):
                normal[a, b] = 0.0
            normal[a, a] = ridge[a]
        for i in range(count):
            w = weights[i]
            if w <= 0.0:
                continue
            x, y, z = move_point(points[i, 0], points[i, 1], points[i, 2], params)
            head_basis(x, y, z, basis)
            gxx, gxy, gyy = w * information[i, 0], w * information[i, 1], w * information[i, 2]
            u, v = displacement[i, 0] + points[i, 0] - x, displacement[i, 1] + points[i, 1] - y
            for a in range(TERMS):
                px = basis[0, a] * gxx + basis[1, a] * gxy
                py = basis[0, a] * gxy + basis[1, a] * gyy
                right[a] += px * u + py * v
                for b in range(a + 1):
                    normal[a, b] += px * basis[0, b] + py * basis[1, b]
        if not solve_positive(normal, right, step_params):
            return np.inf
        for a in range(TERMS):
            params[a] += step_params[a]
        params[6] = min(max(params[6], -MOST_TURN), MOST_TURN)
        params[7] = min(max(params[7], -MOST_TURN), MOST_TURN)
        total, error = 0.0, 0.0
        for i in range(count):
            if prior[i] <= 0.0:
                continue
            x, y, z = move_point(points[i, 0], points[i, 1], points[i, 2], params)
            u, v = displacement[i, 0] + points[i, 0] - x, displacement[i, 1] + points[i, 1] - y
            e2 = information[i, 0] * u * u + 2 * information[i, 1] * u * v + information[i, 2] * v * v
            trace = information[i, 0] + information[i, 2]
            r = np.sqrt(e2 / trace) if trace > 0.0 else 0.0
            q = 1.0 + (r / width) ** 2
            weights[i] = prior[i] / (q * q)
            total += weights[i] * trace
            error += weights[i] * e2
        rms = np.sqrt(error / total) if total > 0.0 else 0.0
    return rms


@numba.njit(cache=True)
def remove_head(points: np.ndarray, displacement: np.ndarray, params: np.ndarray, out: np.ndarray) -> None:
    """out (N, 2) = displacement (N, 2) less what the head model predicts at points (N, 3)."""
    for i in range(points.shape[0]):
        x, y, _ = move_point(points[i, 0], points[i, 1], points[i, 2], params)
        out[i, 0] = displacement[i, 0] + points[i, 0] - x
        out[i, 1] = displacement[i, 1] + points[i, 1] - y


@numba.njit(cache=True)
def move_head(points: np.ndarray, params: np.ndarray, out: np.ndarray) -> None:
    """out (N, 3) = where the head model takes points (N, 3)."""
    for i in range(points.shape[0]):
        out[i, 0], out[i, 1], out[i, 2] = move_point(points[i, 0], points[i, 1], points[i, 2], params)


@numba.njit(cache=True)
def pool_nodes(
    points: np.ndarray,
    shift: np.ndarray,
    information: np.ndarray,
    quality: np.ndarray,
    pool: int,
    params: np.ndarray,
    out: np.ndarray,
) -> None:
    """Displacement of each node, the head's motion removed, from the node's own patch and its neighbours'.

    Least squares with the patches' image information: sum(W) out = sum(W d), W = quality x information.
    A patch on an edge says little along the edge, and its neighbours fill that in. A node none of whose
    patches matches is left as it is in `out`.

    Args:
        points: (P, 3): nodes first, the nodes' neighbours from row `pool` on, equally many a node, IOD.
        shift: (P, 2) measured, IOD. information: (P, 3) gxx, gxy, gyy. quality: (P,) 0..1.
        params: (8,) of the head model. out: (N, 2), IOD.
    """
    nodes = out.shape[0]
    neighbours = (points.shape[0] - pool) // nodes
    own = np.empty_like(shift)
    remove_head(points, shift, params, own)
    for i in range(nodes):
        a, b, c, u, v = 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(neighbours + 1):
            j = i if k == neighbours else pool + i * neighbours + k
            q = quality[j]
            gxx, gxy, gyy = q * information[j, 0], q * information[j, 1], q * information[j, 2]
            a += gxx
            b += gxy
            c += gyy
            u += gxx * own[j, 0] + gxy * own[j, 1]
            v += gxy * own[j, 0] + gyy * own[j, 1]
        determinant = a * c - b * b
        if determinant > 1e-9 * (a + c) ** 2 and a + c > 0.0:
            out[i, 0] = (c * u - b * v) / determinant
            out[i, 1] = (a * v - b * u) / determinant


@numba.njit(cache=True)
def learn_depth(
    depth: np.ndarray,
    points: np.ndarray,
    displacement: np.ndarray,
    params: np.ndarray,
    step: float,
    limit: float,
) -> None:
    """Correct depth (P,) in place by what the turning head shows (normalised least mean squares).

    A point that is nearer than believed moves further than predicted when the head turns. Only the
    part of the residual along the turn counts, at most `limit` IOD of it, so that an expression,
    which is large and brief, teaches little.

    Args:
        points: (P, 3), displacement: (P, 2), params: (8,), as for `fit_head`.
        step: 0..1, share of the error corrected in this frame.
    """
    tx, ty = params[6], params[7]
    turn2 = tx * tx + ty * ty
    if turn2 < 1e-5:
        return
    left = np.empty_like(displacement)
    remove_head(points, displacement, params, left)
    for i in range(points.shape[0]):
        u, v = left[i, 0], left[i, 1]
        size = np.sqrt(u * u + v * v)
        cut = limit / size if size > limit else 1.0
        depth[i] += step * cut * (u * tx + v * ty) / (turn2 + 4e-4)
