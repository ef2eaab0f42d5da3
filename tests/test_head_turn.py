"""The turning head: what it shows is where the truth says, and errors are counted as promised."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.graph import NODES
from streamer.messages import Motion
from streamer.simulation.head_turn import (
    Errors,
    HeadTurn,
    TurningHead,
    compare,
    expressions,
    measure_head_turn,
)
from streamer.simulation.portraits import portrait as load_portrait
from streamer.simulation.render import Injection, Portrait

RAISED = Injection({"AU1": 1.0, "AU2": 1.0}, 0.8, 1.0, 1.2, 0.03)


@pytest.fixture(scope="module")
def portrait(landmarker: Path) -> Portrait:
    return load_portrait("astronaut", landmarker)


def motion(index: int, time_s: float, displacement: np.ndarray, segment: int = 0) -> Motion:
    return Motion(
        frame=index,
        time_s=time_s,
        segment=segment,
        nodes=np.zeros((14, 2), np.float32),
        displacement=displacement.astype(np.float32),
        quality=np.ones(14, np.float32),
        head=np.zeros(6, np.float32),
        eyes=np.zeros(2, np.float32),
        residual=0.0,
        iod_px=110.0,
        points_px=np.zeros((14, 2), np.float32),
        light=np.zeros(4, np.float32),
    )


@pytest.mark.parametrize("axis", ["yaw", "pitch"])
def test_the_picture_shows_the_nodes_where_the_truth_says(portrait: Portrait, axis: str) -> None:
    """At 12 degrees and at the apex of a raised brow, the portrait's own patches lie at the true places."""
    turn = HeadTurn(axis=axis, degrees=12, hz=0.25, noise=0, injections=(RAISED,))  # pyright: ignore[reportArgumentType]
    head = TurningHead(portrait, turn)
    assert head.angle(1.0) == pytest.approx(12)
    pixels = head.nodes_px(1.0)
    seen = head.frame(1.0)
    still = portrait.landmarks[[node.mediapipe for node in NODES], :2]
    assert head.visible(1.0)[[0, 1, 2, 3, 7, 10, 11, 13]].all()
    for picked in (0, 1, 2, 3, 7, 10, 11, 13):
        values = [
            cv2.getRectSubPix(image, (1, 1), tuple(float(v) for v in place))
            for image, place in ((seen, pixels[picked]), (portrait.image, still[picked]))
        ]
        assert np.abs(np.asarray(values[0], int) - values[1]).max() < 8, picked


def test_the_head_turns_in_depth(portrait: Portrait) -> None:
    """The nose lies before the eyes and moves further than they; twice the depth, twice as far."""

    def shift(depth: float) -> float:
        head = TurningHead(portrait, HeadTurn(degrees=15, hz=0.25, depth=depth))
        moved = head.nodes_px(1.0) - head.nodes_px(0.0)
        return moved[7, 0] - moved[[2, 3], 0].mean()

    assert shift(1.0) > 4
    assert shift(2.0) == pytest.approx(2 * shift(1.0), rel=0.2)


def test_truth_is_foreshortened_as_the_face_is(portrait: Portrait) -> None:
    smile = Injection({"AU20": 1.0}, 0.8, 1.0, 1.2, 0.03)
    ahead = TurningHead(portrait, HeadTurn(degrees=0, injections=(smile,))).displacement(1.0)
    aside = TurningHead(portrait, HeadTurn(degrees=20, hz=0.25, injections=(smile,))).displacement(1.0)
    assert np.hypot(*ahead.T).max() == pytest.approx(0.03, rel=0.15)  # perspective: the mouth is nearer
    spread = (aside[12, 0] - aside[10, 0]) / (ahead[12, 0] - ahead[10, 0])
    assert spread == pytest.approx(np.cos(np.radians(20)), abs=0.04)
    assert np.abs(TurningHead(portrait, HeadTurn(degrees=20, hz=0.25)).displacement(1.0)).max() == 0


def test_light_from_the_side_changes_the_skin_as_it_turns(portrait: Portrait) -> None:
    plain, lit = (
        TurningHead(portrait, HeadTurn(degrees=20, hz=0.25, noise=0, shading=s)).frame(1.0)
        for s in (0.0, 0.4)
    )
    assert np.abs(plain.astype(int) - lit)[150:300, 250:400].mean() > 3


def test_errors_are_counted_against_the_truth(portrait: Portrait) -> None:
    turn = HeadTurn(duration_s=2.4, injections=expressions(2.4))
    head = TurningHead(portrait, turn)
    assert len(turn.injections) == 1

    def report(change) -> dict:
        motions = [
            motion(i, t, change(i, t, head.displacement(t))) for i, t in enumerate(head.times) if i % 10 != 9
        ]
        return dataclasses.asdict(compare(head, motions))

    exact = report(lambda i, t, true: true)
    assert exact["iod"]["p95"] < 1e-4 and exact["brief"]["p95"] < 1e-4 and exact["peak"]["p95"] < 0.01
    assert exact["measured"] == pytest.approx(0.9, abs=0.02)
    assert exact["segments"] == 1
    # What does not change since the beginning is no error, nor is a slow drift a brief one.
    offset = report(lambda i, t, true: true + 0.05 * (i > 0))
    assert offset["iod"]["median"] == pytest.approx(5 * np.sqrt(2), rel=1e-3)
    assert offset["brief"]["median"] < 1e-3
    half = report(lambda i, t, true: 0.5 * true)
    assert 10 < half["peak"]["median"] < 40 and 40 < half["peak"]["p95"] <= 55
    brows = np.zeros((14, 2))
    brows[:6, 1] = 0.01
    flutter = report(lambda i, t, true: true + brows * np.sin(2 * np.pi * 2 * t))
    assert flutter["region"]["brows"]["p95"] == pytest.approx(1.85, abs=0.2)
    assert flutter["region"]["mouth"]["p95"] < 1e-3


def test_a_new_segment_begins_anew(portrait: Portrait) -> None:
    head = TurningHead(portrait, HeadTurn(duration_s=2.0, injections=(RAISED,)))
    at_start = head.displacement(1.0)
    motions = [
        motion(i, t, head.displacement(t) - at_start * (t >= 1.0), int(t >= 1.0))
        for i, t in enumerate(head.times)
    ]
    error = compare(head, motions)
    assert error.segments == 2
    assert error.iod.p95 < 1e-4


def test_hidden_nodes_are_not_counted(portrait: Portrait) -> None:
    head = TurningHead(portrait, HeadTurn(degrees=60, hz=0.25, duration_s=2.0))
    assert head.visible(0.0).all()
    hidden = ~head.visible(1.0)
    assert hidden[5] and not hidden[[0, 2, 7, 10]].any()
    wrong = np.zeros((14, 2))
    wrong[5] = 0.5

    def seen(t: float) -> bool:
        return bool(head.visible(t)[5])

    motions = [motion(i, t, wrong * (not seen(t))) for i, t in enumerate(head.times)]
    assert compare(head, motions).iod.p95 < 1e-4


def test_nothing_measured_is_no_number() -> None:
    assert np.isnan(Errors.of(np.zeros(0)).median)


def test_rolled_and_mixed_turns_turn(portrait: Portrait) -> None:
    rolled = TurningHead(portrait, HeadTurn(axis="roll", degrees=20, hz=0.25)).nodes_px(1.0)
    ahead = TurningHead(portrait, HeadTurn(degrees=0)).nodes_px(1.0)
    lean = np.degrees(np.arctan2(*(rolled[5] - rolled[0])[::-1]) - np.arctan2(*(ahead[5] - ahead[0])[::-1]))
    assert lean == pytest.approx(20, abs=1.5)
    mixed = TurningHead(portrait, HeadTurn(axis="mixed", degrees=20, hz=0.25)).nodes_px(1.0)
    yawed = TurningHead(portrait, HeadTurn(degrees=20, hz=0.25)).nodes_px(1.0)
    assert np.abs(mixed - yawed).max() > 5


@pytest.mark.parametrize(("axis", "hz"), [("yaw", 0.4), ("pitch", 0.8)])
def test_the_recogniser_follows_a_turning_head(
    portrait: Portrait, landmarker: Path, axis: str, hz: float
) -> None:
    turn = HeadTurn(axis=axis, hz=hz, duration_s=2.5)  # pyright: ignore[reportArgumentType]
    error = measure_head_turn(portrait, turn, landmarker=landmarker)
    assert error.measured == 1.0
    assert error.segments == 1
    # Turned to and fro by 20 degrees, a face that does not move its skin is seen to move it by less than 1 %.
    assert error.iod.median < 1.0
    assert error.brief.median < 0.5
