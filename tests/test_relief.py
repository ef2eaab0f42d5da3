"""The relief of the face: depth between the points, and the picture of a turned head."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.kernels.registration import TERMS, move_head
from streamer.kernels.relief import show_turned, splat_depth, steepness, turn_back, turn_points

LEFT, TOP, STEP, ROWS, COLUMNS = -1.2, -0.85, 0.06, 44, 42
SCALE = 100.0
TURN = np.array([0.01, -0.02, 0.0, 0.0, 0.0, 0.0, 0.15, -0.1])


def hill(x, y):
    """Depth of a made-up face: a nose on a bowl, IOD."""
    return 0.3 * (x**2 + (y - 0.3) ** 2) - 0.5 * np.exp(-((x / 0.25) ** 2) - ((y - 0.5) / 0.3) ** 2)


def picture_of(place) -> np.ndarray:
    """(255, 240) uint8: the made-up texture at the places (2, 255, 240), IOD."""
    x, y = place
    return np.rint(120 + 50 * np.sin(11 * x + 3 * y) + 40 * np.cos(9 * y - 4 * x)).astype(np.uint8)


@pytest.fixture(scope="module")
def depth() -> np.ndarray:
    """(ROWS, COLUMNS) from points scattered over the face."""
    x, y = np.random.default_rng(3).uniform((LEFT, TOP), (1.2, 1.7), (4000, 2)).T
    out = np.empty((ROWS, COLUMNS))
    splat_depth(np.column_stack([x, y, hill(x, y)]), LEFT, TOP, STEP, 0.12, 0.8, out)
    return out


def grid() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(LEFT + STEP * np.arange(COLUMNS), TOP + STEP * np.arange(ROWS))


def test_depth_between_the_points(depth: np.ndarray) -> None:
    error = np.abs(depth - hill(*grid()))[3:-3, 3:-3]
    assert np.median(error) < 0.01 and error.max() < 0.05


def test_where_no_point_is_near_the_far_ones_tell() -> None:
    out = np.empty((ROWS, COLUMNS))
    splat_depth(np.array([[0.0, 0.3, -0.2]]), LEFT, TOP, STEP, 0.12, 0.8, out)
    assert out[20, 30] == pytest.approx(-0.2, abs=1e-3)
    assert np.isfinite(out).all()


def test_steepness_is_the_slope(depth: np.ndarray) -> None:
    points = np.array([[0.0, -0.3, 0.0], [0.9, 0.3, 0.0], [0.18, 0.5, 0.0]])
    out = np.empty(3)
    steepness(points, depth, LEFT, TOP, STEP, out)
    h = STEP
    for (x, y, _), slope in zip(points, out, strict=True):
        expected = np.hypot(hill(x + h, y) - hill(x - h, y), hill(x, y + h) - hill(x, y - h)) / (2 * h)
        assert slope == pytest.approx(expected, abs=0.4)


def test_the_picture_of_the_turned_head(depth: np.ndarray) -> None:
    """Places of the skin, taken to where the turned head has them, look as they did."""
    back = np.empty((2, ROWS, COLUMNS))
    turn_back(depth, LEFT, TOP, STEP, TURN, back)
    x, y = np.meshgrid(LEFT + np.arange(240) / SCALE, TOP + np.arange(255) / SCALE)
    straight = picture_of((x, y))
    turned = np.empty_like(straight)
    show_turned(straight, back, STEP * SCALE, turned)
    rng = np.random.default_rng(1)
    places = rng.uniform((-0.7, -0.4), (0.7, 1.2), (300, 2))
    points = np.column_stack([places, hill(*places.T)])
    seen = np.empty_like(points)
    move_head(points, TURN, seen)
    at = ((seen[:, :2] - [LEFT, TOP]) * SCALE).astype(np.float32)
    values = cv2.remap(turned, at[:, :1], at[:, 1:], cv2.INTER_LINEAR).ravel().astype(float)
    error = np.abs(values - picture_of(places.T))
    assert np.median(error) < 1.5 and np.percentile(error, 95) < 8
    unturned = cv2.remap(straight, at[:, :1], at[:, 1:], cv2.INTER_LINEAR).ravel().astype(float)
    assert np.median(np.abs(unturned - picture_of(places.T))) > 8


def test_points_come_from_where_they_are_said_to(depth: np.ndarray) -> None:
    back = np.empty((2, ROWS, COLUMNS))
    turn_back(depth, LEFT, TOP, STEP, TURN, back)
    points = np.column_stack([*np.random.default_rng(2).uniform(-0.6, 0.9, (2, 50)), np.zeros(50)])
    seen, origin = np.empty((2, 50, 2))
    turn_points(points, depth, LEFT, TOP, STEP, TURN, back, seen, origin)
    np.testing.assert_allclose(origin * STEP + [LEFT, TOP], points[:, :2], atol=0.01)
    assert np.abs(seen - origin).max() * STEP > 0.03


def test_without_motion_nothing_changes(depth: np.ndarray) -> None:
    back = np.empty((2, ROWS, COLUMNS))
    turn_back(depth, LEFT, TOP, STEP, np.zeros(TERMS), back)
    picture = np.random.default_rng(4).integers(0, 255, (255, 240), np.uint8)
    out = np.empty_like(picture)
    show_turned(picture, back, STEP * SCALE, out)
    assert np.abs(out[:-1, :-1].astype(int) - picture[:-1, :-1]).max() <= 1
