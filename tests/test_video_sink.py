"""The annotated video: timestamps, size, and that it plays whatever ended it."""

from __future__ import annotations

import csv
import errno
import io
import json
import signal
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError, InvalidDataError
from sink_samples import (
    decoded_times,
    face,
    frame,
    full_after,
    motion,
    one_of_each,
    run_child,
)

from streamer.errors import OutputError
from streamer.messages import Frame
from streamer.sinks import (
    VideoSink,
    video,
)


def test_video_keeps_the_timestamps_of_a_variable_frame_rate(tmp_path):
    path = tmp_path / "out.mp4"
    times = [0.0, 0.033, 0.2, 0.205, 0.9, 0.9, 2.5]  # the fifth and sixth fall together
    sink = VideoSink(path)
    sink.on_event(one_of_each()[0])
    for index, time_s in enumerate(times):
        sink.on_frame(Frame(index, time_s, time_s, frame(index).image), None, None)
    sink.close()
    sink.close()
    written = decoded_times(path)
    assert written == pytest.approx(times, abs=1e-4)
    assert len(set(written)) == len(times)


@pytest.mark.parametrize("size", [(161, 121), (640, 480), (33, 57)])
def test_video_is_h264_of_even_size_and_shows_the_frame(tmp_path, size):
    path = tmp_path / "out.mp4"
    sink = VideoSink(path)
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = (40, 120, 220)
    for index in range(3):
        shown = Frame(index, index / 30, index / 30, image)
        sink.on_frame(shown, face(index), motion(index, centre=(-500, -500)))
    sink.close()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.width % 2 == 0 and stream.height % 2 == 0
        zoom = stream.width // size[0]
        assert stream.width - size[0] * zoom in (0, 1) and zoom >= 1
        picture = next(container.decode(video=0)).to_ndarray(format="bgr24")
    assert np.abs(picture[20 * zoom : 30 * zoom, 20:30].mean((0, 1)) - (40, 120, 220)).max() < 4


def test_change_of_frame_size_is_fitted_into_the_video(tmp_path):
    path = tmp_path / "out.mp4"
    sink = VideoSink(path)
    for index, (width, height) in enumerate([(640, 480), (320, 240), (1280, 720), (480, 640)]):
        sink.on_frame(frame(index, width, height), None, None)
    sink.close()
    with av.open(str(path)) as container:
        shapes = {(p.width, p.height) for p in container.decode(video=0)}
    assert len(shapes) == 1


def test_video_on_a_full_disk_plays_up_to_the_last_whole_frame(tmp_path):
    path = tmp_path / "out.mp4"
    limit = 1_500_000
    sink = VideoSink(path)
    with (
        full_after(limit),
        pytest.raises(OutputError, match="--save: cannot write .*out.mp4.*limit on file sizes"),
    ):
        for index in range(200):
            sink.on_frame(frame(index, 480, 360, seed=1), None, None)
        sink.close()
    sink.on_frame(frame(200, 480, 360), None, None)  # said once
    sink.close()
    times = decoded_times(path)
    assert times == pytest.approx([i / 30 for i in range(len(times))], abs=1e-4)
    size = path.stat().st_size
    assert limit - 2 * size / len(times) < size <= limit, "more than one frame is missing at the end"


def record(path: Path, frames: int, limit: int) -> None:
    """Write noise while no file may grow beyond `limit`."""
    sink = VideoSink(path)
    with full_after(limit):
        for index in range(frames):
            sink.on_frame(frame(index, seed=2), None, None)
        sink.close()


def test_video_that_cannot_even_begin_is_removed(tmp_path):
    with pytest.raises(OutputError):
        record(tmp_path / "out.mp4", frames=1, limit=10)
    assert list(tmp_path.iterdir()) == []


def test_video_whose_index_does_not_fit_has_all_its_frames(tmp_path):
    path = tmp_path / "out.mp4"
    record(path, frames=15, limit=10_000_000)
    whole = path.stat().st_size
    assert len(decoded_times(path)) == 15
    with pytest.raises(OutputError):
        record(path, frames=15, limit=whole - 100)
    assert path.stat().st_size < whole - 100
    assert len(decoded_times(path)) == 15


def test_deleted_video_is_noticed(tmp_path):
    sink = VideoSink(tmp_path / "out.mp4")
    (tmp_path / "out.mp4").unlink()
    with pytest.raises(OutputError, match="deleted while it was being written"):
        for index in range(100):
            sink.on_frame(frame(index), None, None)
        sink.close()
    sink.close()


def test_unusable_encoder_is_one_line(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise FFmpegError(errno.EINVAL, "bad size")

    monkeypatch.setattr(video.av, "open", broken)
    sink = VideoSink(tmp_path / "out.mp4")
    sink.on_frame(frame(0), None, None)
    with pytest.raises(OutputError, match="encoder failed on .*out.mp4.*try without --save"):
        sink.close()


def test_error_in_the_drawing_reaches_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(video.Overlay, "draw", lambda *args: 1 / 0)
    sink = VideoSink(tmp_path / "out.mp4")
    sink.on_frame(frame(0), None, None)
    with pytest.raises(ZeroDivisionError):
        sink.close()


def test_without_libx264_the_video_is_mpeg4_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(video.av, "codecs_available", {"mpeg4"})
    path = tmp_path / "out.mp4"
    sink = VideoSink(path)
    for index in range(10):
        sink.on_frame(frame(index), None, None)
    sink.close()
    assert "no libx264" in caplog.text
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert decoded_times(path) == pytest.approx([i / 30 for i in range(10)], abs=1e-4)


RECORD = """
import os, sys
from pathlib import Path
from sink_samples import frame, micro, one_of_each
from streamer.config import Config
from streamer.sinks import close_sinks, open_sinks, send_event, send_frame
folder = Path(sys.argv[1])
sinks = open_sinks(Config(events=str(folder / "a.jsonl"), csv=folder / "b.csv", save=folder / "c.mp4"))
sent = 0
try:
    send_event(sinks, one_of_each()[0])
    while True:
        send_frame(sinks, frame(sent, seed=3), None, None)
        sent += 1
        send_event(sinks, micro(sent))
        if sent == 30:
            print("under way", flush=True)
except KeyboardInterrupt:
    pass
finally:
    close_sinks(sinks)
    print(sent, flush=True)
"""


def test_after_ctrl_c_every_file_is_whole(tmp_path):
    with run_child(RECORD, tmp_path) as child:
        assert child.stdout and child.stdout.readline() == b"under way\n"
        child.send_signal(signal.SIGINT)
        sent = int(child.stdout.read())
    assert child.returncode == 0
    times = decoded_times(tmp_path / "c.mp4")
    assert sent <= len(times) <= sent + 1 and len(times) >= 30
    lines = (tmp_path / "a.jsonl").read_text()
    assert lines.endswith("\n") and all(json.loads(line) for line in lines.splitlines())
    rows = list(csv.reader(io.StringIO((tmp_path / "b.csv").read_text())))
    assert len({len(row) for row in rows}) == 1 and len(rows) >= 30


def test_killed_process_leaves_a_video_that_plays(tmp_path):
    with run_child(RECORD, tmp_path) as child:
        assert child.stdout and child.stdout.readline() == b"under way\n"
        child.kill()
    played = 0
    with av.open(str(tmp_path / "c.mp4")) as container:
        try:
            for _ in container.decode(video=0):
                played += 1
        except InvalidDataError:  # the frame that was being written
            pass
    assert played >= 5  # of 30 and more; the rest was still on its way through the encoder
