"""Motion measures over a sliding window of irregularly timed samples."""

from __future__ import annotations

import math

import numba
import numpy as np

from streamer.kernels.linear import solve_positive


@numba.njit(cache=True)
def node_lengths(vector: np.ndarray, out: np.ndarray) -> None:
    """out (N,) = length of each node's part of vector (2N,): x0, y0, x1, y1, ..."""
    for i in range(out.shape[0]):
        out[i] = math.hypot(vector[2 * i], vector[2 * i + 1])


@numba.njit(cache=True)
def top_rms(response: np.ndarray, noise: np.ndarray, count: int) -> float:
    """Root mean square, over the `count` nodes of most evidence, of response (2N,) over noise (2N,)."""
    nodes = response.shape[0] // 2
    squares = np.empty(nodes)
    for i in range(nodes):
        x, y = response[2 * i] / noise[2 * i], response[2 * i + 1] / noise[2 * i + 1]
        squares[i] = 0.5 * (x * x + y * y)
    squares.sort()
    total = 0.0
    taken = min(count, nodes)
    for k in range(taken):
        total += squares[nodes - 1 - k]
    return math.sqrt(total / taken)


@numba.njit(cache=True)
def follow_noise(noise: np.ndarray, values: np.ndarray, step: float, smallest: float, largest: float) -> None:
    """Move each noise (N,) towards the running scale of values (N,), in place.

    The median size of a Gaussian variable is 0.6745 of its standard deviation. The estimate goes up by the
    factor exp(step) when a value lies above it and down by it when below: a stochastic quantile in the log
    domain, which a brief large movement cannot drag away.
    """
    up, down = math.exp(step), math.exp(-step)
    for i in range(noise.shape[0]):
        noise[i] *= up if abs(values[i]) > 0.6745 * noise[i] else down
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
def course(time_s: float, onset_s: float, apex_s: float, offset_s: float) -> tuple[float, float]:
    """How much of an expression's rise and of its fall is done at a time, each 0..1: raised cosines."""
    rise, fall = 1.0, 0.0
    if time_s <= onset_s:
        rise = 0.0
    elif time_s < apex_s:
        rise = 0.5 - 0.5 * math.cos(math.pi * (time_s - onset_s) / (apex_s - onset_s))
    if time_s >= offset_s:
        fall = 1.0
    elif time_s > apex_s:
        fall = 0.5 - 0.5 * math.cos(math.pi * (time_s - apex_s) / (offset_s - apex_s))
    return rise, fall


@numba.njit(cache=True)
def course_curve(times: np.ndarray, shape: np.ndarray, fall: float, out: np.ndarray) -> None:
    """out (N,) = course at times (N,): 0 before shape[0], 1 at shape[1], 1 - fall from shape[2] on."""
    for i in range(times.shape[0]):
        rise, fallen = course(times[i], shape[0], shape[1], shape[2])
        out[i] = rise - fall * fallen


@numba.njit(cache=True)
def bump_weights(times: np.ndarray, centre_s: float, half_s: float, out: np.ndarray) -> float:
    """Fill out (N,) with the weights of a matched filter; returns its noise gain, 0 where data lack.

    sum(out v) is the least-squares height of a bump in v: a raised cosine of half width half_s around
    centre_s, over a straight line. A lasting offset and a slow drift are cancelled. White noise of standard
    deviation 1 in v gives a height of standard deviation `gain` = sqrt(sum(out^2)).

    times: (N,) increasing, seconds: the bump and some of the quiet on both sides.
    """
    count = times.shape[0]
    normal = np.zeros((3, 3))
    row = np.empty(3)
    inside = 0
    for i in range(count):
        t = times[i] - centre_s
        row[0], row[1], row[2] = 1.0, t / half_s, 0.0
        if abs(t) < half_s:
            row[2] = 0.5 + 0.5 * math.cos(math.pi * t / half_s)
            inside += 1
        for a in range(3):
            for b in range(3):
                normal[a, b] += row[a] * row[b]
    last = np.array([0.0, 0.0, 1.0])
    solution = np.empty(3)
    if inside < 3 or count - inside < 4 or not solve_positive(normal, last, solution):
        return 0.0
    total = 0.0
    for i in range(count):
        t = times[i] - centre_s
        out[i] = solution[0] + solution[1] * t / half_s
        if abs(t) < half_s:
            out[i] += solution[2] * (0.5 + 0.5 * math.cos(math.pi * t / half_s))
        total += out[i] * out[i]
    return math.sqrt(total)


@numba.njit(cache=True)
def bump_heights(
    times: np.ndarray, values: np.ndarray, centre_s: float, half_s: float, out: np.ndarray
) -> float:
    """out (K,) = height of a bump in each column of values (N, K); returns the noise gain, 0 where data lack.
    See `bump_weights`."""
    weights = np.empty(times.shape[0])
    gain = bump_weights(times, centre_s, half_s, weights)
    if gain > 0.0:
        out[:] = 0.0
        for i in range(values.shape[0]):
            for k in range(values.shape[1]):
                out[k] += weights[i] * values[i, k]
    return gain


@numba.njit(cache=True)
def _course_error(
    times: np.ndarray, curve: np.ndarray, shape: np.ndarray, stiffness: float, level: np.ndarray
) -> float:
    """Least squares of curve = level[0] + level[3] t + level[1] rise - level[2] fall, where t is the time
    since the apex; returns the squared error's sum. stiffness: see `fit_course`."""
    normal = np.zeros((4, 4))
    right = np.zeros(4)
    row = np.empty(4)
    square = 0.0
    for i in range(times.shape[0]):
        rise, fall = course(times[i], shape[0], shape[1], shape[2])
        row[0], row[1], row[2], row[3] = 1.0, rise, -fall, times[i] - shape[1]
        for a in range(4):
            right[a] += row[a] * curve[i]
            for b in range(a + 1):
                normal[a, b] += row[a] * row[b]
        square += curve[i] * curve[i]
    for a in range(3):
        normal[a, a] += 1e-9
    normal[3, 3] *= 1.0 + stiffness
    if not solve_positive(normal, right, level):
        return np.inf
    error = square
    for a in range(4):
        error -= level[a] * right[a]
    return max(0.0, error)


@numba.njit(cache=True)
def fit_course(
    times: np.ndarray,
    curve: np.ndarray,
    least_s: float,
    most_s: float,
    stiffness: float,
    shape: np.ndarray,
    level: np.ndarray,
) -> float:
    """Fit onset, apex and offset to an event's curve; returns the squared error's sum.

    The curve is level[0] before the onset, rises by level[1] to the apex and falls by level[2] to the
    offset (`course`), all on a drift of level[3] a second. The three times are found by pattern search,
    the levels by least squares at each step.

    Args:
        times, curve: (N,).
        least_s, most_s: bounds of the time from onset to apex and from apex to offset.
        stiffness: how much the drift is held back, as a share of its own information: a ridge.
        shape: (3,) onset, apex, offset in seconds; in: where to begin, out: the fit.
        level: (4,) out.
    """
    best = _course_error(times, curve, shape, stiffness, level)
    trial, trial_level = shape.copy(), level.copy()
    step = 0.5 * max(shape[1] - shape[0], shape[2] - shape[1])
    while step > 0.1 * least_s:
        improved = False
        for k in range(4):
            for sign in (-1.0, 1.0):
                trial[:] = shape
                if k < 3:
                    trial[k] += sign * step
                else:  # all three together
                    trial += sign * step
                rise_s, fall_s = trial[1] - trial[0], trial[2] - trial[1]
                if min(rise_s, fall_s) < least_s or max(rise_s, fall_s) > most_s:
                    continue
                error = _course_error(times, curve, trial, stiffness, trial_level)
                if error < best * (1.0 - 1e-6) and trial_level[1] > 0.0:
                    best = error
                    shape[:] = trial
                    level[:] = trial_level
                    improved = True
        if not improved:
            step *= 0.5
    return best
