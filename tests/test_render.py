"""Rendered clips: a pixel of the portrait is found where the truth says it has gone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from streamer.graph import NODES
from streamer.simulation.facs import TEMPLATE_NODES, draw_field
from streamer.simulation.render import (
    LAMP_HZ,
    LOWER_LIDS,
    READOUT_S,
    TABLES,
    UPPER_LIDS,
    Clip,
    Injection,
    Portrait,
    Renderer,
    _look_up,
    _tabulate,
)

NODE_IDS = [node.mediapipe for node in NODES]


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    """A smooth random picture with a plausible landmark set; no face is needed to test geometry."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (500, 500, 3)).astype(np.float32), (0, 0), 6.0)
    image = np.clip((image - image.mean()) * 12 + 128, 0, 255).astype(np.uint8)
    landmarks = rng.uniform(150, 350, (478, 3)).astype(np.float32)
    face = {33: (-0.75, 0), 133: (-0.25, 0), 362: (0.25, 0), 263: (0.75, 0)}
    nodes = [(-0.9, -0.2), (-0.7, -0.35), (-0.25, -0.3), (0.25, -0.3), (0.7, -0.35), (0.9, -0.2), (0, 0)]
    nodes += [(0, 0.65), (-0.3, 0.7), (0.3, 0.7), (-0.45, 1.0), (0, 0.95), (0.45, 1.0), (0, 1.2)]
    face |= dict(zip(NODE_IDS, nodes, strict=True))
    for eye, start in ((0, -0.75), (1, 0.25)):
        for k in range(9):
            x = start + 0.5 * k / 8
            bend = 0.1 * np.sin(np.pi * k / 8)
            face[UPPER_LIDS[eye][k]] = (x, -bend)
            face[LOWER_LIDS[eye][k]] = (x, bend)
    for index, (x, y) in face.items():
        landmarks[index, :2] = 250 + 90 * x, 200 + 90 * y
    return Portrait(image, landmarks)


SMILE = Injection({"AU12": 1.0, "AU1": 0.6}, 1.0, 1.2, 1.4, 0.03, "I")


def _value(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = (np.ascontiguousarray(v, np.float32) for v in points.T)
    return cv2.remap(image, x, y, cv2.INTER_CUBIC)[:, 0].astype(float)


@pytest.mark.parametrize("iod_px", [60.0, 90.0, 180.0])
@pytest.mark.parametrize("time_s", [0.4, 1.2, 1.33])
def test_nodes_are_where_the_truth_says(portrait, iod_px, time_s):
    clip = Clip(iod_px=iod_px, width=900, height=700, noise=0.0, injections=(SMILE,), seed=3, sway_yaw=6)
    renderer = Renderer(portrait, clip)
    seen = _value(renderer.frame(time_s), renderer.nodes_px(time_s))
    still = portrait.landmarks[NODE_IDS, :2]
    np.testing.assert_allclose(seen, _value(portrait.image, still), atol=6.0)
    # A third of a hundredth of the eye distance to the side, the picture is another one.
    aside = _value(renderer.frame(time_s), renderer.nodes_px(time_s) + 0.05 * iod_px)
    assert np.abs(aside - _value(portrait.image, still)).max() > 12


def test_displacement_has_the_wanted_peak_and_vanishes_outside(portrait):
    renderer = Renderer(portrait, Clip(injections=(SMILE,)))
    assert np.hypot(*renderer.displacement(1.2).T).max() == pytest.approx(0.03)
    assert np.abs(renderer.displacement(0.9)).max() == 0
    assert np.abs(renderer.displacement(1.5)).max() == 0


def test_a_blink_changes_the_eyes_alone(portrait):
    clip = Clip(
        noise=0.0, sway=0, sway_roll=0, sway_yaw=0, sway_pitch=0, sway_scale=0, blinks_s=(1.0,), iod_px=90
    )
    renderer = Renderer(portrait, clip)
    change = np.abs(renderer.frame(1.08).astype(int) - renderer.frame(0.5)).max(2)
    rows, columns = np.nonzero(change > 8)
    pose, _ = renderer.pose(0.5)
    x, y = (columns - pose[0, 2]) / 90, (rows - pose[1, 2]) / 90
    assert len(x) > 50
    assert np.abs(y).max() < 0.26  # from the crease above the lid
    assert (np.abs(x) > 0.2).all() and (np.abs(x) < 0.8).all()


def test_the_same_seed_gives_the_same_clip_and_another_does_not(portrait):
    clip = Clip(duration_s=0.1, width=160, height=120, iod_px=40)
    first = [image for _, image in Renderer(portrait, clip).frames()]
    again = [image for _, image in Renderer(portrait, clip).frames()]
    other = [image for _, image in Renderer(portrait, Clip(**{**clip.__dict__, "seed": 1})).frames()]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_noise_has_the_wanted_size(portrait):
    clean = Renderer(portrait, Clip(noise=0.0, sway=0, width=320, height=240, iod_px=50)).frame(0.0)
    noisy = Renderer(portrait, Clip(noise=3.0, sway=0, width=320, height=240, iod_px=50)).frame(0.0)
    mid = (clean > 110) & (clean < 146)
    assert (noisy.astype(float) - clean)[mid].std() == pytest.approx(3.0, rel=0.15)


def test_truth_names_frames_by_the_clips_own_times(portrait):
    renderer = Renderer(portrait, Clip(fps=200, duration_s=2, injections=(SMILE,)))
    assert renderer.truth() == [
        {
            "onset": {"frame": 200, "time_s": 1.0},
            "apex": {"frame": 240, "time_s": 1.2},
            "offset": {"frame": 280, "time_s": 1.4},
            "label": "I",
            "action_units": ["AU1", "AU12"],
            "peak": 0.03,
        }
    ]


def test_jittered_times_increase(portrait):
    renderer = Renderer(portrait, Clip(fps=25, duration_s=4, time_jitter=0.8))
    assert renderer.times[0] == 0
    assert np.all(np.diff(renderer.times) > 0)


@pytest.mark.parametrize("table", ["tuning", "held-out"])
def test_tabulated_motion_is_the_fields(table):
    for unit, action in TABLES[table].items():
        field = draw_field({unit: 1.0}, table=TABLES[table]).scaled(0.03)
        centres = np.array([(b.x, b.y) for b in action.bumps])
        points = (centres[:, None] + np.random.default_rng(0).normal(0, 0.1, (1, 40, 2))).reshape(-1, 2)
        tabulated = _tabulate(field.bumps.tobytes())
        seen = np.array([_look_up(tabulated, x, y) for x, y in points])
        exact = field.at(points)
        assert np.abs(seen - exact).max() < 0.005 * np.abs(exact).max(), unit
        assert _look_up(tabulated, -3.0, 0.0) == (0.0, 0.0)


def test_an_injection_takes_its_table_course_and_asymmetry():
    rng = np.random.default_rng
    first = SMILE.field(TEMPLATE_NODES, rng(0)).at(TEMPLATE_NODES)
    other = replace(SMILE, table="held-out").field(TEMPLATE_NODES, rng(0)).at(TEMPLATE_NODES)
    assert np.hypot(*other.T).max() == pytest.approx(0.03)
    assert np.abs(first - other).max() > 0.003
    uneven = replace(SMILE, asymmetry=0.3).field(TEMPLATE_NODES, rng(0)).at(TEMPLATE_NODES)
    right, left = (float(np.hypot(*uneven[node])) for node in (10, 12))
    assert right == pytest.approx(0.7 * left, rel=0.05)
    assert replace(SMILE, course="held-out").level(1.3) < SMILE.level(1.3) - 0.1


def test_lamps_band_the_rows_and_leave_the_mean(portrait):
    still = Clip(noise=0, sway=0, sway_roll=0, sway_yaw=0, sway_pitch=0, sway_scale=0)
    plain = Renderer(portrait, still).frame(0.0).astype(float)
    banded = Renderer(portrait, replace(still, banding=0.1)).frame(0.0).astype(float)
    rows = banded.mean((1, 2)) / plain.mean((1, 2))
    expected = 1 + 0.1 * np.sin(2 * np.pi * LAMP_HZ * READOUT_S * np.arange(480) / 480)
    np.testing.assert_allclose(rows, expected, atol=0.01)


def test_a_faster_head_goes_the_same_way_sooner(portrait):
    slow, fast = Renderer(portrait, Clip()), Renderer(portrait, Clip(sway_rate=2.0))
    for a, b in zip(slow.pose(3.0), fast.pose(1.5), strict=True):
        np.testing.assert_allclose(a, b)


def test_noise_of_two_frames_is_not_the_same(portrait):
    still = Clip(noise=3, sway=0, sway_roll=0, sway_yaw=0, sway_pitch=0, sway_scale=0, width=320, height=240)
    renderer = Renderer(portrait, replace(still, iod_px=50.0))
    clean = Renderer(portrait, replace(still, iod_px=50.0, noise=0)).frame(0.0).astype(float)
    one, two = (renderer.frame(0.0).astype(float) - clean for _ in range(2))
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]) < 0.02
