"""Lucas-Kanade matching of small patches, one reference picture matched with many others.

Lucas and Kanade 1981, "An iterative image registration technique with an application to stereo vision",
in the inverse form of Baker and Matthews 2004, "Lucas-Kanade 20 years on": the gradients are those of the
reference, so they are taken once a reference and not once a frame.
"""

from __future__ import annotations

import math

import numba
import numpy as np

LEAST_EIGENVALUE = 0.1
"""Smallest mean squared gradient, in the patch's worst direction, that can be matched (grey levels / px)."""

CLOSE_ENOUGH = 0.01
"""Distance (px) from the answer that ends the iteration: what is left of it is extrapolated."""

OSCILLATION = 0.01
"""Two steps (px) that undo each other to within this end the iteration halfway."""


@numba.njit(cache=True, nogil=True)
def _bilinear(x: float, y: float) -> tuple[float, float, float, float]:
    """Weights, float32, of the pixels at (0, 0), (1, 0), (0, 1) and (1, 1) for the value at (x, y)."""
    a, b, c = (1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y
    return np.float32(a), np.float32(b), np.float32(c), np.float32(x * y)  # pyright: ignore[reportReturnType]


@numba.njit(cache=True, nogil=True)
def cut_patches(
    picture: np.ndarray, points: np.ndarray, patches: np.ndarray, gradients: np.ndarray, inverse: np.ndarray
) -> None:
    """Cut the patches that `match_patches` compares with.

    Args:
        picture: (H, W) uint8.
        points: (P, 2) float32 centres, pixels.
        patches: (P, S, S) float32 out: grey levels around each point, S odd.
        gradients: (P, 2, S, S) float32 out: their x and y derivatives (Scharr), grey levels / px.
        inverse: (P, 3) float64 out: inverse of the normal matrix, xx, xy, yy; NaN if it has none.
    """
    height, width = picture.shape
    side = patches.shape[1]
    half = (side - 1) // 2
    # Pixels and their derivatives before interpolation; the pixels have a border for the derivatives.
    block = np.empty((side + 3, side + 3), np.float32)
    slopes = np.empty((2, side + 1, side + 1), np.float32)
    near, far = np.float32(3 / 32), np.float32(10 / 32)
    for i in range(points.shape[0]):
        x, y = points[i, 0] - half, points[i, 1] - half
        left, top = math.floor(x), math.floor(y)
        for row in range(side + 3):
            line = picture[min(max(top - 1 + row, 0), height - 1)]
            for column in range(side + 3):
                block[row, column] = line[min(max(left - 1 + column, 0), width - 1)]
        for row in range(side + 1):
            above, here, below = block[row], block[row + 1], block[row + 2]
            for k in range(side + 1):
                corners = below[k + 2] - above[k]
                slopes[0, row, k] = near * (corners + above[k + 2] - below[k]) + far * (here[k + 2] - here[k])
                slopes[1, row, k] = near * (corners - above[k + 2] + below[k]) + far * (
                    below[k + 1] - above[k + 1]
                )
        a, b, c, d = _bilinear(x - left, y - top)
        sum_x, sum_y = 0.0, 0.0
        sum_t, sum_tt, sum_tx, sum_ty = 0.0, 0.0, 0.0, 0.0
        for row in range(side):
            upper, lower = block[row + 1], block[row + 2]
            for k in range(side):
                patches[i, row, k] = a * upper[k + 1] + b * upper[k + 2] + c * lower[k + 1] + d * lower[k + 2]
            for axis in range(2):
                upper, lower = slopes[axis, row], slopes[axis, row + 1]
                for k in range(side):
                    gradients[i, axis, row, k] = (
                        a * upper[k] + b * upper[k + 1] + c * lower[k] + d * lower[k + 1]
                    )
            for k in range(side):
                t = np.float64(patches[i, row, k])
                gx, gy = np.float64(gradients[i, 0, row, k]), np.float64(gradients[i, 1, row, k])
                sum_x += gx
                sum_y += gy
                sum_t += t
                sum_tt += t * t
                sum_tx += t * gx
                sum_ty += t * gy
        # What a change of the patch's light would look like is taken out of the derivatives.
        n = side * side
        mean_x, mean_y, mean_t = sum_x / n, sum_y / n, sum_t / n
        tt = sum_tt - n * mean_t * mean_t + 1.0
        gain_x, gain_y = (sum_tx - n * mean_t * mean_x) / tt, (sum_ty - n * mean_t * mean_y) / tt
        gxx, gxy, gyy = 0.0, 0.0, 0.0
        for row in range(side):
            for k in range(side):
                t = patches[i, row, k] - mean_t
                gx = gradients[i, 0, row, k] - mean_x - gain_x * t
                gy = gradients[i, 1, row, k] - mean_y - gain_y * t
                gradients[i, 0, row, k] = gx
                gradients[i, 1, row, k] = gy
                gxx += gx * gx
                gxy += gx * gy
                gyy += gy * gy
        least = 0.5 * (gxx + gyy - math.sqrt((gxx - gyy) ** 2 + 4 * gxy * gxy))
        if least < LEAST_EIGENVALUE * side * side:
            inverse[i, :] = np.nan
            continue
        determinant = gxx * gyy - gxy * gxy
        inverse[i, 0] = gyy / determinant
        inverse[i, 1] = -gxy / determinant
        inverse[i, 2] = gxx / determinant


@numba.njit(cache=True, nogil=True)
def structure(picture: np.ndarray, points: np.ndarray, side: int, out: np.ndarray) -> None:
    """Structure tensor of the patch around each point: how well it can be matched, in each direction.

    Förstner and Gülch 1987, "A fast operator for detection and precise location of distinct points".

    Args:
        picture: (H, W) uint8, smoothed.
        points: (P, 2) float32 centres, pixels; the nearest pixel is taken, and the nearest in the picture.
        side: of the patch, pixels, odd; what of it lies outside the picture is left out.
        out: (P, 3) float64 out: means over the patch of gx gx, gx gy, gy gy (Sobel derivatives).
    """
    height, width = picture.shape
    half = side // 2
    for i in range(points.shape[0]):
        column = min(max(round(points[i, 0]), 0), width - 1)
        row = min(max(round(points[i, 1]), 0), height - 1)
        top, bottom = max(1, row - half), min(height - 1, row + half + 1)
        left, right = max(1, column - half), min(width - 1, column + half + 1)
        xx, xy, yy = np.int64(0), np.int64(0), np.int64(0)
        for r in range(top, bottom):
            above, here, below = picture[r - 1], picture[r], picture[r + 1]
            for c in range(left, right):
                corners = np.int32(below[c + 1]) - np.int32(above[c - 1])
                across = np.int32(above[c + 1]) - np.int32(below[c - 1])
                gx = corners + across + 2 * (np.int32(here[c + 1]) - np.int32(here[c - 1]))
                gy = corners - across + 2 * (np.int32(below[c]) - np.int32(above[c]))
                xx += gx * gx
                xy += gx * gy
                yy += gy * gy
        count = max(1, (bottom - top) * (right - left))
        out[i, 0], out[i, 1], out[i, 2] = xx / count, xy / count, yy / count


@numba.njit(cache=True, nogil=True)
def match_patches(
    picture: np.ndarray,
    patches: np.ndarray,
    gradients: np.ndarray,
    inverse: np.ndarray,
    iterations: int,
    points: np.ndarray,
    error: np.ndarray,
) -> None:
    """Find each patch in the picture.

    Args:
        picture: (H, W) uint8.
        patches, gradients, inverse: of `cut_patches`.
        iterations: steps at most.
        points: (P, 2) float32 in: where to begin, pixels; out: where the patch is.
        error: (P,) float32 out: mean absolute difference of grey levels before the last step; infinity
            where the patch cannot be matched or left the picture.
    """
    height, width = picture.shape
    side = patches.shape[1]
    half = (side - 1) // 2
    upper = np.empty(side, np.float32)
    for i in range(points.shape[0]):
        error[i] = np.inf
        if math.isnan(inverse[i, 0]):
            continue
        x, y = float(points[i, 0]) - half, float(points[i, 1]) - half
        last_x, last_y, last = 0.0, 0.0, 0.0
        for _ in range(iterations):
            if not (-side <= x < width and -side <= y < height):
                error[i] = np.inf
                break
            if 0 <= x < width - side - 1 and 0 <= y < height - side - 1:
                right, down, error[i] = _mismatch(picture, x, y, patches[i], gradients[i], upper)
            else:
                right, down, error[i] = _mismatch_at_edge(picture, x, y, patches[i], gradients[i])
            dx = -(inverse[i, 0] * right + inverse[i, 1] * down)
            dy = -(inverse[i, 1] * right + inverse[i, 2] * down)
            x += dx
            y += dy
            size = math.hypot(dx, dy)
            if size <= CLOSE_ENOUGH:
                break
            # Steps shrink geometrically: the sum of those to come (Aitken 1926), where that is little.
            if size < 0.5 * last and size * size <= CLOSE_ENOUGH * last:
                ratio = (dx * last_x + dy * last_y) / (last * last)
                x += dx * ratio / (1.0 - ratio)
                y += dy * ratio / (1.0 - ratio)
                break
            if abs(dx + last_x) < OSCILLATION and abs(dy + last_y) < OSCILLATION:
                x -= 0.5 * dx
                y -= 0.5 * dy
                break
            last_x, last_y, last = dx, dy, size
        points[i, 0], points[i, 1] = x + half, y + half


# Always inlined: left to itself the compiler rounds differently in a first run than in one from the cache.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, forceinline=True)
def _mismatch(
    picture: np.ndarray, x: float, y: float, patch: np.ndarray, gradient: np.ndarray, upper: np.ndarray
) -> tuple[float, float, float]:
    """How the picture from (x, y) on (bilinear) differs from a patch; all of it lies in the picture.

    upper: (S,) scratch, a row interpolated along x.

    Returns:
        Sums of difference times gradient in x and in y, and the mean absolute difference.
    """
    side = patch.shape[0]
    left, top = math.floor(x), math.floor(y)
    fx, fy = np.float32(x - left), np.float32(y - top)
    ax, ay = np.float32(1) - fx, np.float32(1) - fy
    right, down, total = np.float32(0), np.float32(0), np.float32(0)
    line = picture[top, left : left + side + 1]
    for column in range(side):
        upper[column] = ax * np.float32(line[column]) + fx * np.float32(line[column + 1])
    for row in range(side):
        line = picture[top + row + 1, left : left + side + 1]
        wanted, gx, gy = patch[row], gradient[0, row], gradient[1, row]
        for column in range(side):
            lower = ax * np.float32(line[column]) + fx * np.float32(line[column + 1])
            difference = ay * upper[column] + fy * lower - wanted[column]
            upper[column] = lower
            right += difference * gx[column]
            down += difference * gy[column]
            total += abs(difference)
    return right, down, total / np.float32(side * side)  # pyright: ignore[reportReturnType]


@numba.njit(cache=True, nogil=True)
def _mismatch_at_edge(
    picture: np.ndarray, x: float, y: float, patch: np.ndarray, gradient: np.ndarray
) -> tuple[float, float, float]:
    """`_mismatch` where a part lies beyond the picture's edge: there the edge is repeated."""
    height, width = picture.shape
    side = patch.shape[0]
    left, top = math.floor(x), math.floor(y)
    fx, fy = np.float32(x - left), np.float32(y - top)
    ax, ay = np.float32(1) - fx, np.float32(1) - fy
    right, down, total = np.float32(0), np.float32(0), np.float32(0)
    for row in range(side):
        r0, r1 = min(max(top + row, 0), height - 1), min(max(top + row + 1, 0), height - 1)
        for column in range(side):
            s0, s1 = min(max(left + column, 0), width - 1), min(max(left + column + 1, 0), width - 1)
            seen = ay * (ax * picture[r0, s0] + fx * picture[r0, s1])
            seen += fy * (ax * picture[r1, s0] + fx * picture[r1, s1])
            difference = np.float32(seen) - patch[row, column]
            right += difference * gradient[0, row, column]
            down += difference * gradient[1, row, column]
            total += abs(difference)
    return right, down, total / np.float32(side * side)  # pyright: ignore[reportReturnType]
