"""Measures of whole grey pictures."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def quarter_means(picture: np.ndarray, out: np.ndarray) -> None:
    """out (4,) = mean of the quarters of picture (H, W) uint8, row by row; of odd sides the first half is
    the longer."""
    height, width = picture.shape
    middle_row, middle_column = (height + 1) // 2, (width + 1) // 2
    for half in range(2):
        start, stop = (0, middle_row) if half == 0 else (middle_row, height)
        left, right = 0, 0
        for row in range(start, stop):
            # A row's sum fits into 32 bits, which the processor adds eight at a time.
            first, second = np.uint32(0), np.uint32(0)
            for value in picture[row, :middle_column]:
                first += np.uint32(value)
            for value in picture[row, middle_column:]:
                second += np.uint32(value)
            left += first
            right += second
        rows = max(1, stop - start)
        out[2 * half] = left / (rows * middle_column)
        out[2 * half + 1] = right / (rows * max(1, width - middle_column))


@numba.njit(cache=True)
def likeness(patch: np.ndarray, template: np.ndarray) -> float:
    """Correlation coefficient (-1..1) of two equally large patches of any number type; 0 if one is flat."""
    count = patch.size
    a, b = patch.ravel(), template.ravel()
    mean_a, mean_b = 0.0, 0.0
    for i in range(count):
        mean_a += a[i]
        mean_b += b[i]
    mean_a, mean_b = mean_a / count, mean_b / count
    aa, bb, ab = 0.0, 0.0, 0.0
    for i in range(count):
        u, v = a[i] - mean_a, b[i] - mean_b
        aa += u * u
        bb += v * v
        ab += u * v
    return ab / np.sqrt(aa * bb) if aa > 0.0 and bb > 0.0 else 0.0
