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


@pytest.mark.parametrize(("centre_s", "half_s"), [(1.0, 0.3), (1.3, 0.12)])
def test_the_matched_filter_is_least_squares(samples, centre_s, half_s):
    times, values = samples
    weights, out = np.empty(90), np.empty(6)
    gain = windows.bump_heights(times, values, centre_s, half_s, out)
    assert gain == windows.bump_weights(times, centre_s, half_s, weights)
    np.testing.assert_allclose(out, naive.bump_height(times, values, centre_s, half_s), atol=1e-9)
    assert gain == pytest.approx(np.linalg.norm(weights))


def test_no_more_nodes_count_than_there_are():
    response, noise = np.ones(4), np.ones(4)
    assert windows.top_rms(response, noise, 30) == pytest.approx(1.0)


def test_the_matched_filter_cancels_drift_and_finds_a_bump(samples):
    times, _ = samples
    out = np.empty(2)
    bump = np.where(abs(times - 1.1) < 0.2, 0.5 + 0.5 * np.cos(np.pi * (times - 1.1) / 0.2), 0.0)
    windows.bump_heights(times, np.stack([3.0 + 2.0 * times, 0.7 * bump - times], 1), 1.1, 0.2, out)
    np.testing.assert_allclose(out, [0.0, 0.7], atol=1e-9)


def test_the_matched_filter_says_when_data_lack():
    weights = np.empty(30)
    times = np.arange(30) / 30
    assert windows.bump_weights(times, 0.5, 0.02, weights) == 0.0  # one sample in the bump
    assert windows.bump_weights(times, 0.5, 0.6, weights) == 0.0  # no quiet beside it


@pytest.mark.parametrize("drift", [0.0, 0.6])
@pytest.mark.parametrize("fps", [25, 30, 60, 200])
def test_a_course_on_a_drift_is_fitted_at_any_frame_rate(fps, drift):
    rng = np.random.default_rng(8)
    times = np.arange(0, 1.2, 1 / fps)
    truth, curve = np.array([0.4, 0.55, 0.82]), np.empty(len(times))
    windows.course_curve(times, truth, 0.8, curve)
    curve = 0.3 + 2.0 * curve + drift * (times - truth[1]) + rng.normal(0, 0.02, len(times))
    shape, level = np.array([0.45, 0.6, 0.75]), np.zeros(4)
    error = windows.fit_course(times, curve, 0.03, 0.5, 0.0, shape, level)
    np.testing.assert_allclose(shape, truth, atol=0.02)
    np.testing.assert_allclose(level, [0.3, 2.0, 1.6, drift], atol=0.12)
    assert np.sqrt(error / len(times)) < 0.025


def test_a_course_rises_and_falls_as_it_says():
    out = np.empty(5)
    windows.course_curve(np.array([0.0, 1.5, 2.0, 3.0, 9.0]), np.array([1.0, 2.0, 4.0]), 0.6, out)
    np.testing.assert_allclose(out, [0.0, 0.5, 1.0, 0.7, 0.4], atol=1e-12)


def test_noise_follows_the_median_and_ignores_a_brief_burst():
    rng = np.random.default_rng(0)
    noise = np.full(14, 0.01)
    for i in range(1500):
        lengths = rng.normal(0, 0.002, 14)
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
    response = np.array([3.0, 4.0, 0.0, 1.0, 6.0, 8.0])
    noise = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    assert windows.top_rms(response, noise, 2) == pytest.approx(5.0 / np.sqrt(2))


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


def test_project():
    rng = np.random.default_rng(1)
    values, base, direction = rng.normal(size=(8, 6)), rng.normal(size=6), rng.normal(size=6)
    out = np.empty(8)
    windows.project(values, base, direction, out)
    np.testing.assert_allclose(out, (values - base) @ direction)
