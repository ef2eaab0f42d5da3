"""Lucas-Kanade of patches: as OpenCV's, true to a known shift, honest where nothing can be matched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.kernels.patches import cut_patches, match_patches, structure

SIDE = 19
POINTS = np.array([(x, y) for y in (30.2, 61.7, 90.0) for x in (28.5, 60.0, 92.3)], np.float32)


def texture(shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """(120, 120) uint8, smooth noise whose content has moved by `shift` (px), resampled from a finer one."""
    fine = np.random.default_rng(5).uniform(0, 255, (600, 600)).astype(np.float32)
    fine = cv2.normalize(cv2.GaussianBlur(fine, (0, 0), 9.0), None, 20, 235, cv2.NORM_MINMAX)  # type: ignore
    to_fine = np.array([[4.0, 0, 60 - 4 * shift[0]], [0, 4.0, 60 - 4 * shift[1]]])
    moved = cv2.warpAffine(fine, to_fine, (120, 120), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return np.rint(moved).astype(np.uint8)


def match(reference, picture, points=POINTS, start=None):
    """(P, 2) where the points of the reference are in the picture, and (P,) the error there."""
    patches = np.empty((len(points), SIDE, SIDE), np.float32)
    gradients = np.empty((len(points), 2, SIDE, SIDE), np.float32)
    inverse = np.empty((len(points), 3))
    cut_patches(reference, points, patches, gradients, inverse)
    found = points.copy() if start is None else start.copy()
    error = np.empty(len(points), np.float32)
    match_patches(picture, patches, gradients, inverse, 8, found, error)
    return found, error


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.3), (-1.7, 1.2)])
def test_known_shift_is_measured(shift):
    found, error = match(texture(), texture(shift))
    np.testing.assert_allclose(found - POINTS, np.tile(shift, (len(POINTS), 1)), atol=0.03)
    assert error.max() < 1.5


def test_agrees_with_opencv():
    reference, picture = texture(), texture((0.8, 0.6))
    expected, status, error = cv2.calcOpticalFlowPyrLK(
        reference,
        picture,
        POINTS,
        POINTS.copy(),
        winSize=(SIDE, SIDE),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.003),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    assert status.all()
    found, own_error = match(reference, picture)
    np.testing.assert_allclose(found, expected, atol=0.02)  # OpenCV's take the light for constant
    # Ours is from before the last step, of half a pixel at most.
    np.testing.assert_allclose(own_error, error.ravel(), atol=0.3)


def test_light_is_no_movement():
    """Half as much contrast, or all of it brighter: OpenCV's method would see a shift of a pixel."""
    moved = texture((0.4, -0.3)).astype(float)
    for gain, offset in ((0.8, 20.0), (1.0, 15.0), (1.15, -25.0)):
        lit = np.clip(np.rint(gain * moved + offset), 0, 255).astype(np.uint8)
        found, _ = match(texture(), lit)
        np.testing.assert_allclose(found - POINTS, np.tile((0.4, -0.3), (len(POINTS), 1)), atol=0.06)


def test_patch_across_the_edge_of_the_picture():
    edge = np.array([(4.0, 60.0), (115.5, 61.0), (60.0, 3.0), (59.0, 116.5)], np.float32)
    found, error = match(texture(), texture((0.3, 0.2)), edge)
    assert np.isfinite(error).all()
    np.testing.assert_allclose(found - edge, np.tile((0.3, 0.2), (4, 1)), atol=0.25)


def test_flat_patch_and_patch_outside_are_not_found():
    flat = np.full((120, 120), 90, np.uint8)
    assert np.isinf(match(flat, texture())[1]).all()
    _, error = match(texture(), texture(), POINTS[:2], np.array([(-40.0, 60.0), (60.0, 200.0)], np.float32))
    assert np.isinf(error).all()


def test_an_edge_is_no_patch():
    stripe = np.full((120, 120), 40, np.uint8)
    stripe[:, 60:] = 200  # moves along itself unseen
    assert np.isinf(match(stripe, stripe, np.array([(60.0, 60.0)], np.float32))[1]).all()


def test_structure_is_that_of_opencv():
    picture = texture()
    inside = np.array([(30.4, 40.6), (60.0, 59.6), (88.5, 91.2)], np.float32)
    out = np.empty((3, 3))
    structure(picture, inside, SIDE, out)
    gx, gy = cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)
    at = np.rint(inside).astype(int)
    for k, product in enumerate((gx * gx, gx * gy, gy * gy)):
        expected = cv2.boxFilter(product, -1, (SIDE, SIDE))[at[:, 1], at[:, 0]]
        np.testing.assert_allclose(out[:, k], expected, rtol=1e-4)


def test_structure_at_and_beyond_the_edge_is_finite():
    out = np.empty((3, 3))
    structure(texture(), np.array([(0, 0), (119, 60), (-50, 300)], np.float32), SIDE, out)
    assert np.isfinite(out).all()
    assert (out[:2, [0, 2]] > 0).all()
