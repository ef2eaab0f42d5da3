"""The face's relief: how the whole picture of a face changes when the head turns.

A patch of skin does not only move with the head: it foreshortens, and where it slopes, as on the ridge of
the nose, its halves move apart. The reference picture is therefore shown as the turned head would look.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from streamer.kernels.registration import move_point


@numba.njit(cache=True, nogil=True)
def splat_depth(
    points: np.ndarray, left: float, top: float, step: float, near: float, far: float, out: np.ndarray
) -> None:
    """Depth of the skin on a grid: the weighted mean of the points close by.

    Args:
        points: (M, 3) x, y, depth, IOD.
        left, top, step: place of the first grid point and distance between grid points, IOD.
        near: reach of a point, IOD. far: the same where no point is near; there one point in eight counts.
        out: (rows, columns) depth, IOD.
    """
    rows, columns = out.shape
    weights = np.full((rows, columns), 1e-9)
    out[:] = 0.0
    for i in range(points.shape[0]):
        for wide in range(2):
            if wide and i % 8:
                continue
            reach = far if wide else near
            share = 1e-4 if wide else 1.0
            x, y = points[i, 0] - left, points[i, 1] - top
            for row in range(
                max(0, math.ceil((y - reach) / step)), min(rows, math.floor((y + reach) / step) + 1)
            ):
                dy = row * step - y
                for column in range(
                    max(0, math.ceil((x - reach) / step)), min(columns, math.floor((x + reach) / step) + 1)
                ):
                    dx = column * step - x
                    w = 1.0 - (dx * dx + dy * dy) / (reach * reach)
                    if w > 0.0:
                        w *= w * share
                        weights[row, column] += w
                        out[row, column] += w * points[i, 2]
    out /= weights


@numba.njit(cache=True, nogil=True)
def look_up(grid: np.ndarray, x: float, y: float) -> float:
    """Value of grid (rows, columns) at (x, y), in grid steps, bilinear; outside, that of the edge."""
    rows, columns = grid.shape
    x, y = min(max(x, 0.0), columns - 1.001), min(max(y, 0.0), rows - 1.001)
    column, row = int(x), int(y)
    a, b = x - column, y - row
    upper = (1 - a) * grid[row, column] + a * grid[row, column + 1]
    lower = (1 - a) * grid[row + 1, column] + a * grid[row + 1, column + 1]
    return (1 - b) * upper + b * lower


@numba.njit(cache=True, nogil=True)
def turn_back(
    depth: np.ndarray,
    left: float,
    top: float,
    step: float,
    params: np.ndarray,
    out: np.ndarray,
) -> None:
    """For each point of a grid, where the skin that is seen there after the head's motion was before it.

    Args:
        depth: (rows, columns) of `splat_depth`; left, top, step as there.
        params: (8,) of the head model.
        out: (2, rows, columns) x and y in steps of the grid.
    """
    rows, columns = depth.shape
    for row in range(rows):
        for column in range(columns):
            qx, qy = left + column * step, top + row * step
            x, y = qx, qy
            for _ in range(4):
                z = look_up(depth, (x - left) / step, (y - top) / step)
                u, v, _ = move_point(x, y, z, params)
                x += qx - u
                y += qy - v
            out[0, row, column], out[1, row, column] = (x - left) / step, (y - top) / step


@numba.njit(cache=True, nogil=True)
def show_turned(picture: np.ndarray, back: np.ndarray, step_px: float, out: np.ndarray) -> None:
    """The picture (H, W) uint8 as the turned head shows it, in out (H, W) uint8.

    back: (2, rows, columns) of `turn_back`, on a grid of `step_px` pixels whose first point is pixel (0, 0).
    """
    height, width = picture.shape
    rows, columns = back.shape[1:]
    cell, share = np.empty(width, np.int64), np.empty(width, np.float32)
    for c in range(width):
        u = min(c / step_px, columns - 1.001)
        cell[c] = int(u)
        share[c] = u - int(u)
    line = np.empty((2, columns), np.float32)  # the grid between two of its rows, pixels
    most_x, most_y, zero = np.float32(width - 1.01), np.float32(height - 1.01), np.float32(0)
    for r in range(height):
        v = min(r / step_px, rows - 1.001)
        row = int(v)
        for axis in range(2):
            upper, lower = back[axis, row], back[axis, row + 1]
            for column in range(columns):
                line[axis, column] = step_px * (upper[column] + (v - row) * (lower[column] - upper[column]))
        for c in range(width):
            k, a = cell[c], share[c]
            x = line[0, k] + a * (line[0, k + 1] - line[0, k])
            y = line[1, k] + a * (line[1, k + 1] - line[1, k])
            x, y = min(max(x, zero), most_x), min(max(y, zero), most_y)
            left, top = np.uint32(x), np.uint32(y)
            fx, fy = x - np.float32(left), y - np.float32(top)
            p00, p01 = np.float32(picture[top, left]), np.float32(picture[top, left + np.uint32(1)])
            p10 = np.float32(picture[top + np.uint32(1), left])
            p11 = np.float32(picture[top + np.uint32(1), left + np.uint32(1)])
            above, below = p00 + fx * (p01 - p00), p10 + fx * (p11 - p10)
            out[r, c] = np.uint8(above + fy * (below - above) + np.float32(0.5))


@numba.njit(cache=True, nogil=True)
def turn_points(
    points: np.ndarray,
    depth: np.ndarray,
    left: float,
    top: float,
    step: float,
    params: np.ndarray,
    back: np.ndarray,
    turned: np.ndarray,
    origin: np.ndarray,
) -> None:
    """Where points (P, 3) are seen after the head's motion: turned (P, 2), and from where `turn_back` says
    that they came: origin (P, 2), all in steps of the grid."""
    for i in range(points.shape[0]):
        x, y = points[i, 0], points[i, 1]
        z = look_up(depth, (x - left) / step, (y - top) / step)
        x, y, _ = move_point(x, y, z, params)
        u, v = (x - left) / step, (y - top) / step
        turned[i, 0], turned[i, 1] = u, v
        origin[i, 0], origin[i, 1] = look_up(back[0], u, v), look_up(back[1], u, v)


@numba.njit(cache=True, nogil=True)
def steepness(
    points: np.ndarray, depth: np.ndarray, left: float, top: float, step: float, out: np.ndarray
) -> None:
    """out (P,) = how steeply the depth changes at points (P, 3): the length of its gradient."""
    for i in range(points.shape[0]):
        x, y = (points[i, 0] - left) / step, (points[i, 1] - top) / step
        across = look_up(depth, x + 1, y) - look_up(depth, x - 1, y)
        down = look_up(depth, x, y + 1) - look_up(depth, x, y - 1)
        out[i] = math.hypot(across, down) / (2 * step)
