"""Plain twins of the kernels: the oracle that the tests compare with. Slow, short, and written another
way on purpose (complex numbers and library routines instead of loops over floats)."""

from __future__ import annotations

import cmath
import math

import numpy as np


def similarity_fit(src, dst, weights):
    """Umeyama (1991) as printed, by singular value decomposition: (a, b, tx, ty)."""
    src, dst, w = (np.asarray(v, np.float64) for v in (src, dst, weights))
    w = w / w.sum()
    src_mean, dst_mean = w @ src, w @ dst
    p, q = src - src_mean, dst - dst_mean
    covariance = (w[:, None] * q).T @ p
    u, d, vt = np.linalg.svd(covariance)
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / (w @ (p**2).sum(axis=1))
    t = dst_mean - scale * rotation @ src_mean
    return scale * rotation[0, 0], scale * rotation[1, 0], t[0], t[1]


def face_frame_nodes(landmarks, eye_corners, stable, nodes):
    """(frames, p, 2 or 3) pixels -> (frames, n, 2) in the face frame of the first frame."""
    z = np.asarray(landmarks, np.float64)[..., 0] + 1j * np.asarray(landmarks, np.float64)[..., 1]
    right = z[0, list(eye_corners[:2])].mean()
    left = z[0, list(eye_corners[2:])].mean()
    result = []
    for frame in z:
        a, b, tx, ty = similarity_fit(_xy(frame[list(stable)]), _xy(z[0, list(stable)]), np.ones(len(stable)))
        placed = (frame[list(nodes)] * complex(a, b) + complex(tx, ty) - (right + left) / 2) / (left - right)
        result.append(_xy(placed))
    return np.array(result)


def _xy(z):
    return np.stack([z.real, z.imag], axis=-1)


def graph_features(nodes, neighbour, rest_angle, spec):
    """(3, n, 2) -> (3, n, 4): x, y, D, alpha of the magnified and centred nodes."""
    nodes = np.asarray(nodes, np.float64)
    motion = nodes - nodes[0]
    if spec.magnification == "factor":
        motion = motion * spec.factor
    elif spec.magnification == "peak":
        peak = np.hypot(motion[1, :, 0], motion[1, :, 1]).max()
        motion = motion * min(spec.max_factor, spec.peak_iod / peak if peak > 0 else math.inf)
    origin = nodes[0].mean(axis=0) if spec.centre == "onset-centroid" else np.zeros(2)
    xy = (nodes[0] - origin + motion).astype(np.float32)
    z = xy[..., 0].astype(np.float64) + 1j * xy[..., 1].astype(np.float64)
    features = np.zeros((*xy.shape[:2], 4))
    features[..., :2] = xy
    for i, j in enumerate(neighbour):
        edge = z[:, i] - z[:, j]
        features[:, i, 2] = abs(edge) ** 2
        for frame in range(3):
            if spec.angle == "arctan":
                with np.errstate(divide="ignore"):
                    features[frame, i, 3] = np.arctan(np.float64(edge[frame].imag) / (edge[frame].real + 0.0))
            else:
                # The angle between the edge and the one before it, turned by where that one points.
                before = rest_angle[i] if frame == 0 else features[0, i, 3]
                features[frame, i, 3] = before + cmath.phase(edge[frame] * cmath.exp(-1j * before))
    return features


def normalised_adjacency(matrix):
    """I + A_ij / sqrt(d_i d_j), entry by entry."""
    n = len(matrix)
    degree = [sum(row) for row in matrix]
    return [
        [
            float(i == j) + (matrix[i][j] / math.sqrt(degree[i] * degree[j]) if matrix[i][j] else 0.0)
            for j in range(n)
        ]
        for i in range(n)
    ]


def bump_height(times, values, centre_s, half_s):
    """Height of a raised cosine over a straight line, by least squares: see windows.bump_weights."""
    t = times - centre_s
    bump = np.where(abs(t) < half_s, 0.5 + 0.5 * np.cos(np.pi * t / half_s), 0.0)
    return np.linalg.lstsq(np.stack([np.ones(len(t)), t, bump], 1), values, rcond=None)[0][2]


def amplitudes(times, values, curve):
    """Each component's share of the curve, by a library's least squares."""
    rows = np.stack([np.ones(len(times)), np.asarray(times) - times[0], curve], 1)
    return np.linalg.lstsq(rows, values, rcond=None)[0][2]


def head_rows(points):
    """(P, 2, 8) the head model's matrix at each point; the camera is 10 IOD away."""
    x, y, z = np.asarray(points, np.float64).T
    z = 10 * z / (10 + z)
    one, nil = np.ones_like(x), np.zeros_like(x)
    first = np.stack([one, nil, x, -y, x, y, z + x * x / 10, x * y / 10], -1)
    second = np.stack([nil, one, y, x, -y, x, x * y / 10, z + y * y / 10], -1)
    return np.stack([first, second], 1)


def fit_head(points, displacement, information, ridge, weights):
    """One round of weighted ridge least squares of the head model, in matrices."""
    rows = head_rows(points)
    normal, right = np.diag(np.asarray(ridge, np.float64)), np.zeros(8)
    for row, moved, (gxx, gxy, gyy), weight in zip(rows, displacement, information, weights, strict=True):
        tensor = weight * np.array([[gxx, gxy], [gxy, gyy]])
        normal = normal + row.T @ tensor @ row
        right = right + row.T @ tensor @ moved
    return np.linalg.solve(normal, right)
