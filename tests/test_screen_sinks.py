"""The window and the terminal."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from sink_samples import (
    Screen,
    child_environment,
    face,
    frame,
    macro,
    micro,
    motion,
    one_of_each,
)

from streamer.config import Config
from streamer.errors import UsageError
from streamer.messages import StreamStarted
from streamer.sinks import (
    JsonLinesSink,
    StreamStop,
    TerminalSink,
    WindowSink,
    close_sinks,
    describe,
    open_sinks,
    window,
)


class FakeScreen:
    """Stands in for OpenCV's window functions."""

    def __init__(self, monkeypatch) -> None:
        self.pictures: list[np.ndarray] = []
        self.key = -1
        self.visible = 1.0
        self.size = (0, 0)
        monkeypatch.setattr(window, "check_display", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
        monkeypatch.setattr(cv2, "resizeWindow", self._resize)
        monkeypatch.setattr(cv2, "imshow", lambda title, picture: self.pictures.append(picture.copy()))
        monkeypatch.setattr(cv2, "waitKey", lambda delay: self.key)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: self.visible)
        monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)

    def _resize(self, title: str, width: int, height: int) -> None:
        self.size = (width, height)


def test_window_shows_the_newest_frame_and_skips_those_in_between(monkeypatch):
    screen = FakeScreen(monkeypatch)
    now = [0.0]
    sink = WindowSink(clock=lambda: now[0])
    for index in range(100):
        now[0] = index * 0.005  # 200 frames a second
        picture = frame(index)
        picture.image[:] = index
        sink.on_frame(picture, None, None)
    sink.close()
    levels = [int(picture[300, 5, 0]) for picture in screen.pictures]
    assert levels == list(range(0, 100, 7))


@pytest.mark.parametrize("act", [{"key": ord("q")}, {"key": 27}, {"visible": 0.0}])
def test_q_escape_or_closing_the_window_stops_the_stream(monkeypatch, act):
    screen = FakeScreen(monkeypatch)
    sink = WindowSink(clock=iter(range(10)).__next__)
    sink.on_frame(frame(0), None, None)
    vars(screen).update(act)
    with pytest.raises(StreamStop, match="window closed"):
        sink.on_frame(frame(1), None, None)
    sink.close()


def test_closed_window_is_not_opened_again(monkeypatch):
    screen = FakeScreen(monkeypatch)
    sink = WindowSink(clock=iter(range(10)).__next__)
    sink.on_frame(frame(0), None, None)
    screen.visible = 0.0
    with pytest.raises(StreamStop):
        sink.on_frame(frame(1), None, None)
    assert len(screen.pictures) == 1


def test_large_pictures_open_in_a_window_that_fits_a_screen(monkeypatch):
    screen = FakeScreen(monkeypatch)
    WindowSink(clock=iter(range(10)).__next__).on_frame(frame(0, 1920, 1080), None, None)
    height, width = screen.pictures[0].shape[:2]
    assert screen.size[0] <= 1280 and screen.size[1] <= 860
    assert Fraction(*screen.size) == pytest.approx(width / height, rel=0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are named so on Linux only")
def test_no_display_is_one_line_up_front(monkeypatch, tmp_path):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="^--show needs a display.*leave out --show"):
        open_sinks(Config(events=str(tmp_path / "a"), show=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are named so on Linux only")
def test_display_that_cannot_be_reached_does_not_take_the_process_down(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":98765")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="^--show: OpenCV cannot open a window .*98765") as caught:
        WindowSink()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    shutil.which("Xvfb") is None, reason="Xvfb is not installed: no real window can be opened"
)
def test_real_window_opens_and_stops_the_stream_when_it_is_closed():
    script = """
import cv2
from sink_samples import frame, motion
from streamer.sinks import StreamStop, WindowSink
from streamer.sinks.window import TITLE
sink = WindowSink(clock=iter(range(10)).__next__)
for index in range(3):
    sink.on_frame(frame(index), None, motion(index))
print(cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE))
cv2.destroyWindow(TITLE)
try:
    sink.on_frame(frame(3), None, None)
except StreamStop as stop:
    print(stop)
sink.close()
sink.close()
"""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x800x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL) as server:
        try:
            os.close(writer)
            with os.fdopen(reader) as lines:
                display = f":{lines.readline().strip()}"
            environment = {**child_environment(), "DISPLAY": display}
            said = subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
            )
        finally:
            server.terminate()
    assert said.stdout.splitlines() == ["1.0", "window closed"]


def test_status_line_counts_and_is_rewritten_every_fifth_of_a_second_of_the_stream():
    screen = Screen()
    sink = TerminalSink(screen, with_events=False)
    for index in (*range(60), *range(65, 100)):  # five frames were dropped
        sink.on_frame(frame(index, 8, 8), None, motion(index) if index < 70 else None)
    assert screen.rows() == ["30 fps | 95 frames, 5 dropped | face: no | micro-expressions: 0"]
    assert 13 <= screen.getvalue().count("fps") <= 17  # 3.3 s of stream
    sink.on_event(micro())
    sink.on_frame(frame(100, 8, 8), face(100), None)
    cut = "30 fps | 96 frames, 5 dropped | face: yes | micro-expressions: 1 | last: anger"  # at 80 columns
    assert screen.rows() == [cut]
    sink.close()
    assert screen.rows() == [""]


def test_json_on_the_same_terminal_starts_on_a_clean_line():
    screen = Screen()
    sink = TerminalSink(screen, with_events=False)
    sink.on_frame(frame(0, 8, 8), None, None)
    sink.on_event(micro())
    screen.write("{}\n")  # as JsonLinesSink does next
    sink.on_frame(frame(1, 8, 8), None, None)
    assert screen.rows()[0] == "{}" and "2 frames" in screen.rows()[1]


def test_events_in_words():
    screen = Screen()
    sink = TerminalSink(screen, with_events=True)
    for event in one_of_each():
        sink.on_event(event)
    assert screen.rows()[:-1] == [
        "clip.mp4: 640x480, 29.97 fps; engine gtsgn-simulated",
        "    0.000 s  face found, 1 more in view are not followed",
        "    1.000 s  anger (III) 88%, AU4 91% AU7 55% AU23 10%, 200 ms, 1.6% IOD",
        "    1.000 s  longer movement, 800 ms, 2.0% IOD",
        "    2.333 s  face lost",
        "    2.500 s  no frame for 0.250 s: camera stalled",
        "    3.000 s  source is back after 1.2 s (try 4): connection reset",
        "end of source: 100 frames in 3.3 s, 1 dropped (stall); micro-expressions: 1, longer movements: 1",
    ]


def test_text_from_outside_cannot_steer_the_terminal():
    odd = "a\x1b[2J\x9b31m\r\nb\x07\u202e\u2028.mp4"
    line = describe(StreamStarted(odd, 1, 1, 30.0, "e\x1b]0;x\x07", {}))
    assert line == "a?[2J?31m??b???.mp4: 1x1, 30 fps; engine e?]0;x?"
    sink = TerminalSink(screen := Screen(), with_events=False)
    sink.on_event(replace(micro(), name="\x1b[31m"))
    sink.on_frame(frame(0, 8, 8), None, None)
    assert "\x1b" not in screen.getvalue()


def test_terminal_sink_only_on_a_terminal_and_events_in_words_only_when_json_goes_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sinks = open_sinks(Config(events=str(tmp_path / "a")))
    close_sinks(sinks)
    assert [type(sink) for sink in sinks] == [JsonLinesSink]
    for stdout, target, in_words in (
        (Screen(), "-", False),
        (io.StringIO(), "-", True),
        (Screen(), str(tmp_path / "b"), True),
    ):
        screen = Screen()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(sys, "stdout", stdout)
        sinks = open_sinks(Config(events=target))
        sinks[0].on_event(macro())
        close_sinks(sinks)
        assert ("longer movement" in screen.getvalue()) is in_words
