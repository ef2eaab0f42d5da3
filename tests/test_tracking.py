"""Finding faces (with the real model) and staying with one (with made-up landmark sets)."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from streamer.config import TrackingConfig
from streamer.errors import EngineError
from streamer.messages import F32, U8, Face
from streamer.tracking import LANDMARKS, FaceFollower, MediaPipeTracker, _tiles

RIGHT_EYE, LEFT_EYE = (33, 133), (362, 263)
"""Corners of the person's right and left eye in the face mesh."""


@pytest.fixture(scope="module")
def tracker(landmarker: Path) -> Iterator[MediaPipeTracker]:
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    yield tracker
    tracker.close()


@pytest.fixture(scope="module")
def portrait() -> U8:
    """(320, 320, 3) uint8 BGR: one face, the eyes about 41 px apart."""
    return np.ascontiguousarray(skimage.data.astronaut()[:320, 64:384, ::-1])


def resized(image: U8, scale: float) -> U8:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def eyes(landmarks: F32) -> tuple[F32, F32]:
    """Centres of the person's right and left eye, (2,) each, pixels."""
    return landmarks[list(RIGHT_EYE), :2].mean(axis=0), landmarks[list(LEFT_EYE), :2].mean(axis=0)


def eye_distance(landmarks: F32) -> float:
    right, left = eyes(landmarks)
    return float(np.linalg.norm(left - right))


# --- the model ---------------------------------------------------------------------------------------


def test_one_face(tracker: MediaPipeTracker, portrait: U8) -> None:
    (face,) = tracker.detect(portrait)
    assert face.shape == (LANDMARKS, 3) and face.dtype == np.float32
    # The eyes of this photograph, read off by hand.
    np.testing.assert_allclose(eyes(face), [[140, 103], [182, 104]], atol=3)
    # The tip of the nose is nearer to the camera than the sides of the face.
    assert face[1, 2] < min(face[234, 2], face[454, 2]) - 20


def test_colours_are_read_as_bgr(portrait: U8, landmarker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    seen: list[U8] = []
    real = tracker._image
    monkeypatch.setattr(
        tracker, "_image", lambda image_format, data: seen.append(data) or real(image_format, data)
    )
    tracker.detect(portrait)
    tracker.close()
    np.testing.assert_array_equal(seen[0], portrait[:, :, ::-1])


def test_two_faces(tracker: MediaPipeTracker, portrait: U8) -> None:
    faces = tracker.detect(np.hstack([portrait, portrait[:, ::-1]]))
    assert sorted(bool(eyes(face)[0][0] < 320) for face in faces) == [False, True]


def test_no_face(tracker: MediaPipeTracker) -> None:
    assert tracker.detect(np.full((480, 640, 3), 90, np.uint8)) == []


def test_max_faces(landmarker: Path, portrait: U8) -> None:
    tracker = MediaPipeTracker(landmarker, TrackingConfig(max_faces=1))
    assert len(tracker.detect(np.hstack([portrait, portrait]))) == 1
    tracker.close()


@pytest.mark.parametrize("distance_px", [40, 60, 110, 180])
def test_face_sizes(tracker: MediaPipeTracker, portrait: U8, distance_px: int) -> None:
    (original,) = tracker.detect(portrait)
    scale = distance_px / eye_distance(original)
    (face,) = tracker.detect(resized(portrait, scale))
    # Pixel centres have whole coordinates: an enlargement by k takes x to k x + (k - 1) / 2.
    expected = scale * original[:468, :2] + (scale - 1) / 2
    error = np.linalg.norm(face[:468, :2] - expected, axis=1) / distance_px
    assert error.mean() < 0.03
    assert eye_distance(face) == pytest.approx(distance_px, rel=0.05)


@pytest.mark.parametrize("upright", [False, True], ids=["landscape", "upright"])
@pytest.mark.parametrize("start", range(0, 961, 120))
def test_small_face_in_a_wide_picture(
    tracker: MediaPipeTracker, portrait: U8, start: int, upright: bool
) -> None:
    # 41 px between the eyes: on 1280 pixels the detector alone sees nothing.
    (expected,) = tracker.detect(portrait)
    picture = np.full((1280, 720, 3) if upright else (720, 1280, 3), 110, np.uint8)
    x, y = (200, start) if upright else (start, 200)
    picture[y : y + 320, x : x + 320] = portrait
    assert tracker._detect(picture[:, :, ::-1].copy()) == []

    faces = tracker.detect(picture)

    assert len(faces) >= 1
    for face in faces:
        error = np.linalg.norm(face[:468, :2] - expected[:468, :2] - [x, y], axis=1)
        assert error.mean() < 2
    (followed,) = follow(faces)
    assert followed is not None
    assert followed.others == 0


def test_tiles_cover_the_picture_and_overlap() -> None:
    for height, width in [(480, 640), (720, 1280), (1080, 1920), (1280, 720), (271, 333), (100, 299)]:
        tiles = _tiles(height, width)
        side = min(height, width)
        seen = np.zeros((height, width), bool)
        for rows, columns in tiles:
            assert (rows.stop - rows.start, columns.stop - columns.start) == (side, side)
            seen[rows, columns] = True
        assert seen.all()
        starts = [rows.start + columns.start for rows, columns in tiles]
        assert max(np.diff(starts)) <= side / 2 + 1
    assert _tiles(480, 480) == []
    assert _tiles(2, 3000) == []


@pytest.mark.parametrize(
    ("start", "x", "kept"),
    [(100, 50, True), (100, 5, False), (100, 95, False), (0, 5, True), (0, 95, False), (200, 95, True)],
)
@pytest.mark.parametrize("upright", [False, True], ids=["landscape", "upright"])
def test_only_the_picture_s_own_edge_may_cut_a_face(
    tracker: MediaPipeTracker, monkeypatch: pytest.MonkeyPatch, start: int, x: int, kept: bool, upright: bool
) -> None:
    seen = face_at(50, x, 30) if upright else face_at(x, 50, 30)
    monkeypatch.setattr(tracker, "_detect", lambda rgb: [seen] if rgb.shape == (100, 100, 3) else [])
    picture = np.zeros((300, 100, 3) if upright else (100, 300, 3), np.uint8)
    tile, other = slice(start, start + 100), slice(0, 100)
    faces = tracker._in_tile(picture, (tile, other) if upright else (other, tile))
    assert len(faces) == kept
    for face in faces:
        np.testing.assert_allclose(face - seen, [[0, start, 0] if upright else [start, 0, 0]] * LANDMARKS)


def test_mirror_image(tracker: MediaPipeTracker, portrait: U8) -> None:
    (face,), (mirrored,) = tracker.detect(portrait), tracker.detect(portrait[:, ::-1])
    width = portrait.shape[1]
    np.testing.assert_allclose(eyes(mirrored)[0] * [-1, 1] + [width - 1, 0], eyes(face)[1], atol=2)


def test_every_call_stands_alone(tracker: MediaPipeTracker, portrait: U8) -> None:
    first = tracker.detect(portrait)[0]
    tracker.detect(np.roll(portrait, 100, axis=1))
    np.testing.assert_array_equal(tracker.detect(portrait)[0], first)


@pytest.mark.parametrize("size", [(333, 271), (640, 479), (217, 331)])
def test_odd_sizes(tracker: MediaPipeTracker, portrait: U8, size: tuple[int, int]) -> None:
    picture = np.zeros((*size[::-1], 3), np.uint8)
    part = cv2.resize(portrait, (min(size), min(size)))
    picture[: min(size), : min(size)] = part
    (face,) = tracker.detect(picture)
    expected = tracker.detect(portrait)[0] * min(size) / 320
    np.testing.assert_allclose(face[:468, :2], expected[:468, :2], atol=0.03 * min(size))


def test_memory_layouts_and_grey(tracker: MediaPipeTracker, portrait: U8) -> None:
    (plain,) = tracker.detect(portrait)
    for layout in (np.asfortranarray(portrait), portrait[:, ::-1].copy()[:, ::-1]):
        np.testing.assert_array_equal(tracker.detect(layout)[0], plain)
    read_only = portrait.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(tracker.detect(read_only)[0], plain)

    grey = cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY).astype(np.uint8)
    (from_two,), (from_three,) = tracker.detect(grey), tracker.detect(grey[:, :, None])
    np.testing.assert_array_equal(from_two, from_three)
    np.testing.assert_allclose(from_two[:468, :2], plain[:468, :2], atol=4)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros(10, np.uint8),
    ],
    ids=["empty", "four channels", "float", "one axis"],
)
def test_what_is_no_picture(tracker: MediaPipeTracker, picture: U8) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        tracker.detect(picture)


def test_closed_tracker(landmarker: Path, portrait: U8) -> None:
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    tracker.close()
    tracker.close()
    with pytest.raises(ValueError, match="closed"):
        tracker.detect(portrait)


def test_forgotten_tracker_is_closed(landmarker: Path) -> None:
    # In a cycle, so that the garbage collector and not the reference count takes it: MediaPipe hangs then.
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    close = tracker._close
    tracker.cycle = tracker  # pyright: ignore[reportAttributeAccessIssue]
    del tracker
    gc.collect()
    assert not close.alive


def test_unusable_model(tmp_path: Path) -> None:
    model = tmp_path / "face_landmarker.task"
    with pytest.raises(EngineError, match="cannot be read"):
        MediaPipeTracker(model, TrackingConfig())
    model.write_bytes(b"no model" * 1000)
    with pytest.raises(EngineError, match="refuses the landmark model .*face_landmarker.task"):
        MediaPipeTracker(model, TrackingConfig())


def test_terminal_stays_clean(
    landmarker: Path, portrait: U8, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "streamer.tracking")
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    tracker.detect(portrait)
    tracker.close()
    assert capfd.readouterr().err == ""
    assert any("FaceBlendshapesGraph" in record.message for record in caplog.records)


# --- the choice --------------------------------------------------------------------------------------


def face_at(x: float, y: float, width: float) -> F32:
    """478 points spread over an ellipse of this width, 1.25 times as high, centred at (x, y)."""
    angle = np.linspace(0, 2 * np.pi, LANDMARKS)
    points = np.zeros((LANDMARKS, 3), np.float32)
    points[:, 0] = x + width / 2 * np.cos(angle)
    points[:, 1] = y + 1.25 * width / 2 * np.sin(angle)
    return points


def centre_x(face: Face | None) -> float:
    assert face is not None
    return float((face.landmarks[:, 0].min() + face.landmarks[:, 0].max()) / 2)


def follow(*frames: list[F32], interval_s: float = 0.1, lost_s: float = 0.5) -> list[Face | None]:
    follower = FaceFollower(lost_s)
    return [follower.update(i, i * interval_s, faces) for i, faces in enumerate(frames)]


def test_largest_face_first() -> None:
    (face,) = follow([face_at(100, 100, 50), face_at(300, 100, 80), face_at(500, 100, 60)])
    assert face is not None
    assert centre_x(face) == pytest.approx(300, abs=0.01)
    assert (face.frame, face.time_s, face.others) == (0, 0.0, 2)


def test_nobody() -> None:
    assert follow([], []) == [None, None]


def test_larger_newcomer_does_not_take_over() -> None:
    ours = [face_at(100 + 5 * i, 100, 50) for i in range(10)]
    faces = follow(*([ours[i]] if i < 3 else [face_at(300, 100, 90), ours[i]] for i in range(10)))
    assert [centre_x(face) for face in faces] == pytest.approx([100 + 5 * i for i in range(10)], abs=0.01)
    assert [face.others for face in faces if face] == [0] * 3 + [1] * 7


def test_missing_for_a_moment() -> None:
    ours, other = face_at(100, 100, 50), face_at(300, 100, 90)
    faces = follow([ours], [other], [other, ours])
    assert faces[1] is None
    assert centre_x(faces[2]) == pytest.approx(100, abs=0.01)


def test_given_up_after_a_while() -> None:
    ours, other, small = face_at(100, 100, 50), face_at(300, 100, 90), face_at(500, 100, 40)
    follower = FaceFollower(lost_s=0.5)
    assert centre_x(follower.update(0, 0.0, [ours])) == pytest.approx(100, abs=0.01)
    assert follower.update(1, 0.25, [small, other]) is None
    assert follower.update(2, 0.75, [small, other]) is None
    assert follower.taken == 1
    assert centre_x(follower.update(3, 0.76, [small, other])) == pytest.approx(300, abs=0.01)
    assert follower.taken == 2
    # Back again, and larger: too late.
    assert centre_x(follower.update(4, 0.8, [face_at(100, 100, 120), other])) == pytest.approx(300, abs=0.01)


def test_the_waiting_starts_anew_with_every_sight() -> None:
    ours, other = face_at(100, 100, 50), face_at(300, 100, 90)
    faces = follow([ours], [other], [ours], [other], [ours], interval_s=0.4)
    assert [face is not None for face in faces] == [True, False, True, False, True]


def test_updates_further_apart_than_the_waiting_time() -> None:
    follower = FaceFollower(lost_s=0.5)
    for i in range(4):  # at 29.97 frames a second the model runs every 0.5005 s
        follower.update(15 * i, 0.5005 * i, [face_at(100, 100, 50)])
    assert follower.taken == 1


def test_neighbour_is_not_taken_for_the_one_who_left() -> None:
    # Cheek to cheek; then ours is gone and the neighbour leans over to where ours was.
    faces = follow([face_at(100, 100, 52), face_at(150, 100, 50)], [face_at(138, 100, 50)])
    assert centre_x(faces[0]) == pytest.approx(100, abs=0.01)
    assert faces[1] is None


def test_nearest_continuation() -> None:
    # Two faces come up where one was; neither was there before.
    for frame in (
        [face_at(105, 100, 50), face_at(125, 100, 48)],
        [face_at(125, 100, 52), face_at(105, 100, 50)],
    ):
        assert centre_x(follow([face_at(100, 100, 50)], frame)[1]) == pytest.approx(105, abs=0.01)


def test_jump_is_another_face() -> None:
    assert follow([face_at(100, 100, 50)], [face_at(160, 100, 50)])[1] is None
    assert follow([face_at(100, 100, 50)], [face_at(120, 100, 50)])[1] is not None


def test_leap_in_size_is_another_face() -> None:
    assert follow([face_at(100, 100, 50)], [face_at(100, 100, 90)])[1] is None
    assert follow([face_at(100, 100, 50)], [face_at(100, 100, 25)])[1] is None
    assert follow([face_at(100, 100, 50)], [face_at(100, 100, 60)])[1] is not None


def test_face_detected_twice_counts_once() -> None:
    twice = [face_at(100, 100, 50), face_at(102, 100, 50)]
    faces = follow(twice, [twice[1]], twice, [twice[0]])
    assert [face.others for face in faces if face] == [0, 0, 0, 0]


@given(
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
    scale=st.floats(0.2, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_place_and_scale_of_the_picture_do_not_matter(x: float, y: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = [rng.uniform([0, 0, 40], [400, 400, 120], (rng.integers(0, 4), 3)) for _ in range(6)]
    plain = follow(*([face_at(*place) for place in frame] for frame in places), interval_s=0.2)
    moved = follow(
        *([face_at(x + scale * px, y + scale * py, scale * w) for px, py, w in frame] for frame in places),
        interval_s=0.2,
    )
    assert [face and face.others for face in plain] == [face and face.others for face in moved]
    for face, other in zip(plain, moved, strict=True):
        if face is not None and other is not None:
            expected = face.landmarks[:, :2] * scale + np.array([x, y], np.float32)
            np.testing.assert_allclose(other.landmarks[:, :2], expected, rtol=1e-3, atol=0.1)
