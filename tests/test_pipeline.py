"""The wiring: face events, gaps, failures and endings, with a scripted landmark model and real sinks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import picture, write_clip
from numba.core.dispatcher import Dispatcher
from standin import write_engine

from streamer import pipeline
from streamer.config import Config
from streamer.errors import OutputError, SourceError
from streamer.interrupts import Interrupts
from streamer.kernels import patches as kernels_of_patches
from streamer.kernels import pictures as kernels_of_pictures
from streamer.kernels import registration as kernels_of_registration
from streamer.messages import (
    FaceFound,
    FaceLost,
    Frame,
    MacroExpression,
    MicroExpression,
    Reconnected,
    SourceReconnected,
    StreamEnded,
    StreamGap,
    StreamStarted,
)
from streamer.pipeline import Recogniser, look_ahead
from streamer.simulation.facs import TEMPLATE_NODES, motion, profile
from streamer.sinks import StreamStop


def landmarks(x: float = 160.0, y: float = 90.0, iod_px: float = 60.0) -> np.ndarray:
    """A landmark set whose eyes are at a place; the rest lies about them."""
    rng = np.random.default_rng(1)
    points = np.column_stack(
        [rng.uniform(-0.9, 0.9, 478), rng.uniform(-0.5, 1.4, 478), rng.uniform(-0.4, 0.4, 478)]
    )
    points[[33, 133, 362, 263], :2] = (-0.75, 0), (-0.25, 0), (0.25, 0), (0.75, 0)
    return (points * iod_px + (x, y, 0)).astype(np.float32)


class ScriptedTracker:
    """Answers `detect` with what the script says for the frame; counts the questions."""

    def __init__(self, script):
        self.script = script
        self.asked: list[int] = []
        self.frame = 0

    def detect(self, image):
        self.asked.append(self.frame)
        return self.script(self.frame)

    def close(self):
        pass


@pytest.fixture(scope="module")
def image():
    import cv2

    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 255, (240, 320, 3)).astype(np.float32), (0, 0), 2.0)
    return np.clip((smooth - smooth.mean()) * 5 + 128, 0, 255).astype(np.uint8)


def drive(recogniser, tracker, times, image):
    """All events of a run over one still picture."""
    events = []
    for index, time_s in enumerate(times):
        tracker.frame = index
        found, _, _ = recogniser.process(Frame(index, time_s, 0.0, image))
        events += found
    return events


def test_a_face_comes_goes_and_comes_back(engine, image):
    tracker = ScriptedTracker(lambda i: [landmarks()] if i < 30 or i >= 60 else [])
    events = drive(Recogniser(Config(), tracker, engine), tracker, np.arange(90) / 30, image)
    assert [type(event) for event in events] == [FaceFound, FaceLost, FaceFound]
    assert events[0].frame == 0
    assert 30 <= events[1].frame < 45
    assert 60 <= events[2].frame <= 64


def test_one_missing_answer_is_not_a_lost_face(engine, image):
    tracker = ScriptedTracker(lambda i: [] if i in (8, 16) else [landmarks()])
    events = drive(Recogniser(Config(), tracker, engine), tracker, np.arange(60) / 30, image)
    assert [type(event) for event in events] == [FaceFound]


def test_other_faces_are_counted_and_the_largest_followed(engine, image):
    tracker = ScriptedTracker(lambda i: [landmarks(60, 60, 25), landmarks(200, 80, 60)])
    recogniser = Recogniser(Config(), tracker, engine)
    tracker.frame = 0
    events, face, measured = recogniser.process(Frame(0, 0.0, 0.0, image))
    assert events == [FaceFound(0, 0.0, 1)]
    assert face is not None and face.others == 1
    assert measured is not None and measured.iod_px == pytest.approx(60, abs=1)


def test_no_face_at_all_asks_at_the_search_rate(engine, image):
    tracker = ScriptedTracker(lambda i: [])
    assert drive(Recogniser(Config(), tracker, engine), tracker, np.arange(60) / 30, image) == []
    assert len(tracker.asked) == pytest.approx(20, abs=3)  # ten a second


def test_the_landmark_model_runs_at_its_interval(engine, image):
    tracker = ScriptedTracker(lambda i: [landmarks()])
    drive(Recogniser(Config(), tracker, engine), tracker, np.arange(400) / 200, image)
    assert len(tracker.asked) == pytest.approx(4, abs=1)  # two a second at 200 frames a second


def test_gaps_are_reported_with_their_cause(engine, image):
    tracker = ScriptedTracker(lambda i: [landmarks()])
    recogniser = Recogniser(Config(), tracker, engine)
    events = []
    for index, time_s in [(0, 0.0), (1, 0.03), (2, 0.06), (6, 0.26), (7, 0.29), (8, 0.8)]:
        events += recogniser.process(Frame(index, time_s, 0.0, image))[0]
    gaps = [event for event in events if isinstance(event, StreamGap)]
    assert [(gap.frame, round(gap.gap_s, 2), gap.cause) for gap in gaps] == [
        (6, 0.2, "3 frames dropped"),
        (8, 0.51, "no frames from the source"),
    ]


def test_a_slow_source_is_one_gap_and_one_warning(engine, image, caplog):
    tracker = ScriptedTracker(lambda i: [landmarks()])
    events = drive(Recogniser(Config(), tracker, engine), tracker, np.arange(20) / 5, image)
    assert sum(isinstance(event, StreamGap) for event in events) == 1
    assert caplog.text.count("cannot be seen") == 1


class NumberedTracker:
    """Reads the frame's number off its first pixel; answers what the script says for it. Refuses to be
    asked by two threads at once."""

    def __init__(self, script):
        self.script = script
        self.threads: dict[int, str] = {}
        self._busy = threading.Lock()

    def detect(self, image):
        assert self._busy.acquire(blocking=False), "two threads at one landmark model"
        try:
            number = int(image[0, 0, 0])
            self.threads[number] = threading.current_thread().name
            return self.script(number)
        finally:
            self._busy.release()

    def close(self):
        pass


def numbered(count, image):
    """Frames of the picture, with their number in the first pixel."""
    frames = []
    for index in range(count):
        marked = image.copy()
        marked[0, 0] = index
        frames.append(Frame(index, index / 30, 0.0, marked))
    return frames


def _comes_and_goes(number):
    """A face that is missed once, lost, found again, and then moves faster than registration follows."""
    if number == 20 or 47 <= number < 70:
        return []
    return [landmarks(150.0 if number >= 100 else 160.0)]


def test_looking_ahead_changes_nothing_but_the_thread(engine, image):
    frames = numbered(130, image)
    alone, ahead = NumberedTracker(_comes_and_goes), NumberedTracker(_comes_and_goes)
    first, second = Recogniser(Config(), alone, engine), Recogniser(Config(), ahead, engine)
    expected = [first.process(frame) for frame in frames]
    seen = [second.process(frame) for frame in look_ahead(frames, second) if isinstance(frame, Frame)]
    second.close()
    assert [events for events, _, _ in seen] == [events for events, _, _ in expected]
    assert any(isinstance(event, FaceLost) for events, _, _ in seen for event in events)
    for (_, face, moved), (_, face_alone, moved_alone) in zip(seen, expected, strict=True):
        assert (face is None, moved is None) == (face_alone is None, moved_alone is None)
        if moved is not None and moved_alone is not None:
            np.testing.assert_array_equal(moved.displacement, moved_alone.displacement)
    assert alone.threads.keys() <= ahead.threads.keys()
    early = [number for number, name in ahead.threads.items() if name.startswith("landmarks")]
    assert len(early) > 0.8 * len(ahead.threads)
    assert set(alone.threads.values()) == {"MainThread"}


def test_what_the_landmark_model_raises_early_is_raised_at_its_frame(engine, image):
    def script(number):
        if number == 15:
            raise ZeroDivisionError("a bug in a landmark model")
        return [landmarks()]

    recogniser = Recogniser(Config(), NumberedTracker(script), engine)
    done = 0
    with pytest.raises(ZeroDivisionError):
        for frame in look_ahead(numbered(30, image), recogniser):
            assert isinstance(frame, Frame)
            recogniser.process(frame)
            done += 1
    recogniser.close()
    assert done == 15


def test_a_source_that_fails_is_read_to_its_last_frame(engine, image):
    def messages():
        yield from _frames(3, image)
        raise SourceError("the disk is gone")

    recogniser = Recogniser(Config(), ScriptedTracker(lambda i: []), engine)
    seen = []
    with pytest.raises(SourceError, match="disk"):
        for message in look_ahead(messages(), recogniser):
            assert isinstance(message, Frame)
            seen.append(message.index)
    recogniser.close()
    assert seen == [0, 1, 2]


def _moving(recogniser, monkeypatch, field, onset, apex, offset):
    """Let the meter see an expression that the still picture does not show."""
    measure = recogniser._meter.update

    def update(frame, face):
        measured = measure(frame, face)
        level = profile(frame.time_s, onset, apex, offset)
        rng = np.random.default_rng(frame.index)
        moved = field * level + rng.normal(0, 3e-4, (14, 2))
        return replace(
            measured, displacement=moved.astype(np.float32), nodes=TEMPLATE_NODES.astype(np.float32)
        )

    monkeypatch.setattr(recogniser._meter, "update", update)


def test_micro_and_macro_expressions_become_events(engine, image, monkeypatch):
    field = motion(TEMPLATE_NODES, {"AU12": 1.0}) * 0.012
    for length, kind in ((0.36, MicroExpression), (1.2, MacroExpression)):
        tracker = ScriptedTracker(lambda i: [landmarks()])
        recogniser = Recogniser(Config(), tracker, engine)
        _moving(recogniser, monkeypatch, field, 4.0, 4.0 + length / 2, 4.0 + length)
        events = drive(recogniser, tracker, np.arange(240) / 30, image)
        (event,) = [e for e in events if not isinstance(e, FaceFound)]
        assert isinstance(event, kind)
        assert event.id == 1
        assert event.apex.time_s == pytest.approx(4.0 + length / 2, abs=0.08)
        assert event.onset.frame == round(event.onset.time_s * 30)
        assert 0 < event.latency_ms <= (200 if kind is MicroExpression else 600)
        if isinstance(event, MicroExpression):
            assert sum(event.scores.values()) == pytest.approx(1, abs=1e-4)
            assert event.label == max(event.scores, key=lambda name: event.scores[name])
            assert event.name == engine.manifest.class_names[event.label]
            assert set(event.action_units) == set(engine.manifest.action_units)


def test_latency_of_a_live_source_is_measured_on_the_clock(engine, image, monkeypatch):
    import time

    tracker = ScriptedTracker(lambda i: [landmarks()])
    recogniser = Recogniser(Config(), tracker, engine, live=True)
    field = motion(TEMPLATE_NODES, {"AU12": 1.0}) * 0.012
    _moving(recogniser, monkeypatch, field, 4.0, 4.18, 4.36)
    now = time.monotonic()
    events = []
    for index in range(240):
        captured = now - 5.0 + index / 30  # as if each frame had come in real time, the last one in 3 s
        events += recogniser.process(Frame(index, index / 30, captured, image))[0]
    (event,) = [e for e in events if isinstance(e, MicroExpression)]
    expected = (time.monotonic() - (now - 5.0 + event.offset.frame / 30)) * 1e3
    assert event.latency_ms == pytest.approx(expected, abs=5000)
    assert event.latency_ms > 300


class FakeSource:
    """Plays prepared messages; raises at the end if told to."""

    name, width, height, fps, live = "fake", 320, 240, 30.0, True

    def __init__(self, messages, error=None):
        self.messages, self.error = messages, error
        self.drops = {"buffer full": 2}

    def frames(self):
        yield from self.messages
        if self.error is not None:
            raise self.error

    def close(self):
        pass


class Recorder:
    """A sink that keeps what it gets, and fails where it is told to."""

    def __init__(self, fail_at: int | None = None, failure: Exception | None = None):
        self.events, self.frames, self.fail_at, self.failure = [], 0, fail_at, failure

    def on_event(self, event):
        self.events.append(event)

    def on_frame(self, frame, face, motion):
        self.frames += 1
        if self.frames == self.fail_at and self.failure is not None:
            raise self.failure

    def close(self):
        pass


def _frames(count, image):
    return [Frame(i, i / 30, 0.0, image) for i in range(count)]


def _stream(engine, image, source, sink, config=None):
    tracker = ScriptedTracker(lambda i: [landmarks()])
    return pipeline._stream(config or Config(), source, tracker, engine, [sink])


def test_a_stream_has_a_beginning_and_an_end(engine, image):
    sink = Recorder()
    assert _stream(engine, image, FakeSource(_frames(10, image)), sink) == 0
    assert isinstance(sink.events[0], StreamStarted)
    end = sink.events[-1]
    assert isinstance(end, StreamEnded)
    assert (end.reason, end.frames, end.drops) == ("end of source", 10, {"buffer full": 2})
    assert end.duration_s == pytest.approx(0.3)
    assert {"track", "motion", "spot", "all stages"} <= set(end.stages_ms)
    assert all(t["p50"] <= t["p95"] <= t["p99"] for t in end.stages_ms.values())


def test_max_frames_stops_the_stream(engine, image):
    sink = Recorder()
    _stream(engine, image, FakeSource(_frames(10, image)), sink, Config(max_frames=4))
    assert (sink.events[-1].reason, sink.events[-1].frames) == ("max frames", 4)


def test_a_reconnection_is_told_with_the_frame_that_follows(engine, image):
    first, second, third = _frames(3, image)
    messages = [first, second, Reconnected(0.03, 1.5, 3, "read failed"), third]
    sink = Recorder()
    _stream(engine, image, FakeSource(messages), sink)
    assert SourceReconnected(2, 2 / 30, 1.5, 3, "read failed") in sink.events


def test_a_source_lost_for_good_still_ends_the_stream(engine, image):
    sink = Recorder()
    source = FakeSource(_frames(5, image), SourceError("camera 0 is gone"))
    with pytest.raises(SourceError, match="gone"):
        _stream(engine, image, source, sink)
    assert (sink.events[-1].reason, sink.events[-1].frames) == ("camera 0 is gone", 5)


def test_a_full_disk_ends_the_stream_after_telling_the_others(engine, image):
    failing = Recorder(fail_at=3, failure=OutputError("events.jsonl: no space left"))
    with pytest.raises(OutputError, match="no space"):
        _stream(engine, image, FakeSource(_frames(9, image)), failing)
    assert isinstance(failing.events[-1], StreamEnded)


def test_a_closed_window_ends_the_stream_without_an_error(engine, image):
    sink = Recorder(fail_at=3, failure=StreamStop("window closed"))
    assert _stream(engine, image, FakeSource(_frames(9, image)), sink) == 0
    assert sink.events[-1].reason == "window closed"


def test_ctrl_c_finishes_the_frame_and_exits_130(engine, image):
    """The signal comes while a frame is worked on: that frame is completed, the end is written."""

    class Interrupting(Recorder):
        def on_frame(self, frame, face, motion):
            super().on_frame(frame, face, motion)
            if self.frames == 4:
                os.kill(os.getpid(), signal.SIGINT)

    sink = Interrupting()
    assert _stream(engine, image, FakeSource(_frames(9, image)), sink) == 130
    assert (sink.events[-1].reason, sink.events[-1].frames) == ("interrupted", 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_does_not_wait():
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        for _ in interrupts.between(range(3)):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second signal was swallowed")


def test_an_interrupt_ends_the_wait_for_a_frame():
    def never():
        os.kill(os.getpid(), signal.SIGINT)
        yield pytest.fail("waited on")

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        list(interrupts.between(never()))


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


ROOT = Path(__file__).parent.parent


def test_a_clip_without_a_face_runs_to_its_end(tmp_path, landmarker):
    """The real program, end to end: no face is no error."""
    folder = tmp_path / "standin"
    write_engine(folder)
    write_clip(tmp_path / "clip.mp4", [picture(i, 320, 240) for i in range(30)])
    done = _run("--source", str(tmp_path / "clip.mp4"), "--engine", str(folder), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events] == ["stream_started", "stream_ended"]
    assert events[-1]["frames"] == 30


def test_the_live_program_imports_neither_torch_nor_train():
    code = (
        "import sys, streamer.pipeline; "
        "sys.exit(str([m for m in sys.modules if m.split('.')[0] in ('torch', 'train')] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stderr.strip() == ""


def test_the_base_install_compiles_every_kernel(tmp_path):
    """What only the extras bring must not be needed, least of all by Numba, which calls SciPy if it may."""
    write_engine(tmp_path / "standin")
    code = (
        "import sys\n"
        "for name in ('scipy', 'torch', 'skimage', 'onnx', 'safetensors', 'tqdm'): sys.modules[name] = None\n"
        "from streamer.config import Config\n"
        "from streamer.engine import load_engine\n"
        "from streamer.pipeline import warm_up\n"
        "warm_up(Config(), load_engine(sys.argv[1], 'cpu'))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "standin")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_compiled_once_the_stream_runs(engine, image):
    pipeline.warm_up(Config(), engine)
    kernels = [
        (name, kernel)
        for module in (kernels_of_patches, kernels_of_pictures, kernels_of_registration)
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
    ]
    compiled = {name: len(kernel.signatures) for name, kernel in kernels}
    tracker = ScriptedTracker(lambda i: [landmarks()])
    drive(Recogniser(Config(), tracker, engine), tracker, np.arange(40) / 30, image)
    assert {name: len(kernel.signatures) for name, kernel in kernels} == compiled
