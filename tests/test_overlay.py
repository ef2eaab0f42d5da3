"""The annotated picture: what is drawn, where, for how long, and that nothing grows."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sink_samples import REST, face, frame, macro, micro, motion

from streamer.graph import NODES, REGIONS
from streamer.messages import Frame
from streamer.sinks import Overlay, ink, panel
from streamer.sinks.history import CAPACITY, MotionHistory
from streamer.sinks.ink import Ink

BROWS, NOSE, MOUTH = (nodes for _, nodes, _ in panel.SERIES)


def where(picture: np.ndarray, colour: ink.Colour, tolerance: int = 0) -> np.ndarray:
    """(n, 2) x, y of the pixels that have that colour; thin lines need a tolerance, being anti-aliased."""
    return np.argwhere((np.abs(picture.astype(int) - colour) <= tolerance).all(-1))[:, ::-1]


def watch(overlay: Overlay, seconds: float, start: int = 0, **options) -> int:
    """Let a still face be seen for so long; returns the next frame index."""
    stop = start + round(30 * seconds)
    for index in range(start, stop):
        overlay.observe(frame(index, 640, 480), face(index), motion(index, **options))
    return stop


def draw(overlay: Overlay, index: int, displacement=None, **options) -> np.ndarray:
    """The picture of the next frame; the panel is what lies below row 480."""
    shot, moved = frame(index, 640, 480), motion(index, displacement, **options)
    overlay.observe(shot, face(index), moved)
    return overlay.draw(shot, face(index), moved).copy()


def test_nodes_are_drawn_where_they_are_in_the_colour_of_their_region():
    picture = draw(Overlay(), 0)
    for part, colour in ((BROWS, ink.BROWS), (NOSE, ink.NOSE), (MOUTH, ink.MOUTH)):
        for x, y in np.round(motion(0).points_px[list(part)]).astype(int):
            assert tuple(picture[y, x]) == colour


def test_edges_of_the_graph_are_drawn_and_the_rest_of_the_picture_is_left_alone():
    picture = draw(Overlay(), 0)[:480]
    assert (picture != 128).any(-1).sum() > 300
    changed = np.argwhere((picture != 128).any(-1))[:, ::-1]
    points = motion(0).points_px
    assert (changed.min(0) > points.min(0) - 8).all() and (changed.max(0) < points.max(0) + 8).all()
    nose_bridge, nose_tip = points[6], points[7]
    x, y = np.round((nose_bridge + nose_tip) / 2).astype(int)
    assert (picture[y, x - 2 : x + 3] != 128).any()


def test_the_frame_itself_is_not_written_to():
    shot = frame(0, 640, 480)
    overlay = Overlay()
    overlay.on_event(micro(apex_s=0.0))
    overlay.observe(shot, None, motion(0))
    overlay.draw(shot, None, motion(0))
    assert (shot.image == 128).all()


@pytest.mark.parametrize("roll", [0.0, 0.5, -1.2])
def test_arrow_starts_at_rest_and_shows_the_motion_ten_times_in_the_image_frame(roll):
    overlay = Overlay()
    index = watch(overlay, 1.0, roll=roll)
    step = np.zeros((14, 2))
    step[10] = (-0.03, -0.04)  # right mouth corner, IOD, face frame: 0.05 long
    picture = draw(overlay, index, step, roll=roll)[:480]
    tip_face = REST[10] + 10 * step[10]
    turn = 80 * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    tip = turn @ tip_face + (320, 200)
    rest = motion(0, roll=roll).points_px[10]
    drawn = where(picture, ink.WARNING)
    assert len(drawn) > 40
    along = (drawn - rest) @ (tip - rest) / np.linalg.norm(tip - rest)
    across = (drawn - rest) @ np.array([[0, 1], [-1, 0]]) @ (tip - rest) / np.linalg.norm(tip - rest)
    assert along.max() == pytest.approx(40, abs=1.5) and along.min() > -2
    assert np.abs(across).max() < 6


def test_posture_that_lasts_and_badly_registered_nodes_have_no_arrow():
    moved = np.full((14, 2), 0.03)
    overlay = Overlay()
    index = watch(overlay, 3.0, displacement=moved)
    assert len(where(draw(overlay, index, moved)[:480], ink.WARNING)) == 0
    sudden = draw(overlay, index + 1, moved + 0.03)
    assert len(where(sudden[:480], ink.WARNING)) > 0
    doubtful = draw(overlay, index + 2, moved + 0.03, quality=0.1)
    assert len(where(doubtful[:480], ink.WARNING)) == 0
    x, y = np.round(motion(0, moved + 0.03).points_px[0]).astype(int)
    assert tuple(sudden[y, x]) != ink.SHADOW and tuple(doubtful[y, x]) == ink.SHADOW  # drawn hollow


def test_without_a_face_it_says_so_and_draws_no_nodes():
    overlay = Overlay()
    shot = frame(0, 640, 480)
    overlay.observe(shot, None, None)
    picture = overlay.draw(shot, None, None)
    words = where(picture[:480], ink.WARNING)
    assert len(words) > 50 and words[:, 1].max() < 45  # at the top, not over the face
    assert (picture[60:480] == 128).all()


def test_face_that_is_not_measured_yet_is_drawn_from_its_landmarks():
    overlay = Overlay()
    seen = face(0)
    for node, place in zip(NODES, motion(0).points_px, strict=True):
        seen.landmarks[node.mediapipe, :2] = place
    overlay.observe(frame(0, 640, 480), seen, None)
    picture = overlay.draw(frame(0, 640, 480), seen, None)
    x, y = np.round(motion(0).points_px[0]).astype(int)
    assert tuple(picture[y, x]) == ink.BROWS
    assert len(where(picture[:480], ink.WARNING)) == 0


@pytest.mark.parametrize(
    ("width", "height"), [(64, 48), (101, 77), (320, 240), (333, 1001), (640, 480), (1920, 1080)]
)
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_any_size_of_frame_grey_or_colour(width, height, channels):
    shape = (height, width) if channels == 0 else (height, width, channels)
    shot = Frame(0, 0.0, 0.0, np.full(shape, 77, np.uint8))
    overlay = Overlay()
    overlay.on_event(micro(apex_s=0.0))
    moved = motion(0, centre=(width / 2, height / 3), iod_px=width / 5)
    overlay.observe(shot, None, moved)
    picture = overlay.draw(shot, None, moved)
    zoom = picture.shape[1] // width
    assert picture.shape[1] == width * zoom >= 480 and picture.dtype == np.uint8
    assert picture.shape[0] > height * zoom + 100
    assert (picture[0, 0] == 77).all()
    x, y = np.round((moved.points_px[0] + 0.5) * zoom - 0.5).astype(int)
    assert tuple(picture[y, x]) == ink.BROWS


def test_change_of_frame_size_is_followed():
    overlay = Overlay()
    assert overlay.draw(frame(0, 640, 480), None, None).shape[1] == 640
    assert overlay.draw(frame(1, 800, 600), None, None).shape[1] == 800


def test_points_far_outside_or_not_finite_do_no_harm():
    overlay = Overlay()
    draw(overlay, 0, centre=(-5000, 9000))
    lost = motion(1)
    lost.points_px[3] = np.nan
    overlay.observe(frame(1, 640, 480), None, lost)
    picture = overlay.draw(frame(1, 640, 480), None, lost)
    assert (picture[:480] == 128).all()


def test_event_is_marked_on_the_chart_from_onset_to_offset_and_scrolls_out():
    overlay = Overlay()
    index = watch(overlay, 3.0)
    before = draw(overlay, index)
    assert len(where(before[480:], ink.MICRO)) == 0
    overlay.on_event(micro(apex_s=2.0))
    after = draw(overlay, index + 1)
    left, right = 38, 640 - 236 - 24  # the chart's edges at this width
    per_second = (right - left) / panel.CHART_S
    now = (index + 1) / 30
    apex, onset, offset = (right + (t - now) * per_second for t in (2.0, 1.9, 2.1))
    row = 480 + panel.STATUS + panel.CHART - 40  # in the chart, above the lines of a still face
    band = np.flatnonzero((after[row, left:right] != before[row, left:right]).any(-1)) + left
    pink = np.abs(after[row, left:right].astype(int) - ink.MICRO).sum(-1).argmin() + left
    assert pink == pytest.approx(apex, abs=1.5)
    assert band.min() == pytest.approx(onset, abs=1.5) and band.max() == pytest.approx(offset, abs=2)
    watch(overlay, 5.0, start=index + 2)
    assert len(where(draw(overlay, index + 152)[480:], ink.MICRO)) == 0


def card_pixels(picture: np.ndarray) -> int:
    return len(where(picture[480:, 400:], ink.CARD))


@pytest.mark.parametrize("event", [micro(), macro()])
def test_card_of_an_event_stays_two_and_a_half_seconds_and_fades(event):
    overlay = Overlay()
    index = watch(overlay, 2.0)
    assert card_pixels(draw(overlay, index)) == 0
    overlay.on_event(event)
    assert card_pixels(draw(overlay, index + 1)) > 5000
    watch(overlay, 1.8, start=index + 2)
    assert card_pixels(draw(overlay, index + 56)) > 5000
    watch(overlay, 0.4, start=index + 57)
    fading = draw(overlay, index + 69)  # 2.3 s
    assert card_pixels(fading) == 0
    watch(overlay, 0.3, start=index + 70)
    gone = draw(overlay, index + 79)  # 2.6 s
    assert not np.array_equal(fading[480:, 400:], gone[480:, 400:])


def test_card_says_class_confidence_and_action_units():
    pictures = []
    for event in (
        micro(),
        replace(micro(), label="I"),
        replace(micro(), name="disgust"),
        replace(micro(), action_units={"AU9": 0.9}),
        replace(micro(), strength=0.02),
    ):
        overlay = Overlay()
        overlay.on_event(event)
        pictures.append(draw(overlay, 0)[480:, 400:].tobytes())
    assert len(set(pictures)) == len(pictures)


def test_long_names_stay_inside_their_card():
    overlay = Overlay()
    units = {f"AU{n} with a very long explanation": 0.9 for n in range(9)}
    overlay.on_event(replace(micro(), name="a class with an endless name " * 5, action_units=units))
    plain = Overlay()
    plain.on_event(micro())
    long, short = draw(overlay, 0), draw(plain, 0)
    assert np.array_equal(long[480:, 630:], short[480:, 630:])
    pen = Ink(np.zeros((10, 10, 3), np.uint8), 1.0)
    assert pen.text_width(pen.fit("a class with an endless name", 80), 12) <= 80
    assert pen.fit("short", 80) == "short"


def test_chart_rises_with_the_motion_of_its_region():
    overlay = Overlay()
    index = watch(overlay, 2.0)
    smile = np.zeros((14, 2))
    smile[list(MOUTH)] = (0.0, -0.018)
    picture = [draw(overlay, i, smile) for i in range(index, index + 6)][-1]
    chart = picture[480 + 54 : 480 + 168, 300:380]  # the newest second
    mouth, nose = where(chart, ink.MOUTH, 60), where(chart, ink.NOSE, 30)
    assert mouth[:, 1].min() < 20 and nose[:, 1].min() > 85  # 1.8 of 2 %, and 0


def test_what_is_kept_is_bounded():
    overlay = Overlay()
    shot, moved = frame(0, 64, 48), motion(0)

    def run(start: int, stop: int) -> None:
        for index in range(start, stop):
            time_s = index / 1000  # a thousand frames a second
            overlay.observe(Frame(index, time_s, 0.0, shot.image), None, replace(moved, time_s=time_s))
            overlay.on_event(micro(index, apex_s=time_s))

    run(0, 3000)
    overlay.draw(shot, None, moved)
    tracemalloc.start()
    run(3000, 3100)
    first = tracemalloc.get_traced_memory()[0]
    run(3100, 8000)
    grown = tracemalloc.get_traced_memory()[0] - first
    tracemalloc.stop()
    assert grown < 100_000


# History


def test_history_gives_the_distance_from_rest_in_percent_of_the_eye_distance():
    history = MotionHistory(window_s=4.0)
    for index in range(60):
        step = np.full((14, 2), 0.5)  # an offset that lasts is no motion
        if index == 50:
            step[list(REGIONS["mouth"])] += (0.006, 0.008)
        history.add(motion(index, step))
    ((times, percent),) = history.stretches(59 / 30, [BROWS, NOSE, MOUTH])
    assert times == pytest.approx(np.arange(60) / 30)
    expected = np.zeros((60, 3))
    expected[50, 2] = 1.0
    assert percent == pytest.approx(expected, abs=1e-3)


def test_history_keeps_segments_apart_and_forgets_what_left_the_window():
    history = MotionHistory(window_s=1.0)
    for index in range(60):
        segment = index // 40
        history.add(motion(index, np.full((14, 2), segment * 0.2), segment=segment))
    (_, first), (times, second) = history.stretches(59.5 / 30, [MOUTH])
    assert len(first) == 10 and len(second) == 20 and times[0] == pytest.approx(40 / 30)
    assert first.max() == second.max() == 0  # a new segment's zero is no motion
    assert history.moved(motion(60, np.full((14, 2), 0.21), segment=1)) == pytest.approx(0.01, abs=1e-6)
    assert (history.moved(motion(60, np.full((14, 2), 0.21), segment=2)) == 0).all()


def test_history_weighs_nodes_by_their_quality():
    quality = np.ones(14)
    quality[MOUTH[0]] = 0
    history = MotionHistory(window_s=4.0)
    for index in range(20):
        step = np.zeros((14, 2))
        step[MOUTH[0]] = index % 2  # a node that is not registered jumps about
        history.add(motion(index, step, quality=quality))
    ((_, percent),) = history.stretches(1.0, [MOUTH])
    assert percent.max() == 0


def test_history_at_a_high_rate_keeps_the_newest():
    history = MotionHistory(window_s=4.0)
    for index in range(3000):
        history.add(motion(index, time_s=index / 1000))
    ((times, _),) = history.stretches(2.999, [MOUTH])
    assert len(times) == CAPACITY and times[-1] == 2.999 and (np.diff(times) > 0).all()
