"""The face as a triangle mesh: MediaPipe's 468 skin points and their triangles, the map from a picture's
pixels to places on the skin, and the reading of a picture at such places.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from streamer.messages import F32, U8

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

SKIN_POINTS = 468
"""Of the 478 landmarks the last ten are the irises, which are not skin."""

UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
"""MediaPipe-478 indices of the rim of the mouth opening, from image left to image right."""

EYE_RIMS = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
"""Upper and lower rim of the right and the left eye, from image left to image right."""


@cache
def triangles() -> I32:
    """(T, 3) landmark indices of the face's triangles: MediaPipe's own, and the eyes and mouth filled."""
    # Here and not at the top: loading MediaPipe takes 0.7 s.
    from mediapipe.tasks.python import vision

    edges = vision.FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    rows = [(edges[i].start, edges[i + 1].start, edges[i + 2].start) for i in range(0, len(edges), 3)]
    for upper, lower in (*EYE_RIMS, (UPPER_INNER_LIP, LOWER_INNER_LIP)):
        rows += _strip(upper, lower)
    return np.array(rows, np.int32)


@cache
def oval() -> tuple[int, ...]:
    """Landmark indices of the face's outline, in order."""
    from mediapipe.tasks.python import vision

    following = {edge.start: edge.end for edge in vision.FaceLandmarksConnections.FACE_LANDMARKS_FACE_OVAL}
    points = [next(iter(following))]
    while following[points[-1]] != points[0]:
        points.append(following[points[-1]])
    return tuple(points)


def _strip(upper: tuple[int, ...], lower: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Triangles between two rows of points that share their first and their last."""
    rows = []
    for i in range(len(upper) - 1):
        a, b, c, d = upper[i], upper[i + 1], lower[i], lower[i + 1]
        rows += [(a, b, d)] if a == c else [(a, b, c)] if b == d else [(a, b, c), (b, d, c)]
    return rows


def delaunay(points: NDArray[np.floating]) -> I32:
    """(T, 3) vertex indices of the Delaunay triangles of points (V, 2): a mesh without folds."""
    exact = np.asarray(points, np.float32)
    low, high = exact.min(0), exact.max(0)
    left, top = np.floor(low).astype(int) - 1
    width, height = np.ceil(high - low).astype(int) + 3
    subdivision = cv2.Subdiv2D((int(left), int(top), int(width), int(height)))
    index = {}
    for i, (x, y) in enumerate(exact):
        index.setdefault((float(x), float(y)), i)
        subdivision.insert((float(x), float(y)))
    rows = [
        [index.get((float(x), float(y)), -1) for x, y in np.reshape(row, (3, 2))]
        for row in subdivision.getTriangleList()
    ]
    return np.array([row for row in rows if min(row) >= 0], np.int32)


@numba.njit(cache=True)
def rasterise(
    triangle: I32, flip: F64, pixels: F64, depth: F64, values: F64, left: int, top: int, out: F32, near: F32
) -> None:
    """Interpolate values over the visible triangles of a mesh, linearly within each.

    Args:
        triangle: (T, 3) vertex indices. flip: (T,) sign of each triangle's area where it faces the camera,
            0 for one that is seen from both sides.
        pixels: (V, 2) vertices in the picture. depth: (V,) their distance, any unit, smaller is nearer.
        values: (V, C) what is interpolated. left, top: pixel that `out` begins at.
        out: (H, W, C); pixels that no triangle covers stay as they are.
        near: (H, W) in and out: distance of what is drawn already; infinity where nothing is.
    """
    height, width, channels = out.shape
    for t in range(triangle.shape[0]):
        a, b, c = triangle[t, 0], triangle[t, 1], triangle[t, 2]
        ax, ay = pixels[a, 0] - left, pixels[a, 1] - top
        bx, by = pixels[b, 0] - left, pixels[b, 1] - top
        cx, cy = pixels[c, 0] - left, pixels[c, 1] - top
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < 1e-9 or area * flip[t] < 0.0:
            continue  # it is seen edge on, or faces away
        x0 = max(0, int(np.ceil(min(ax, bx, cx))))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx))))
        y0 = max(0, int(np.ceil(min(ay, by, cy))))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy))))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
                wc = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
                wa = 1.0 - wb - wc
                if wa < -1e-9 or wb < -1e-9 or wc < -1e-9:
                    continue
                z = wa * depth[a] + wb * depth[b] + wc * depth[c]
                if z > near[y, x]:
                    continue
                near[y, x] = z
                for k in range(channels):
                    out[y, x, k] = wa * values[a, k] + wb * values[b, k] + wc * values[c, k]


TAPS = 6
STEPS = 1024


def _lanczos() -> F64:
    """(STEPS + 1, TAPS) weights of the Lanczos kernel of three lobes for each fraction of a pixel, sum 1."""
    fraction = np.linspace(0, 1, STEPS + 1)[:, None]
    x = np.arange(TAPS) - (TAPS // 2 - 1) - fraction
    weights = np.sinc(x) * np.sinc(x / (TAPS // 2)) * (np.abs(x) < TAPS // 2)
    return weights / weights.sum(1, keepdims=True)


KERNEL = _lanczos()
"""OpenCV's own interpolation rounds places to 1/32 pixel, which is a tenth of the smallest expressions."""


@numba.njit(cache=True)
def sample(image: U8, sources: F32, left: int, top: int, kernel: F64, out: U8) -> None:
    """Fill out, (H, W, 3), from (left, top) on, with the image read at `sources`.

    image: (h, w, 3); its edge repeats beyond it. sources: (R, C, 2) x, y, pixels of the image; where they are
    NaN, `out` stays as it is. kernel: `KERNEL`.
    """
    height, width, channels = image.shape
    for row in range(sources.shape[0]):
        for column in range(sources.shape[1]):
            x, y = sources[row, column, 0], sources[row, column, 1]
            if math.isnan(x) or math.isnan(y):
                continue
            x0, y0 = math.floor(x), math.floor(y)
            wx = kernel[int((x - x0) * STEPS + 0.5)]
            wy = kernel[int((y - y0) * STEPS + 0.5)]
            for channel in range(channels):
                total = 0.0
                for j in range(TAPS):
                    source = min(height - 1, max(0, int(y0) + j - (TAPS // 2 - 1)))
                    line = 0.0
                    for i in range(TAPS):
                        at = min(width - 1, max(0, int(x0) + i - (TAPS // 2 - 1)))
                        line += wx[i] * image[source, at, channel]
                    total += wy[j] * line
                out[top + row, left + column, channel] = np.uint8(min(255.0, max(0.0, np.rint(total))))
