"""Live sources: newest frames first, every loss counted, back after an outage, never hanging.

The devices are played by scripts and the clock is turned by them: nothing here waits for real time,
but for the watchdog's tests, whose stall limit is 50 ms.
"""

from __future__ import annotations

import http.server
import logging
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import cv2
import media
import numpy as np
import pytest

from streamer.config import CaptureConfig, Config
from streamer.errors import SourceError
from streamer.messages import U8, Frame, Reconnected
from streamer.sources import LiveSource, camera, list_cameras, live, open_source
from streamer.sources import base as sources_base
from streamer.sources.base import MAX_SIDE_PX
from streamer.sources.camera import CameraOpener
from streamer.sources.ffmpeg import open_file
from streamer.sources.live import DeviceLost
from streamer.sources.stream import StreamDevice, StreamOpener

FPS = 32  # a power of two: sums of its periods are exact
PATIENCE_S = 10.0


class FakeClock:
    """Monotonic seconds that pass only when a script or a pause says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class ScriptedDevice:
    """Plays a list of reads: "ok", "fail" (no picture), "damaged", "lost", an exception, or an event to
    hang on. Each takes one period of the fake clock. A finished script is "lost"."""

    fps: float | None = FPS

    def __init__(self, clock: FakeClock, script: Sequence[Any], size: tuple[int, int] = (16, 12)) -> None:
        self.width, self.height = size
        self._clock = clock
        self._script = iter(script)
        self._image = np.zeros((size[1], size[0], 3), np.uint8)
        self._damaged = False
        self.released = 0

    def grab(self) -> bool:
        step = next(self._script, "lost")
        self._clock.now += 1 / FPS
        self._damaged = step == "damaged"
        if step == "lost":
            raise DeviceLost("unplugged")
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            self._clock.now += 1000.0
            assert step.wait(PATIENCE_S)
        return step != "fail"

    def retrieve(self) -> U8 | None:
        return None if self._damaged else self._image.copy()

    def release(self) -> None:
        self.released += 1


class ScriptedOpener:
    """Opens devices with the given scripts in turn; None refuses to open, and so does the end."""

    name = "scripted camera"

    def __init__(self, clock: FakeClock, *scripts: Sequence[Any] | ScriptedDevice | None) -> None:
        self._clock = clock
        self._scripts = list(scripts)
        self.devices: list[ScriptedDevice] = []

    def open(self) -> ScriptedDevice:
        script = self._scripts.pop(0) if self._scripts else None
        if script is None:
            raise SourceError("it does not open")
        device = script if isinstance(script, ScriptedDevice) else ScriptedDevice(self._clock, script)
        self.devices.append(device)
        return device


def scripted(*scripts: Sequence[Any] | ScriptedDevice | None, **capture: Any) -> tuple[LiveSource, FakeClock]:
    clock = FakeClock()
    config = CaptureConfig(**{"buffer_frames": 1000, **capture})
    return LiveSource(ScriptedOpener(clock, *scripts), config, clock=clock, sleep=clock.sleep), clock


def until_lost(messages: Iterator[Frame | Reconnected]) -> tuple[list[Frame | Reconnected], str]:
    """All messages, and the SourceError that ends them."""
    received: list[Frame | Reconnected] = []
    with pytest.raises(SourceError) as caught:
        received.extend(messages)
    return received, str(caught.value)


def frames_of(messages: Sequence[Frame | Reconnected]) -> list[Frame]:
    return [message for message in messages if isinstance(message, Frame)]


def read_out(source: LiveSource) -> Iterator[Frame | Reconnected]:
    """Start reading, and begin to take messages only once the reader has finished."""
    messages = source.frames()
    assert source._reader is not None
    assert source._reader.thread is not None
    source._reader.thread.join(PATIENCE_S)
    assert not source._reader.thread.is_alive()
    return messages


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read ")]


# Frames and drops


def test_frames_are_stamped_right_after_the_grab_on_the_monotonic_clock():
    source, _ = scripted(["ok"] * 5)
    messages, _ = until_lost(source.frames())
    frames = frames_of(messages)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == [i / FPS for i in range(5)]
    assert [frame.captured_s for frame in frames] == [1000.0 + (i + 1) / FPS for i in range(5)]
    assert (source.name, source.width, source.height, source.fps) == ("scripted camera", 16, 12, FPS)
    assert source.live


def test_late_consumer_gets_the_newest_frames_and_the_others_are_counted():
    source, _ = scripted(["ok"] * 20, buffer_frames=4)
    received = frames_of(until_lost(read_out(source))[0])
    assert [frame.index for frame in received] == [16, 17, 18, 19]
    assert received[0].time_s == 16 / FPS
    assert source.drops == {"buffer full": 16}


@pytest.mark.parametrize(("fps", "kept"), [(30.0, 4), (200.0, 20), (90_000.0, 24), (None, 4)])
def test_buffer_of_a_fast_camera_holds_a_tenth_of_a_second(fps, kept):
    clock = FakeClock()
    device = ScriptedDevice(clock, ["ok"] * 60)
    device.fps = fps
    source = LiveSource(ScriptedOpener(clock, device), CaptureConfig(), clock=clock, sleep=clock.sleep)
    assert len(frames_of(until_lost(read_out(source))[0])) == kept
    assert source.drops == {"buffer full": 60 - kept}


def test_reconnected_is_never_dropped():
    source, _ = scripted(["ok"] * 10, ["ok"] * 10, buffer_frames=4)
    received, _ = until_lost(read_out(source))
    assert isinstance(received[0], Reconnected)
    assert [frame.index for frame in frames_of(received)] == [17, 18, 19]
    assert source.drops == {"buffer full": 17}


def test_failed_reads_are_counted_and_keep_their_numbers():
    source, clock = scripted(["ok", "fail", "ok", "damaged", "ok", "fail", "fail", "fail", "ok"])
    messages, _ = until_lost(source.frames())
    assert [frame.index for frame in frames_of(messages)] == [0, 2, 4, 8]
    assert source.drops == {"read failed": 5}
    # One failure is retried at once, since the next frame may be there; more wait a frame each.
    assert clock.pauses[:3] == [1 / FPS, 1 / FPS, live.FIRST_BACKOFF_S]


def test_times_increase_even_where_the_clock_stands_still():
    class StandingClock(FakeClock):
        def __call__(self) -> float:
            return float(int(self.now))

    clock = StandingClock()
    opener = ScriptedOpener(clock, ["ok"] * 40)
    source = LiveSource(opener, CaptureConfig(buffer_frames=100), clock=clock, sleep=clock.sleep)
    times = [frame.time_s for frame in frames_of(until_lost(source.frames())[0])]
    assert len(times) == 40
    assert (np.diff(times) > 0).all()


def test_memory_stays_flat_over_20000_frames():
    source, _ = scripted(["ok"] * 20_000, buffer_frames=4)
    early = seen = 0
    tracemalloc.start()
    try:
        with pytest.raises(SourceError):
            for message in source.frames():
                assert isinstance(message, Frame)
                seen += 1
                if early == 0 and message.index >= 2_000:
                    early = tracemalloc.get_traced_memory()[0]
    finally:
        late, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert early > 0
    assert seen + source.drops.get("buffer full", 0) == 20_000
    assert late - early < 50_000  # a kept frame is 576 bytes and more: 18,000 of them over 10 MB
    assert peak < 1_000_000


# Outages


def test_reconnects_with_growing_pauses_and_goes_on():
    source, clock = scripted(["ok"] * 5, None, None, ["ok"] * 5, reconnect_s=30.0)
    messages, error = until_lost(source.frames())
    kinds = [type(message).__name__ for message in messages]
    assert kinds == ["Frame"] * 5 + ["Reconnected"] + ["Frame"] * 5
    back = messages[5]
    assert isinstance(back, Reconnected)
    assert back.attempts == 3
    assert back.cause == "unplugged"
    frames = frames_of(messages)
    assert back.time_s == frames[4].time_s
    # One period until the loss is noticed, the pauses, one period for the first frame.
    assert back.lost_s == pytest.approx(0.25 + 0.5 + 1.0 + 2 / FPS)
    assert frames[5].time_s == pytest.approx(back.time_s + back.lost_s)
    assert [frame.index for frame in frames] == list(range(10))
    # The second outage starts again at the shortest pause, and ends the source.
    assert clock.pauses[:3] == [0.25, 0.5, 1.0]
    assert clock.pauses[3:] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    assert "scripted camera was lost (unplugged) and did not return within 30 s" in error
    assert source.drops == {}


def test_device_that_opens_but_gives_nothing_does_not_count_as_back():
    source, clock = scripted(["ok"], [], [], ["ok"])
    messages, _ = until_lost(source.frames())
    assert isinstance(messages[1], Reconnected)
    assert messages[1].attempts == 3
    assert clock.pauses[:3] == [0.25, 0.5, 1.0]


def test_device_that_only_fails_counts_as_lost_after_the_stall_limit():
    source, _ = scripted(["ok", *["fail"] * 1000], ["ok"], stall_s=2.0)
    messages, _ = until_lost(source.frames())
    back = messages[1]
    assert isinstance(back, Reconnected)
    assert back.cause == "no picture for 2 s"
    assert 2.0 < back.lost_s < 2.5
    assert source.drops["read failed"] < 50


def test_every_lost_device_is_released():
    clock = FakeClock()
    opener = ScriptedOpener(clock, ["ok"], ["ok"], ["ok"])
    source = LiveSource(opener, CaptureConfig(buffer_frames=9), clock=clock, sleep=clock.sleep)
    until_lost(source.frames())
    source.close()
    assert [device.released for device in opener.devices] == [1, 1, 1]
    assert reading_threads() == []


def test_device_that_comes_back_with_another_size_ends_the_source():
    clock = FakeClock()
    other = ScriptedDevice(clock, ["ok"], size=(32, 24))
    opener = ScriptedOpener(clock, ["ok"], other)
    source = LiveSource(opener, CaptureConfig(buffer_frames=9), clock=clock, sleep=clock.sleep)
    messages, error = until_lost(source.frames())
    assert len(messages) == 1
    assert "from 16x12 to 32x24" in error
    assert other.released == 1


def test_bug_in_a_driver_reaches_the_consumer():
    source, _ = scripted(["ok", ZeroDivisionError("a bug in a driver")])
    with source, pytest.raises(ZeroDivisionError, match="a bug in a driver"):
        list(source.frames())
    assert reading_threads() == []


def test_device_that_does_not_open_at_first_is_an_error():
    with pytest.raises(SourceError, match="does not open"):
        scripted(None)
    clock = FakeClock()
    large = ScriptedDevice(clock, [], size=(MAX_SIDE_PX + 1, 1))
    with pytest.raises(SourceError, match="8193x1"):
        LiveSource(ScriptedOpener(clock, large), CaptureConfig(), clock=clock)
    assert large.released == 1


# Hanging drivers


def test_hung_driver_is_replaced_and_its_late_frame_thrown_away(caplog):
    hang = threading.Event()
    source, _ = scripted(["ok", hang, "ok"], ["ok", "ok"], stall_s=0.05)
    messages = source.frames()
    assert isinstance(next(messages), Frame)
    hung = source._reader
    assert hung is not None
    assert hung.thread is not None
    back = next(messages)
    assert isinstance(back, Reconnected)
    assert back.cause == "the driver did not answer for 0.05 s"
    assert "hangs" in caplog.text
    hang.set()  # the driver answers after all
    hung.thread.join(PATIENCE_S)
    assert not hung.thread.is_alive()
    rest, _ = until_lost(messages)
    assert [frame.index for frame in frames_of(rest)] == [1, 2]
    assert reading_threads() == []


def test_driver_that_hangs_while_it_opens_is_replaced():
    clock = FakeClock()
    hang = threading.Event()

    class HangingOpener(ScriptedOpener):
        def open(self) -> ScriptedDevice:
            if len(self.devices) == 1 and not hang.is_set():
                clock.now += 1000.0
                hang.set()
                assert answered.wait(PATIENCE_S)
                return ScriptedDevice(clock, ["ok"])  # too late
            return super().open()

    answered = threading.Event()
    opener = HangingOpener(clock, ["ok"], ["ok"])
    config = CaptureConfig(stall_s=0.05, reconnect_s=2000.0)
    source = LiveSource(opener, config, clock=clock, sleep=clock.sleep)
    messages = source.frames()
    assert isinstance(next(messages), Frame)
    back = next(messages)
    assert isinstance(back, Reconnected)
    assert (back.attempts, back.cause) == (2, "unplugged")
    answered.set()
    source.close()


def test_close_does_not_wait_for_a_hung_driver(monkeypatch, caplog):
    monkeypatch.setattr(sources_base, "JOIN_S", 0.01)
    hang = threading.Event()
    source, _ = scripted(["ok", hang])
    messages = source.frames()
    next(messages)
    source.close()
    assert "scripted camera does not return from a read" in caplog.text
    assert list(messages) == []
    hang.set()
    assert source._reader is not None
    assert source._reader.thread is not None
    source._reader.thread.join(PATIENCE_S)
    assert reading_threads() == []


def test_close_cuts_a_pause_short():
    clock = FakeClock()
    opener = ScriptedOpener(clock, ["ok"])
    source = LiveSource(opener, CaptureConfig(reconnect_s=1e9), clock=clock)  # its own, real pauses
    messages = source.frames()
    next(messages)
    source.close()
    assert list(messages) == []
    assert reading_threads() == []
    assert opener.devices[0].released == 1


def test_closing_before_reading_releases_the_device():
    clock = FakeClock()
    opener = ScriptedOpener(clock, ["ok"])
    with LiveSource(opener, CaptureConfig(), clock=clock):
        pass
    assert opener.devices[0].released == 1


# Cameras


class FakeCapture:
    """cv2.VideoCapture, as far as a camera needs it."""

    opens: ClassVar = {0: (640, 480), 2: (1280, 720)}
    blind: ClassVar = {1}

    def __init__(self, index: int) -> None:
        self.index = index
        self.asked: dict[int, float] = {}
        self.size = self.opens.get(index, (640, 480))
        self.released = False

    def isOpened(self) -> bool:
        return self.index in self.opens or self.index in self.blind

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0}[prop] if self.index == 0 else 0.0

    def grab(self) -> bool:
        return self.index in self.opens

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if self.index == 2:  # a grey camera
            return True, np.full((self.size[1], self.size[0]), 7, np.uint8)
        return self.grab(), np.zeros((self.size[1], self.size[0], 3), np.uint8)

    def read(self) -> tuple[bool, np.ndarray | None]:
        return self.retrieve() if self.grab() else (False, None)

    def release(self) -> None:
        self.released = True


def test_camera_gives_frames_of_the_size_it_really_has(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    config = Config(camera=0, capture=CaptureConfig(width=800, height=600, camera_fps=60))
    with open_source(config) as source:
        frame = next(source.frames())
        assert isinstance(frame, Frame)
        assert frame.image.shape == (480, 640, 3)
        assert (source.name, source.width, source.height, source.fps) == ("camera 0", 640, 480, 30.0)
    device = CameraOpener(0, config.capture).open()
    assert device._capture.asked == {  # type: ignore[attr-defined]
        cv2.CAP_PROP_FRAME_WIDTH: 800,
        cv2.CAP_PROP_FRAME_HEIGHT: 600,
        cv2.CAP_PROP_FPS: 60,
    }
    assert reading_threads() == []


def test_grey_camera_gives_bgr_and_no_rate(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    device = CameraOpener(2, CaptureConfig()).open()
    assert device.fps is None
    assert device.grab()
    image = device.retrieve()
    assert image is not None
    assert image.shape == (720, 1280, 3)


@pytest.mark.parametrize(
    ("index", "what"), [(7, "cannot be opened .*--list-cameras"), (1, "gives no picture")]
)
def test_camera_that_cannot_be_used_is_an_error(monkeypatch, index, what):
    captures = []

    def capture(index: int) -> FakeCapture:
        captures.append(FakeCapture(index))
        return captures[-1]

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    with pytest.raises(SourceError, match=f"camera {index} .*{what}") as caught:
        open_source(Config(camera=index))
    assert "\n" not in str(caught.value)
    assert captures[-1].released


def test_opencv_says_nothing_itself_about_a_missing_camera(capfd):
    with pytest.raises(SourceError, match="camera 99 cannot be opened"):
        open_source(Config(camera=99))
    assert capfd.readouterr() == ("", "")


def test_list_cameras_names_those_that_give_a_picture(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(camera, "_indices", lambda: [0, 1, 2, 3])
    found = list_cameras()
    assert [(c.index, c.width, c.height, c.fps) for c in found] == [(0, 640, 480, 30.0), (2, 1280, 720, None)]
    assert all(c.name for c in found)


# Streams


class MotionJpegHandler(http.server.BaseHTTPRequestHandler):
    """A network camera that closes each connection after a few pictures."""

    pictures_each = 60
    connections = 0

    def do_GET(self) -> None:
        type(self).connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for position in range(self.pictures_each):
                _, data = cv2.imencode(".jpg", media.picture(position))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data.tobytes() + b"\r\n")
        except OSError:
            pass  # the client has left

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def network_camera() -> Iterator[str]:
    MotionJpegHandler.connections = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), MotionJpegHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}/live"
        server.shutdown()
        thread.join()


def test_stream_is_live_and_comes_back_after_the_connection_is_closed(network_camera, caplog):
    caplog.set_level(logging.DEBUG)
    config = CaptureConfig(buffer_frames=1000)
    with LiveSource(StreamOpener(network_camera, config), config, sleep=lambda seconds: None) as source:
        before: list[Frame] = []
        back = None
        after: list[Frame] = []
        for message in source.frames():
            if isinstance(message, Reconnected):
                back = message
            elif back is None:
                before.append(message)
            else:
                after.append(message)
            if len(after) == 5:
                break
    assert source.live
    assert (source.width, source.height) == media.SIZE
    # The first picture of each connection was taken to see that it works.
    assert [media.number(frame.image) for frame in before] == list(range(1, 60))
    assert back is not None
    assert back.attempts == 1
    assert [media.number(frame.image) for frame in after] == [1, 2, 3, 4, 5]
    indices = [frame.index for frame in before + after]
    assert indices == list(range(len(indices)))
    assert (np.diff([frame.time_s for frame in before + after]) > 0).all()
    assert "secret" not in caplog.text + source.name
    assert reading_threads() == []


def test_url_of_a_stream_without_end_opens_as_live(network_camera):
    with open_source(Config(source=network_camera)) as source:
        assert source.live
        assert isinstance(next(source.frames()), Frame)
    assert reading_threads() == []


def test_stream_that_does_not_answer_is_an_error_without_credentials():
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:1/live cannot be opened") as caught:
        StreamOpener("rtsp://user:secret@127.0.0.1:1/live", CaptureConfig()).open()
    assert "secret" not in str(caught.value)


def test_stream_that_ends_is_lost(tmp_path):
    path = media.write_clip(tmp_path / "clip.mkv", media.pictures(3))
    device = StreamDevice(open_file(path, "clip"), "clip")
    for expected in range(3):
        assert device.grab()
        picture = device.retrieve()
        assert picture is not None
        frame = Frame(0, 0.0, 0.0, picture.image, picture.grey)
        assert media.number(frame.image) == expected
        assert frame.grey_or_image.shape == (48, 64)
    with pytest.raises(DeviceLost, match="the stream ended"):
        device.grab()
    device.release()


def test_reconnection_pauses_are_as_documented():
    assert (live.FIRST_BACKOFF_S, live.MAX_BACKOFF_S) == (0.25, 4.0)
