"""Parts of the demo for themselves: hints, outbox, thumbnails, the report, leftovers, comparing events."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from streamer.demo import clips
from streamer.demo.hints import Hints
from streamer.demo.measure import compare
from streamer.demo.outbox import Outbox, OutboxFull
from streamer.demo.report import report
from streamer.demo.thumbnails import Thumbnails, face_pose, thumbnail
from streamer.graph import NODES
from streamer.messages import Face, Frame, Motion

REST = np.array([node.rest for node in NODES], np.float32)


def _motion(index: int, *, light: float = 120.0, size: float = 100.0, head=(0.0,) * 6) -> Motion:
    turn = np.array([[0.98, -0.2], [0.2, 0.98]]) / np.hypot(0.98, 0.2)
    return Motion(
        frame=index,
        time_s=index / 30,
        segment=1,
        nodes=REST,
        displacement=np.zeros((14, 2), np.float32),
        quality=np.ones(14, np.float32),
        head=np.array(head, np.float32),
        eyes=np.zeros(2, np.float32),
        residual=0.0,
        iod_px=size,
        points_px=(size * REST @ turn.T + (320, 200)).astype(np.float32),
        light=np.full(4, np.log(light), np.float32),
    )


def _hints(
    motions: Sequence[Motion | None], *, has_face: bool = True, others: int = 0, fps: float = 30
) -> list[str]:
    hints, said = Hints(), []
    for i, motion in enumerate(motions):
        face = Face(i, i / 30, np.zeros((478, 3), np.float32), others)
        said = hints.update(face, motion, has_face, fps)
    return said


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (_hints([_motion(i) for i in range(60)]), []),
        (_hints([_motion(i, light=25) for i in range(60)]), ["too_dark"]),
        (_hints([_motion(i, light=240) for i in range(60)]), ["too_bright"]),
        (_hints([_motion(i, size=40) for i in range(60)]), ["too_small"]),
        (_hints([_motion(i, head=(i / 30, 0, 0, 0, 0, 0)) for i in range(60)]), ["too_much_motion"]),
        (_hints([_motion(i, head=(0, 0, 0, 0, i / 30, 0)) for i in range(60)]), ["too_much_motion"]),
        (_hints([_motion(0)], others=1), ["others"]),
        (_hints([_motion(0)], fps=12), ["low_rate"]),
        (_hints([None]), ["not_measured"]),
        (_hints([None], has_face=False), ["no_face"]),
    ],
)
def test_hints_say_what_is_wrong_with_the_picture(said, expected):
    assert said == expected


def test_one_dark_frame_is_no_hint():
    assert _hints([*(_motion(i) for i in range(60)), _motion(60, light=20)]) == []


def _drained(*messages: dict, **sizes: int) -> list[dict]:
    async def run() -> list[dict]:
        outbox = Outbox(**sizes)
        for message in messages:
            outbox.post(message)
        outbox.close()
        await asyncio.sleep(0)  # the loop runs what was posted
        taken = []
        while (message := await outbox.get()) is not None:
            taken.append(message)
        return taken

    return asyncio.run(run())


def test_outbox_drops_old_motion_and_no_event():
    motion = [{"type": "motion", "frame": i} for i in range(9)]
    event = {"type": "event"}
    assert _drained(motion[0], event, *motion[1:], most_fleeting=2) == [event, *motion[-2:]]


def test_outbox_gives_up_a_browser_that_does_not_read():
    with pytest.raises(OutboxFull):
        _drained(*({"type": "event"} for _ in range(4)), most=3)


def test_face_pose_is_where_the_nodes_are():
    motion = _motion(0)
    pose = face_pose(motion)
    np.testing.assert_allclose(REST @ pose[:, :2].T + pose[:, 2], motion.points_px, atol=1e-3)


def test_thumbnails_show_the_face_upright_whatever_the_head_does():
    """A dot on a node is at the same place of the thumbnail for two poses of the head."""
    places = []
    for size in (90.0, 110.0):
        motion = _motion(0, size=size)
        image = np.zeros((480, 640, 3), np.uint8)
        x, y = motion.points_px[8]
        cv2.circle(image, (round(float(x)), round(float(y))), 5, (255, 255, 255), -1)
        face = cv2.imdecode(np.frombuffer(thumbnail(image, face_pose(motion)), np.uint8), 0)
        assert face is not None
        rows, columns = np.nonzero(face > 128)
        places.append((rows.mean(), columns.mean()))
    np.testing.assert_allclose(places[0], places[1], atol=1.0)


@pytest.mark.parametrize("lazy", [True, False])
def test_thumbnails_are_kept_for_some_seconds(lazy):
    thumbnails = Thumbnails(lazy=lazy)
    image = np.full((480, 640, 3), 90, np.uint8)
    made = []
    for i in range(300):
        thumbnails.add(Frame(i, i / 30, 0.0, image), _motion(i), lambda i=i: made.append(i) or image)
    assert thumbnails.of(50) is None
    assert (thumbnails.of(200) or b"")[:2] == b"\xff\xd8"
    assert len(made) == (1 if lazy else 300)


def test_thumbnails_are_bounded_in_bytes():
    thumbnails = Thumbnails(lazy=True)
    image = np.full((480, 640, 3), 90, np.uint8)
    for i in range(100):
        thumbnails.add(Frame(i, i / 1000, 0.0, image), _motion(i), lambda: image, 1_000_000)
    assert thumbnails.of(30) is None
    assert thumbnails.of(40) is not None


def test_the_reports_chart_is_as_long_as_the_clip():
    rows = [[k / 30, 1.0, 1.0, 1.0] for k in range(300)] + [[10.0, 30.0, 30.0, 30.0]]
    result = {
        "name": "a",
        "sensitivity": 0.5,
        "events": [{"type": "stream_ended", "duration_s": 20.0, "frames": 600, "reason": "end of source"}],
        "chart": rows,
        "about": {"engine": "e", "regions": [{"name": name} for name in ("Brows", "Nose", "Mouth")]},
    }
    assert "0 to 20.00 s; 0 to 1.05 % of" in report(result)


def test_report_escapes_what_visitors_write():
    result = {
        "name": "<script>alert(1)</script>",
        "sensitivity": 0.5,
        "events": [],
        "chart": [[0.0, 1.0, 2.0, 3.0]],
        "about": {"engine": "e", "regions": [{"name": name} for name in ("Brows", "Nose", "Mouth")]},
    }
    assert "<script" not in report(result)


def test_clips_of_a_killed_server_are_deleted(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = tmp_path / f"{clips.PREFIX}{gone.pid}-abc"
    alive = tmp_path / f"{clips.PREFIX}1-abc"
    other = tmp_path / f"{clips.PREFIX}x-abc"
    for folder in (mine, alive, other):
        folder.mkdir()
        (folder / "clip").write_bytes(b"x")
    clips._remove_left_behind(tmp_path)
    assert not mine.exists()
    assert alive.exists() and other.exists()


def _expression(onset_s: float, offset_s: float) -> dict:
    apex_s = (onset_s + offset_s) / 2
    moments = {"onset": onset_s, "apex": apex_s, "offset": offset_s}
    return {"type": "micro_expression"} | {name: {"time_s": time_s} for name, time_s in moments.items()}


def test_events_of_a_repeating_clip_are_compared_whatever_its_pace_and_beginning():
    clip = [_expression(t, t + 0.4) for t in (2.0, 4.6, 7.3, 10.0)]
    times = [1.01 * (t + 20 * k) - 1.3 for k in range(3) for t in (2.0, 4.6, 7.3, 10.0)]
    found = [_expression(t, t + 0.4) for t in times[1:]]
    assert compare(clip, found, 20.0, 58.0) == {
        "due": 11,
        "found": 11,
        "elsewhere": 0,
        "more": 0,
        "pace": 1.01,
    }
    wrong = [*found[:5], _expression(times[6] - 0.1, times[6] + 0.4), *found[6:-1], _expression(55, 55.4)]
    counts = compare(clip, wrong, 20.0, 58.0)
    assert (counts["found"], counts["elsewhere"], counts["more"]) == (9, 1, 1)


def test_every_message_of_the_page_has_a_text():
    from streamer.demo.hints import TEXTS

    codes = {
        "no_face",
        "not_measured",
        "too_dark",
        "too_bright",
        "too_small",
        "too_much_motion",
        "others",
        "low_rate",
    }
    assert set(TEXTS) == codes


def test_motion_of_another_segment_is_not_compared():
    jump = [_motion(i) for i in range(30)]
    jump += [replace(_motion(30, head=(9, 0, 0, 0, 0, 0)), segment=2)]
    assert _hints(jump) == []
