"""Motion measures over a sliding window of irregularly timed samples."""

from __future__ import annotations

import math

import numba
import numpy as np

from streamer.kernels.linear import solve_positive


@numba.njit(cache=True)
def mean_at(times: np.ndarray, values: np.ndarray, time_s: float, half_s: float, out: np.ndarray) -> float:
    """out (K,) = triangle-weighted mean of values (N, K) around time_s; returns the weights' sum.

    The weight is 1 - |t - time_s| / half_s. With half_s equal to the sampling interval this is linear
    interpolation; with a longer one it is interpolation and smoothing in one. A sum of 0 means that
    no sample lies near enough (out is then 0).

    times: (N,) increasing, seconds.
    """
    out[:] = 0.0
    total = 0.0
    index = np.searchsorted(times, time_s - half_s)
    while index < times.shape[0] and times[index] < time_s + half_s:
        weight = 1.0 - abs(times[index] - time_s) / half_s
        total += weight
        for k in range(values.shape[1]):
            out[k] += weight * values[index, k]
        index += 1
    if total > 0.0:
        for k in range(values.shape[1]):
            out[k] /= total
    return total


@numba.njit(cache=True)
def bump(
    times: np.ndarray,
    values: np.ndarray,
    time_s: float,
    lag_s: float,
    half_s: float,
    scratch: np.ndarray,
    out: np.ndarray,
) -> bool:
    """out (K,) = v(t) - (v(t - lag) + v(t + lag)) / 2, each v a `mean_at`; False where data lack.

    A movement that comes and goes within 2 lag passes whole; a lasting change of posture or a slow
    drift, linear over the window, is cancelled. scratch: (K,).
    """
    if mean_at(times, values, time_s, half_s, out) <= 0.0:
        return False
    for side in (-1.0, 1.0):
        if mean_at(times, values, time_s + side * lag_s, half_s, scratch) <= 0.0:
            return False
        for k in range(out.shape[0]):
            out[k] -= 0.5 * scratch[k]
    return True


@numba.njit(cache=True)
def node_lengths(vector: np.ndarray, out: np.ndarray) -> None:
    """out (N,) = length of each node's part of vector (2N,): x0, y0, x1, y1, ..."""
    for i in range(out.shape[0]):
        out[i] = math.hypot(vector[2 * i], vector[2 * i + 1])


@numba.njit(cache=True)
def top_rms(lengths: np.ndarray, noise: np.ndarray, count: int) -> float:
    """Root mean square of the `count` largest of lengths (N,) over noise (N,)."""
    ratios = lengths / noise
    ratios.sort()
    total = 0.0
    for k in range(count):
        total += ratios[ratios.shape[0] - 1 - k] ** 2
    return math.sqrt(total / count)


@numba.njit(cache=True)
def follow_noise(
    noise: np.ndarray, lengths: np.ndarray, step: float, smallest: float, largest: float
) -> None:
    """Move each noise (N,) towards the running median of lengths (N,), in place.

    A two-dimensional Gaussian of standard deviation s has a median length of s sqrt(2 ln 2). The
    estimate goes up by the factor exp(step) when a length lies above its median and down by it when
    below: a stochastic quantile in the log domain, which a brief large movement cannot drag away.
    """
    median = math.sqrt(2.0 * math.log(2.0))
    for i in range(noise.shape[0]):
        if lengths[i] > median * noise[i]:
            noise[i] *= math.exp(step)
        else:
            noise[i] *= math.exp(-step)
        noise[i] = min(max(noise[i], smallest), largest)


@numba.njit(cache=True)
def project(values: np.ndarray, base: np.ndarray, direction: np.ndarray, out: np.ndarray) -> None:
    """out (N,) = (values (N, K) - base (K,)) . direction (K,)."""
    for i in range(values.shape[0]):
        total = 0.0
        for k in range(values.shape[1]):
            total += (values[i, k] - base[k]) * direction[k]
        out[i] = total


@numba.njit(cache=True)
def amplitudes(times: np.ndarray, values: np.ndarray, curve: np.ndarray, out: np.ndarray) -> bool:
    """Least squares of values[:, k] = a + b t + out[k] curve: each component's share of an event.

    times (N,), values (N, K), curve (N,), out (K,). Every frame of the event adds to the estimate, and
    a linear drift under it is removed. False if the three regressors are not independent.
    """
    count = times.shape[0]
    normal = np.zeros((3, 3))
    row = np.empty(3)
    for i in range(count):
        row[0], row[1], row[2] = 1.0, times[i] - times[0], curve[i]
        for a in range(3):
            for b in range(3):
                normal[a, b] += row[a] * row[b]
    last = np.array([0.0, 0.0, 1.0])
    weights = np.empty(3)
    if not solve_positive(normal, last, weights):
        return False
    for k in range(values.shape[1]):
        total = 0.0
        for i in range(count):
            row[0], row[1], row[2] = 1.0, times[i] - times[0], curve[i]
            w = weights[0] * row[0] + weights[1] * row[1] + weights[2] * row[2]
            total += w * values[i, k]
        out[k] = total
    return True


@numba.njit(cache=True)
def flank(
    times: np.ndarray,
    curve: np.ndarray,
    apex: int,
    step: int,
    noise: float,
    tolerance: float,
    settle_s: float,
    needed: float,
) -> tuple[int, float]:
    """Walk from the apex down one side of an event's curve to where it settles.

    Args:
        times, curve: (N,) seconds and event curve; apex: index of the peak; step: -1 or +1.
        noise: standard deviation of the curve.
        tolerance: change counting as flat, as a share of the height descended so far.
        settle_s: how long the curve must stay flat. needed: fall below the peak that must be reached
            before it may settle at all.

    Returns:
        (state, level): state 0 settled, 1 rose again before it settled, 2 data ended; level of the floor.
    """
    peak = curve[apex]
    floor, at = peak, apex
    i = apex + step
    while 0 <= i < times.shape[0]:
        height = peak - floor
        margin = max(2.5 * noise, tolerance * height)
        if curve[i] < floor - margin or (curve[i] < floor and at == apex):
            floor, at = curve[i], i
        if height >= needed:
            if curve[i] > floor + max(4.0 * noise, 0.3 * height):
                return 1, floor
            if abs(times[i] - times[at]) >= settle_s:
                total, count = 0.0, 0
                j = at
                while j != i + step:
                    total += curve[j]
                    count += 1
                    j += step
                return 0, total / count
        i += step
    return 2, floor


@numba.njit(cache=True)
def crossing(times: np.ndarray, curve: np.ndarray, apex: int, step: int, level: float) -> float:
    """Time at which the curve first falls to `level`, walking from the apex; interpolated."""
    i = apex
    while 0 <= i + step < times.shape[0]:
        j = i + step
        if curve[j] <= level:
            share = (curve[i] - level) / (curve[i] - curve[j]) if curve[i] > curve[j] else 1.0
            return times[i] + share * (times[j] - times[i])
        i = j
    return times[i]


@numba.njit(cache=True)
def smooth(times: np.ndarray, curve: np.ndarray, half_s: float, out: np.ndarray) -> None:
    """out (N,) = curve (N,) averaged with triangular weights of half width half_s around each sample."""
    start = 0
    for i in range(times.shape[0]):
        while times[start] <= times[i] - half_s:
            start += 1
        total, weights = 0.0, 0.0
        j = start
        while j < times.shape[0] and times[j] < times[i] + half_s:
            w = 1.0 - abs(times[j] - times[i]) / half_s
            total += w * curve[j]
            weights += w
            j += 1
        out[i] = total / weights
