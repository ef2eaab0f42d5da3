"""Kernels of the graph stage: similarity transforms, the face frame, GM-Graph node features.

Arrays in, the caller's arrays out; nothing is allocated here. Arithmetic is float64 (hence the casts:
the product of two float32 is a float32), results take the dtype of `out`. `streamer.graph` holds the
checked, typed wrappers, `tests/naive.py` the plain twins.

A similarity transform of the plane is (a, b, tx, ty):

    x' = a x - b y + tx
    y' = b x + a y + ty

with scale sqrt(a^2 + b^2) and rotation atan2(b, a). It never mirrors.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# `centre` of graph_features
CENTRE_EYES = 0
CENTRE_ONSET_CENTROID = 1
# `angle` of graph_features
ANGLE_ATAN2 = 0
ANGLE_ARCTAN = 1
# `magnification` of graph_features
MAGNIFY_FACTOR = 0
MAGNIFY_PEAK = 1

# A coordinate beyond this many IOD is no part of a face; below it no feature can overflow a float32.
LIMIT_IOD = 1000.0

_NAN = math.nan
_PI = math.pi


@njit(cache=True)
def similarity_fit(src, dst, weights):
    """The similarity transform that takes `src` to `dst` with the least weighted squared error.

    Umeyama (1991), equations 40-43, in the plane, where the best rotation has a closed form.

    src, dst: (n, 2). weights: (n,), at least 0, a weight of 0 leaves the point out.
    Returns (a, b, tx, ty); all NaN if the weighted `src` points do not span a length or anything is
    not finite.
    """
    total = 0.0
    sx = sy = dx = dy = 0.0
    for i in range(src.shape[0]):
        w = np.float64(weights[i])
        if w == 0.0:  # skipped rather than multiplied: the point may be NaN
            continue
        total += w
        sx += w * src[i, 0]
        sy += w * src[i, 1]
        dx += w * dst[i, 0]
        dy += w * dst[i, 1]
    if not (total > 0.0 and math.isfinite(total)):
        return _NAN, _NAN, _NAN, _NAN
    sx /= total
    sy /= total
    dx /= total
    dy /= total
    spread = dot = cross = 0.0
    for i in range(src.shape[0]):
        w = np.float64(weights[i])
        if w == 0.0:
            continue
        px = src[i, 0] - sx
        py = src[i, 1] - sy
        qx = dst[i, 0] - dx
        qy = dst[i, 1] - dy
        spread += w * (px * px + py * py)
        dot += w * (px * qx + py * qy)
        cross += w * (px * qy - py * qx)
    # Points that coincide up to the rounding of their own coordinates have no direction to fit.
    if not spread > 1e-20 * total * (sx * sx + sy * sy):
        return _NAN, _NAN, _NAN, _NAN
    a = dot / spread
    b = cross / spread
    tx = dx - (a * sx - b * sy)
    ty = dy - (b * sx + a * sy)
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(tx) and math.isfinite(ty)):
        return _NAN, _NAN, _NAN, _NAN
    return a, b, tx, ty


@njit(cache=True)
def similarity_apply(a, b, tx, ty, points, out):
    """Transform `points` (n, 2) into `out` (n, 2); they may be the same array."""
    for i in range(points.shape[0]):
        x = np.float64(points[i, 0])
        y = np.float64(points[i, 1])
        out[i, 0] = a * x - b * y + tx
        out[i, 1] = b * x + a * y + ty


@njit(cache=True)
def face_frame(landmarks, eye_corners):
    """The similarity transform from the image frame to the face frame of these landmarks.

    landmarks: (p, 2 or 3) pixels. eye_corners: four indices: the person's right eye outer and inner
    corner, left eye inner and outer corner. Returns (a, b, tx, ty), NaN if the eye centres coincide.
    """
    outer, inner = eye_corners[0], eye_corners[1]
    rx = 0.5 * (np.float64(landmarks[outer, 0]) + np.float64(landmarks[inner, 0]))
    ry = 0.5 * (np.float64(landmarks[outer, 1]) + np.float64(landmarks[inner, 1]))
    inner, outer = eye_corners[2], eye_corners[3]
    lx = 0.5 * (np.float64(landmarks[inner, 0]) + np.float64(landmarks[outer, 0]))
    ly = 0.5 * (np.float64(landmarks[inner, 1]) + np.float64(landmarks[outer, 1]))
    ex = lx - rx
    ey = ly - ry
    square = ex * ex + ey * ey
    if not (square > 0.0 and math.isfinite(square)):
        return _NAN, _NAN, _NAN, _NAN
    # Rotate the eye line onto +x and divide by its length: conj(e) / |e|^2 as a complex number.
    a = ex / square
    b = -ey / square
    cx = 0.5 * (rx + lx)
    cy = 0.5 * (ry + ly)
    return a, b, -(a * cx - b * cy), -(b * cx + a * cy)


@njit(cache=True)
def face_frame_nodes(landmarks, eye_corners, stability, nodes, out):
    """Landmarks of a few frames of one expression -> nodes in the face frame of the first.

    Frames after the first are laid onto the first by the similarity transform that fits their stable
    points; then all go into the face frame of the first frame.

    landmarks: (samples, frames, p, 2 or 3) pixels. eye_corners: (4,), see `face_frame`. stability:
    (p,) weight of each landmark in the fit. nodes: (n,) indices of landmarks.
    out: (samples, frames, n, 2) IOD.
    Returns the index of the first sample that cannot be placed (its `out` is unfinished), or -1.
    """
    for s in range(landmarks.shape[0]):
        fa, fb, fx, fy = face_frame(landmarks[s, 0], eye_corners)
        if not math.isfinite(fa + fb + fx + fy):
            return s
        for f in range(landmarks.shape[1]):
            a, b, tx, ty = fa, fb, fx, fy
            if f > 0:
                ga, gb, gx, gy = similarity_fit(landmarks[s, f], landmarks[s, 0], stability)
                a = fa * ga - fb * gb
                b = fb * ga + fa * gb
                tx = fa * gx - fb * gy + fx
                ty = fb * gx + fa * gy + fy
            for k in range(nodes.shape[0]):
                x = np.float64(landmarks[s, f, nodes[k], 0])
                y = np.float64(landmarks[s, f, nodes[k], 1])
                out[s, f, k, 0] = a * x - b * y + tx
                out[s, f, k, 1] = b * x + a * y + ty
                # The stored value is checked: a float32 overflows where the float64 does not.
                if not (math.isfinite(out[s, f, k, 0]) and math.isfinite(out[s, f, k, 1])):
                    return s
    return -1


@njit(cache=True)
def _wrap(angle, middle):
    """`angle` plus the whole turns that bring it within half a turn of `middle`."""
    return angle - 2.0 * _PI * math.floor((angle - middle) / (2.0 * _PI) + 0.5)


@njit(cache=True)
def graph_features(nodes, neighbour, rest_angle, centre, angle, magnification, amount, cap, out):
    """GM-Graph node features, type B of the paper: (x, y, D, alpha) of every node in three frames.

        D_i = (x_i - x_j)^2 + (y_i - y_j)^2,    alpha_i = arctan((y_i - y_j) / (x_i - x_j))

    (the paper's equation 1; j is the directed neighbour of i). Displacements from the onset are
    magnified first, so D and alpha are those of the magnified nodes.

    nodes: (samples, 3, n, 2) face frame, IOD: onset, apex, offset. neighbour: (n,) index of j.
    rest_angle: (n,) radians, middle of the turn in which the onset's atan2 is given. centre,
    angle, magnification: the constants above. amount: factor (MAGNIFY_FACTOR) or the length in IOD
    that the most moved node of the apex gets (MAGNIFY_PEAK); cap: the largest factor of MAGNIFY_PEAK.
    out: (samples, 3, n, 4).
    Returns the index of the first sample with a coordinate that is not finite or beyond LIMIT_IOD (its
    `out` is not written), or -1.
    """
    count = nodes.shape[2]
    for s in range(nodes.shape[0]):
        for f in range(3):
            for i in range(count):
                # Written so that NaN fails too.
                if not (abs(nodes[s, f, i, 0]) <= LIMIT_IOD and abs(nodes[s, f, i, 1]) <= LIMIT_IOD):
                    return s
        cx = cy = 0.0
        if centre == CENTRE_ONSET_CENTROID:
            for i in range(count):
                cx += np.float64(nodes[s, 0, i, 0])
                cy += np.float64(nodes[s, 0, i, 1])
            cx /= count
            cy /= count
        factor = amount
        if magnification == MAGNIFY_PEAK:
            peak = 0.0
            for i in range(count):
                mx = np.float64(nodes[s, 1, i, 0]) - np.float64(nodes[s, 0, i, 0])
                my = np.float64(nodes[s, 1, i, 1]) - np.float64(nodes[s, 0, i, 1])
                peak = max(peak, math.sqrt(mx * mx + my * my))
            # Compared by product: a still face has peak 0 and takes the cap.
            factor = amount / peak if cap * peak > amount else cap
        for f in range(3):
            for i in range(count):
                x0 = np.float64(nodes[s, 0, i, 0])
                y0 = np.float64(nodes[s, 0, i, 1])
                out[s, f, i, 0] = x0 - cx + factor * (np.float64(nodes[s, f, i, 0]) - x0)
                out[s, f, i, 1] = y0 - cy + factor * (np.float64(nodes[s, f, i, 1]) - y0)
            for i in range(count):
                j = neighbour[i]
                dx = np.float64(out[s, f, i, 0]) - np.float64(out[s, f, j, 0])
                dy = np.float64(out[s, f, i, 1]) - np.float64(out[s, f, j, 1])
                out[s, f, i, 2] = dx * dx + dy * dy
                # A node on its neighbour has no direction: it keeps the one it had before.
                before = rest_angle[i] if f == 0 else np.float64(out[s, 0, i, 3])
                if angle == ANGLE_ATAN2:
                    alpha = before if dx == 0.0 and dy == 0.0 else _wrap(math.atan2(dy, dx), before)
                elif dx != 0.0:
                    alpha = math.atan(dy / dx)
                elif dy != 0.0:
                    alpha = math.copysign(0.5 * _PI, dy)
                else:
                    alpha = 0.0 if f == 0 else before
                out[s, f, i, 3] = alpha
    return -1
