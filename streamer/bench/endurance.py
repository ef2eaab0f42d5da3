"""Whether the recogniser keeps up: sources of 200 frames a second, and hours of footage."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from streamer.config import CaptureConfig, Config
from streamer.engine import Engine
from streamer.errors import OutputError, SourceError
from streamer.messages import U8, Frame
from streamer.pipeline import Recogniser, look_ahead
from streamer.sources import LiveSource, Message, Source, open_source
from streamer.sources.live import DeviceLost
from streamer.tracking import Tracker

HIGH_FPS = 200
"""Frame rate of the high-speed cameras that micro-expressions are recorded with."""

HIGH_SPEED_S = 5.0
"""How long the live source plays; files and folders are as long as their pictures last."""

CAMERA_BUFFERS = 4
"""Pictures that a camera's driver keeps until they are fetched; then it loses the oldest."""

SOAK_STEPS = 20
"""Lines of the endurance table."""


def play(
    source: Source, tracker: Tracker, engine: Engine, max_frames: int | None = None
) -> tuple[float, Recogniser, list[float]]:
    """Take a source through the whole recogniser, as the program does.

    Returns:
        Seconds, decoding included; the recogniser; seconds from the capture of each frame to its end.
    """
    recogniser = Recogniser(Config(), tracker, engine, live=source.live)
    delays = []
    begun = time.perf_counter()
    try:
        for message in source.frames() if source.live else look_ahead(source.frames(), recogniser):
            if isinstance(message, Frame):
                recogniser.process(message)
                delays.append(time.monotonic() - message.captured_s)
            if recogniser.frames == max_frames:
                break
    except SourceError:
        if not source.live:  # a live source's end is a loss
            raise
    finally:
        recogniser.close()
    return time.perf_counter() - begun, recogniser, delays


class PacedCamera:
    """A camera that plays pictures at a fixed rate and does not wait for who reads it; device and opener in
    one, to be opened once.

    Args:
        images: (H, W, 3) uint8 each, played to and fro.
        fps: frames a second. count: frames until it is unplugged.

    Attributes:
        lost: pictures that were not fetched in time and that nobody downstream can know of.
    """

    name = "paced camera"

    def __init__(self, images: Sequence[U8], fps: float, count: int) -> None:
        self._images = [*images, *images[-2:0:-1]]
        self._count = count
        self.fps: float | None = fps
        self._period_s = 1 / fps
        self.height, self.width = images[0].shape[:2]
        self._next = 0
        self._begun_s: float | None = None
        self.lost = 0

    def open(self) -> PacedCamera:
        if self._begun_s is not None:
            raise SourceError("unplugged")
        return self

    def grab(self) -> bool:
        now = time.monotonic()
        if self._begun_s is None:
            self._begun_s = now
        oldest = min(int((now - self._begun_s) / self._period_s) - CAMERA_BUFFERS, self._count)
        if oldest > self._next:
            self.lost += oldest - self._next
            self._next = oldest
        if self._next >= self._count:
            raise DeviceLost("unplugged")
        time.sleep(max(0.0, self._begun_s + self._next * self._period_s - now))
        return True

    def retrieve(self) -> U8:
        image = self._images[self._next % len(self._images)].copy()  # as a driver's buffer is copied
        self._next += 1
        return image

    def release(self) -> None:
        """Nothing is open."""


def run_at_high_speed(images: Sequence[U8], tracker: Tracker, engine: Engine) -> list[dict[str, Any]]:
    """Play pictures at 200 a second: from a video file, from folders of images, and live.

    Returns:
        One dictionary a source: source, given and processed (frames), drops (by cause), fps (frames a
        second that were processed; of the live source, that it gave), delay_ms (p50, p99, most from capture
        to the end of processing).
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="high-speed-") as name:
        folder = Path(name)
        for what, path in (
            ("H.264 file", _write_video(folder / "clip.mp4", images)),
            ("JPEG folder", _write_folder(folder / "jpeg", images, ".jpg")),
            ("PNG folder", _write_folder(folder / "png", images, ".png")),
        ):
            config = Config(source=str(path), capture=CaptureConfig(fps=HIGH_FPS))
            with open_source(config) as source:
                seconds, recogniser, delays = play(source, tracker, engine)
                rows.append(_row(what, len(images), recogniser, source.drops, seconds, delays))
    count = int(HIGH_SPEED_S * HIGH_FPS)
    camera = PacedCamera(images, HIGH_FPS, count)
    with LiveSource(camera, CaptureConfig(reconnect_s=0.0)) as source:
        seconds, recogniser, delays = play(source, tracker, engine, count)
        drops = source.drops | ({"not fetched in time": camera.lost} if camera.lost else {})
        rows.append(_row("live", count, recogniser, drops, seconds, delays))
    return rows


def _row(
    what: str, given: int, recogniser: Recogniser, drops: dict[str, int], seconds: float, delays: list[float]
) -> dict[str, Any]:
    milliseconds = np.array(delays) * 1e3
    return {
        "source": what,
        "given": given,
        "processed": recogniser.frames,
        "drops": drops,
        "fps": recogniser.frames / seconds,
        "delay_ms": {
            "p50": float(np.percentile(milliseconds, 50)),
            "p99": float(np.percentile(milliseconds, 99)),
            "most": float(milliseconds.max()),
        },
    }


def _write_video(path: Path, images: Sequence[U8]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=HIGH_FPS, options={"crf": "20", "preset": "fast"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


def _write_folder(folder: Path, images: Sequence[U8], suffix: str) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        if not cv2.imwrite(str(folder / f"img{number:05d}{suffix}"), image):
            raise OutputError(f"{folder} cannot be written: is the disk full?")
    return folder


def high_speed_table(rows: list[dict[str, Any]]) -> str:
    """The figures of `run_at_high_speed` as Markdown."""
    lines = [
        f"{HIGH_FPS} frames a second:",
        "",
        "| source | frames given | processed | dropped | frames a second | p50 ms | p99 ms | most ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        dropped = ", ".join(f"{count} {cause}" for cause, count in row["drops"].items()) or "0"
        delay = row["delay_ms"]
        lines.append(
            f"| {row['source']} | {row['given']} | {row['processed']} | {dropped} | {row['fps']:.0f} "
            f"| {delay['p50']:.1f} | {delay['p99']:.1f} | {delay['most']:.1f} |"
        )
    lines += ["", "The milliseconds are from a frame's capture (of a file: its decoding) to its result."]
    return "\n".join(lines) + "\n"


def repeated(source: str, frames: int) -> Iterator[Message]:
    """A file's frames again and again, numbers and times running on, until there were so many."""
    index, time_s, given = 0, 0.0, 0
    while given < frames:
        last = None
        with open_source(Config(source=source)) as opened:
            for message in opened.frames():
                if not isinstance(message, Frame):
                    continue
                last = copy.copy(message)
                last.index, last.time_s = index + message.index, time_s + message.time_s
                yield last
                given += 1
                if given == frames:
                    return
            if last is not None:
                index, time_s = last.index + 1, last.time_s + 1 / (opened.fps or 30.0)


def stream_repeatedly(source: str, frames: int, tracker: Tracker, engine: Engine) -> list[dict[str, float]]:
    """Take so many frames through one recogniser, the source being repeated, at full speed.

    Returns:
        At each twentieth of the way: frames, memory_mb (resident; 0 where the system does not tell), fps
        (since the step before), p50_ms and p99_ms (all stages, the last 4,096 frames), events.
    """
    recogniser = Recogniser(Config(), tracker, engine)
    step = max(1, frames // SOAK_STEPS)
    rows: list[dict[str, float]] = []
    begun, counted = time.perf_counter(), 0
    try:
        for message in look_ahead(repeated(source, frames), recogniser):
            assert isinstance(message, Frame)
            recogniser.process(message)
            if recogniser.frames % step == 0 or recogniser.frames == frames:
                now = time.perf_counter()
                times = recogniser.clock.percentiles()["all stages"]
                rows.append(
                    {
                        "frames": recogniser.frames,
                        "memory_mb": resident_mb(),
                        "fps": (recogniser.frames - counted) / (now - begun),
                        "p50_ms": times["p50"],
                        "p99_ms": times["p99"],
                        "events": recogniser.micro_expressions + recogniser.macro_expressions,
                    }
                )
                begun, counted = now, recogniser.frames
                row = rows[-1]
                print(f"{counted} of {frames} frames, {row['memory_mb']:.0f} MB", file=sys.stderr, flush=True)
    finally:
        recogniser.close()
    return rows


def resident_mb() -> float:
    """Memory of this process that is in use now, MB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak_table(rows: list[dict[str, float]]) -> str:
    """The figures of `stream_repeatedly` as Markdown."""
    lines = [
        "The source again and again through one recogniser, at full speed:",
        "",
        "| frames | memory MB | frames a second | all stages p50 ms | p99 ms | events |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['frames']:.0f} | {row['memory_mb']:.0f} | {row['fps']:.0f} | {row['p50_ms']:.3f} "
            f"| {row['p99_ms']:.2f} | {row['events']:.0f} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"
