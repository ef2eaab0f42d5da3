"""The windowed motion measures against their plain twins, and their invariances."""

from __future__ import annotations

import naive
import numpy as np
import pytest

from streamer.kernels import windows


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray]:
    """Irregular times and six-component values."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.004, 0.05, 90))
    return times, rng.normal(size=(90, 6)).cumsum(0)


@pytest.mark.parametrize("half_s", [0.03, 0.1, 0.4])
def test_mean_at_equals_its_twin(samples, half_s):
    times, values = samples
    out = np.empty(6)
    for time_s in (times[0], times[40] + 0.01, times[-1], times[-1] + 10):
        total = windows.mean_at(times, values, time_s, half_s, out)
        expected, expected_total = naive.mean_at(times, values, time_s, half_s)
        assert total == pytest.approx(expected_total)
        np.testing.assert_allclose(out, expected, atol=1e-12)


def test_mean_at_is_linear_interpolation_at_the_sampling_interval():
    times = np.arange(10) / 30
    values = (times**2)[:, None]
    out = np.empty(1)
    windows.mean_at(times, values, times[4] + 0.25 / 30, 1 / 30, out)
    assert out[0] == pytest.approx(0.75 * values[4, 0] + 0.25 * values[5, 0])


def test_bump_equals_its_twin_and_cancels_drift(samples):
    times, values = samples
    out, scratch = np.empty(6), np.empty(6)
    assert windows.bump(times, values, times[45], 0.3, 0.06, scratch, out)
    np.testing.assert_allclose(out, naive.bump(times, values, times[45], 0.3, 0.06), atol=1e-12)
    steady = np.arange(90) / 30
    drift = steady[:, None] * np.linspace(-1, 1, 6)
    assert windows.bump(steady, drift, steady[45], 0.3, 0.05, scratch, out)
    np.testing.assert_allclose(out, 0, atol=1e-12)


def test_bump_reports_missing_data(samples):
    times, values = samples
    out, scratch = np.empty(6), np.empty(6)
    assert not windows.bump(times, values, times[0], 0.3, 0.03, scratch, out)
    assert not windows.bump(times, values, times[-1] + 5, 0.3, 0.03, scratch, out)


@pytest.mark.parametrize("fps", [25, 30, 60, 200])
def test_bump_does_not_depend_on_the_frame_rate(fps):
    times = np.arange(0, 2, 1 / fps)
    pulse = np.exp(-(((times - 1) / 0.06) ** 2))[:, None]
    out, scratch = np.empty(1), np.empty(1)
    windows.bump(times, pulse, 1.0, 0.28, max(0.016, 1.2 / fps), scratch, out)
    assert out[0] == pytest.approx(1.0, abs=0.12)


def test_noise_follows_the_median_and_ignores_a_brief_burst():
    rng = np.random.default_rng(0)
    noise = np.full(14, 0.01)
    for i in range(1500):
        lengths = np.hypot(*rng.normal(0, 0.002, (2, 14)))
        if 700 <= i < 730:
            lengths += 0.5
        windows.follow_noise(noise, lengths, 0.02, 1e-5, 1.0)
    assert noise.mean() == pytest.approx(0.002, rel=0.15)


def test_noise_stays_between_its_bounds():
    noise = np.full(2, 0.01)
    for _ in range(500):
        windows.follow_noise(noise, np.array([0.0, 9.0]), 0.1, 0.001, 0.1)
    np.testing.assert_allclose(noise, [0.001, 0.1])


def test_top_rms_and_lengths():
    lengths = np.empty(3)
    windows.node_lengths(np.array([3.0, 4.0, 0.0, 1.0, 6.0, 8.0]), lengths)
    np.testing.assert_allclose(lengths, [5, 1, 10])
    noise = np.array([1.0, 1.0, 2.0])
    assert windows.top_rms(lengths, noise, 2) == pytest.approx(5.0)
    np.testing.assert_allclose(lengths, [5, 1, 10])  # the caller's array stays as it was


def test_amplitudes_equal_least_squares_and_remove_drift(samples):
    times, values = samples
    curve = np.exp(-(((times - times[45]) / 0.1) ** 2))
    out = np.empty(6)
    assert windows.amplitudes(times, values, curve, out)
    np.testing.assert_allclose(out, naive.amplitudes(times, values, curve), atol=1e-9)
    truth = np.arange(6.0)
    moved = 3 + 2 * times[:, None] + curve[:, None] * truth
    assert windows.amplitudes(times, moved, curve, out)
    np.testing.assert_allclose(out, truth, atol=1e-9)


def test_amplitudes_refuse_a_straight_curve():
    times = np.arange(9.0)
    assert not windows.amplitudes(times, np.zeros((9, 2)), 2 * times, np.empty(2))


def _pulse(fps: float, rise: float, fall: float, residual: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(0, 2, 1 / fps)
    up = np.clip((times - 0.5) / rise, 0, 1)
    down = np.clip((times - 0.5 - rise) / fall, 0, 1) * (1 - residual)
    return times, up - down


@pytest.mark.parametrize("fps", [30, 200])
def test_flank_finds_both_floors(fps):
    times, curve = _pulse(fps, 0.2, 0.3, residual=0.2)
    apex = int(curve.argmax())
    state, level = windows.flank(times, curve, apex, -1, 0.001, 0.08, 0.1, 0.0)
    assert (state, round(level, 2)) == (0, 0.0)
    state, level = windows.flank(times, curve, apex, 1, 0.001, 0.08, 0.1, 0.5)
    assert state == 0
    assert level == pytest.approx(0.2, abs=0.03)


def test_flank_waits_for_a_return_that_has_not_come():
    times, curve = _pulse(30, 0.2, 0.3)
    end = int(curve.argmax()) + 4
    assert windows.flank(times[:end], curve[:end], end - 4, 1, 0.001, 0.08, 0.1, 0.5)[0] == 2


def test_crossing_is_interpolated_and_smooth_keeps_a_line():
    times, curve = _pulse(30, 0.2, 0.3)
    apex = int(curve.argmax())
    assert windows.crossing(times, curve, apex, -1, 0.5) == pytest.approx(0.6, abs=0.005)
    assert windows.crossing(times, curve, apex, 1, 0.5) == pytest.approx(0.85, abs=0.01)
    line, out = times * 2, np.empty_like(times)
    windows.smooth(times, line, 0.1, out)
    np.testing.assert_allclose(out[5:-5], line[5:-5], atol=1e-12)


def test_project():
    rng = np.random.default_rng(1)
    values, base, direction = rng.normal(size=(8, 6)), rng.normal(size=6), rng.normal(size=6)
    out = np.empty(8)
    windows.project(values, base, direction, out)
    np.testing.assert_allclose(out, (values - base) @ direction)
