"""The spotter on displacement made up by the test: exact truth, any frame rate, no pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.config import SpottingConfig
from streamer.messages import KeyFrames, Motion
from streamer.simulation.facs import TEMPLATE_NODES, motion, profile
from streamer.spotting import Spotter

NOISE = 0.0003


def _motion(frame: int, time_s: float, displacement: np.ndarray, **changes) -> Motion:
    base = Motion(
        frame=frame,
        time_s=time_s,
        segment=0,
        nodes=TEMPLATE_NODES.astype(np.float32),
        displacement=displacement.astype(np.float32),
        quality=np.ones(14, np.float32),
        head=np.zeros(6, np.float32),
        eyes=np.zeros(2, np.float32),
        residual=0.001,
        iod_px=110.0,
        points_px=np.zeros((14, 2), np.float32),
        light=np.full(4, 4.8, np.float32),
    )
    return replace(base, **changes)


def _field(units: dict[str, float], peak: float) -> np.ndarray:
    field = motion(TEMPLATE_NODES, units)
    return field * peak / np.hypot(*field.T).max()


def _times(fps: float, duration_s: float, jitter: float = 0.0) -> np.ndarray:
    count = round(fps * duration_s)
    rng = np.random.default_rng(9)
    return (np.arange(count) + jitter * rng.uniform(-0.5, 0.5, count)) / fps + 1.0


def _spot(times, displacement, config=None, sensitivity=0.5, **streams) -> tuple[list[KeyFrames], Spotter]:
    """streams: per-frame arrays for other fields of Motion."""
    spotter = Spotter(config or SpottingConfig(), sensitivity)
    rng = np.random.default_rng(4)
    found = []
    for i, time_s in enumerate(times):
        noisy = displacement(time_s) + rng.normal(0, NOISE, (14, 2))
        found += spotter.update(_motion(i, time_s, noisy, **{k: v[i] for k, v in streams.items()}))
    return found, spotter


SMILE = {"AU12": 1.0}


@pytest.mark.parametrize(("fps", "jitter"), [(25, 0.0), (30, 0.6), (60, 0.0), (120, 0.3), (200, 0.0)])
@pytest.mark.parametrize("units", [SMILE, {"AU1": 1.0, "AU2": 1.0}, {"AU4": 1.0}, {"AU15": 1.0}])
def test_one_expression_is_found_at_any_frame_rate(fps, jitter, units):
    field = _field(units, 0.015)
    found, _ = _spot(_times(fps, 6, jitter), lambda t: field * profile(t, 4.0, 4.18, 4.38))
    assert [event.kind for event in found] == ["micro"]
    event = found[0]
    frame_s = 1 / fps
    assert event.onset.time_s == pytest.approx(4.0, abs=0.06 + frame_s)
    assert event.apex.time_s == pytest.approx(4.18, abs=0.02 + frame_s)
    assert event.offset.time_s == pytest.approx(4.38, abs=0.06 + frame_s)
    assert event.strength == pytest.approx(0.015, rel=0.15)
    moved = event.nodes[1] - event.nodes[0]
    assert np.linalg.norm(moved - field) < 0.15 * np.linalg.norm(field)
    np.testing.assert_allclose(event.nodes[0], TEMPLATE_NODES, atol=1e-6)


@pytest.mark.parametrize("larger", ["AU1", "AU12"])
def test_the_strength_is_that_of_the_whole_face(larger):
    """Whichever part of the face the expression was found in."""
    smaller = {"AU1": "AU12", "AU12": "AU1"}[larger]
    field = _field({larger: 1.0}, 0.015) + _field({smaller: 1.0}, 0.006)
    found, _ = _spot(_times(30, 6), lambda t: field * profile(t, 4.0, 4.18, 4.38))
    assert [event.kind for event in found] == ["micro"]
    assert found[0].strength == pytest.approx(np.hypot(*field.T).max(), rel=0.15)


def test_the_decision_comes_soon_after_the_offset():
    field = _field(SMILE, 0.015)
    times = _times(30, 6)
    found, _ = _spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38))
    assert times[found[0].decided_frame] - found[0].offset.time_s < 0.2


def test_sensitivity_is_a_threshold_on_the_confidence():
    """A faint movement: the reports are those of a confidence of 1 - sensitivity or more."""
    field, times = _field({"AU4": 1.0}, 0.0016), _times(30, 60)

    def faint(t):
        return field * max(profile(t, onset, onset + 0.15, onset + 0.3) for onset in range(4, 58, 3))

    everything, _ = _spot(times, faint, sensitivity=1.0)
    assert all(0.0 <= event.confidence <= 1.0 for event in everything)
    counts = []
    for sensitivity in (0.02, 0.3, 0.5, 0.7):
        found, spotter = _spot(times, faint, sensitivity=sensitivity)
        assert all(event.confidence >= 1.0 - sensitivity for event in found)
        assert len(found) + spotter.rejected["unsure"] > 0
        counts.append(len(found))
    assert counts == sorted(counts) and counts[0] < len(everything)


def test_a_clear_expression_has_more_confidence_than_a_restless_one():
    field, times = _field(SMILE, 0.01), _times(30, 8)
    rng = np.random.default_rng(1)
    stir = 0.0012 * rng.normal(size=len(times))
    clear, _ = _spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), sensitivity=1.0)
    restless, _ = _spot(
        times,
        lambda t: field * (profile(t, 4.0, 4.18, 4.38) + 100 * stir[np.searchsorted(times, t)]),
        sensitivity=1.0,
    )
    assert clear[0].confidence > 0.9
    assert all(event.confidence < clear[0].confidence for event in restless)


def test_noise_alone_gives_nothing():
    found, _ = _spot(_times(30, 40), lambda t: np.zeros((14, 2)))
    assert found == []


def test_a_drift_and_a_change_of_posture_give_nothing():
    field = _field(SMILE, 0.03)
    found, _ = _spot(
        _times(30, 12), lambda t: field * (t - 1) / 4 + field * profile(t, 4, 4.2, 99, 1, 1 - 1e-6)
    )
    assert found == []


@pytest.mark.parametrize("length_s", [0.8, 1.2, 2.0])
@pytest.mark.parametrize("units", [SMILE, {"AU4": 1.0, "AU12": 1.0}])
def test_a_slow_expression_is_one_macro(length_s, units):
    field = _field(units, 0.03)
    found, _ = _spot(
        _times(30, 10), lambda t: field * profile(t, 5.0, 5 + 0.45 * length_s, 5 + length_s, hold=0.2)
    )
    assert [event.kind for event in found] == ["macro"]
    assert found[0].onset.time_s == pytest.approx(5.0, abs=0.15)
    assert found[0].offset.time_s == pytest.approx(5 + length_s, abs=0.2)


def test_two_expressions_in_a_row_are_two():
    field, other = _field(SMILE, 0.015), _field({"AU4": 1.0}, 0.015)
    found, _ = _spot(
        _times(30, 8),
        lambda t: field * profile(t, 4.0, 4.15, 4.3) + other * profile(t, 5.0, 5.15, 5.3),
    )
    assert [event.apex.time_s for event in found] == pytest.approx([4.15, 5.15], abs=0.04)


def test_a_partial_return_is_still_an_expression():
    field = _field(SMILE, 0.015)
    found, _ = _spot(_times(30, 8), lambda t: field * profile(t, 4.0, 4.18, 4.38, residual=0.3))
    assert len(found) == 1
    left = np.linalg.norm(found[0].nodes[2] - found[0].nodes[0])
    assert left / np.linalg.norm(found[0].nodes[1] - found[0].nodes[0]) == pytest.approx(0.3, abs=0.1)


def test_a_blink_in_step_is_rejected_and_one_elsewhere_is_not():
    field = _field({"AU4": 1.0}, 0.006)
    times = _times(30, 8)
    shut = np.array([[profile(t, 4.0, 4.1, 4.25)] * 2 for t in times], np.float32)
    found, spotter = _spot(times, lambda t: field * profile(t, 4.0, 4.1, 4.25), eyes=shut)
    assert found == []
    assert spotter.rejected["blink"] >= 1
    later = np.array([[profile(t, 6.0, 6.1, 6.25)] * 2 for t in times], np.float32)
    found, _ = _spot(times, lambda t: field * profile(t, 4.0, 4.1, 4.25), eyes=later)
    assert len(found) == 1


@pytest.mark.parametrize(("quarter", "units"), [(0, {"AU4": 1.0}), (1, {"AU4": 1.0}), (2, SMILE), (3, SMILE)])
def test_light_that_changes_in_step_is_rejected_and_steady_light_is_not(quarter, units):
    field = _field(units, 0.015)
    times = _times(30, 8)
    light = np.full((len(times), 4), 4.8, np.float32)
    light[:, quarter] += [0.1 * profile(t, 4.0, 4.18, 4.38) for t in times]
    found, spotter = _spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), light=light)
    assert found == []
    assert spotter.rejected["light"] >= 1
    drifting = np.full((len(times), 4), 4.8, np.float32) + 0.05 * times[:, None].astype(np.float32)
    assert len(_spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), light=drifting)[0]) == 1


def test_a_hand_before_the_face_is_no_expression():
    field = _field(SMILE, 0.03)
    times = _times(30, 8)
    quality = np.ones((len(times), 14), np.float32)
    quality[(times > 4.1) & (times < 4.3)] = 0.2
    found, spotter = _spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), quality=quality)
    assert found == []
    assert spotter.rejected["covered"] >= 1


def test_what_is_too_large_to_be_subtle_is_rejected():
    field = _field(SMILE, 0.2)
    found, spotter = _spot(_times(30, 8), lambda t: field * profile(t, 4.0, 4.18, 4.38))
    assert found == []
    assert spotter.rejected["too large"] >= 1


def test_a_smile_during_a_blink_is_kept():
    field = _field(SMILE, 0.015)
    times = _times(30, 8)
    shut = np.array([[profile(t, 4.0, 4.1, 4.25)] * 2 for t in times], np.float32)
    found, _ = _spot(times, lambda t: field * profile(t, 4.0, 4.1, 4.3), eyes=shut)
    assert len(found) == 1


def test_speech_is_rejected():
    field = _field({"AU26": 1.0}, 0.03)
    found, spotter = _spot(
        _times(30, 16), lambda t: field * max(0.0, np.sin(2 * np.pi * 3.1 * t)) * (4 < t < 14)
    )
    assert len(found) <= 2  # the first syllables are not yet speech
    assert spotter.rejected["speech"] + spotter.rejected["restless"] > 3


def test_a_rigid_shift_of_all_nodes_is_the_head():
    shift = np.tile([0.02, 0.01], (14, 1))
    found, spotter = _spot(_times(30, 8), lambda t: shift * profile(t, 4.0, 4.18, 4.38))
    assert found == []
    assert spotter.rejected["head"] >= 1


def test_head_motion_raises_the_threshold():
    field = _field(SMILE, 0.0025)
    times = _times(30, 8)
    head = np.zeros((len(times), 6), np.float32)
    assert len(_spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), head=head)[0]) == 1
    head[:, 4] = [0.8 * profile(t, 3.9, 4.18, 4.5) for t in times]
    assert _spot(times, lambda t: field * profile(t, 4.0, 4.18, 4.38), head=head)[0] == []


def test_what_the_head_leaves_in_the_displacement_is_learned_and_taken_out():
    """Registration under a turning head errs in proportion to the turn: as large as the expression, here."""
    field, times = _field(SMILE, 0.006), _times(30, 20)
    rng = np.random.default_rng(6)
    leak = 0.03 * rng.normal(size=(14, 2))
    head = np.zeros((len(times), 6), np.float32)
    head[:, 4] = 0.12 * np.sin(2 * np.pi * 0.6 * times) + 0.06 * np.sin(2 * np.pi * 1.4 * times + 1)

    def moved(t):
        return field * profile(t, 14.0, 14.18, 14.38) + leak * head[np.searchsorted(times, t), 4]

    found, _ = _spot(times, moved, head=head)
    assert [event.kind for event in found] == ["micro"]
    assert found[0].apex.time_s == pytest.approx(14.18, abs=0.07)
    assert found[0].strength == pytest.approx(0.006, rel=0.4)
    blind, _ = _spot(times, moved, SpottingConfig(leak_ridge=100.0), head=head)
    assert [event.strength for event in blind] != [found[0].strength]
    assert len(blind) != 1 or abs(blind[0].strength - 0.006) > abs(found[0].strength - 0.006)


def test_a_node_that_was_lost_begins_anew_without_a_movement():
    """The mouth's patches wander off and are brought back: a step of a node of no quality is none."""
    times = _times(30, 8)
    quality = np.ones((len(times), 14), np.float32)
    quality[90, 13] = 0.0
    found, spotter = _spot(
        times,
        lambda t: np.where(np.arange(14)[:, None] == 13, 0.2 * (t >= times[90]), 0.0) * np.ones((14, 2)),
        quality=quality,
    )
    assert found == []
    assert not spotter.rejected
    assert np.ptp(spotter._values[: spotter._count, 2 * 13]) < 0.01


def test_ten_frames_a_second_are_watched():
    """Their interval is that of a gap, but for rounding."""
    found, _ = _spot(np.arange(80) / 10, lambda t: _field(SMILE, 0.015) * profile(t, 4.0, 4.25, 4.5))
    assert len(found) == 1


def test_what_is_no_number_empties_the_window():
    spotter = Spotter(SpottingConfig(), sensitivity=1.0)
    for i, time_s in enumerate(_times(30, 6)):
        moved = np.full((14, 2), np.nan) if i == 60 else np.zeros((14, 2))
        assert spotter.update(_motion(i, time_s, moved)) == []
    assert np.isfinite(spotter._values[: spotter._count]).all()
    assert spotter._count == 180 - 61


def test_a_movement_too_large_anywhere_is_no_micro_expression():
    """Found in the mouth, where it is small: the brow moves too far."""
    field = _field({"AU1": 1.0, "AU2": 1.0}, 0.15) + _field(SMILE, 0.02)
    found, spotter = _spot(_times(30, 8), lambda t: field * profile(t, 4.0, 4.18, 4.38), sensitivity=1.0)
    assert [event for event in found if event.kind == "micro"] == []
    assert spotter.rejected["too large"] >= 1


def test_a_gap_or_a_new_segment_empties_the_window():
    """A step across a hole must not look like a rise; nor may two segments be compared."""
    spotter = Spotter(SpottingConfig())
    rng = np.random.default_rng(0)
    found = []
    for i, time_s in enumerate(_times(30, 8)):
        late = time_s > 4
        moved = rng.normal(0, NOISE, (14, 2)) + (0.05 if 4 < time_s < 4.3 else 0.0)
        found += spotter.update(_motion(i, time_s + (1.0 if late else 0.0), moved, segment=int(time_s > 4.3)))
    assert found == []


def test_cost_and_memory_are_bounded():
    """Ninety seconds at 200 frames a second: the window never outgrows its arrays."""
    spotter = Spotter(SpottingConfig())
    rng = np.random.default_rng(0)
    for i in range(18000):
        spotter.update(_motion(i, i / 200, rng.normal(0, 0.004, (14, 2))))
        assert len(spotter._open) <= spotter.config.most_open
        assert spotter._count <= len(spotter._times)
        assert all(len(ring) < 200 for ring in spotter._rings)
