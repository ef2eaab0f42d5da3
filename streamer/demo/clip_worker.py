"""Works on one clip, in a process of its own: `python -m streamer.demo.clip_worker`, started by `clips.py`.

A clip of a stranger is decoded here and nowhere else: a decoder that crashes or eats memory takes this
process with it and not the server, and at its end everything is freed. It finds what the command line finds:
the same source, the same recogniser, the same outputs.

Standard input: the `Job` as one JSON line; when it is closed, the process ends. Standard output: lines of
JSON, `{"frames": n, "of": m}` as it goes on, `{"error": "..."}` where the clip cannot be used. Files that it
leaves in the folder: annotated.mp4, events.jsonl, events.csv, result.json (for the page) and report.html.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from streamer.config import Config
from streamer.demo.report import report
from streamer.demo.results import MotionForm, about, event_form, stream_ended
from streamer.demo.thumbnails import Thumbnails
from streamer.engine import Engine, load_engine
from streamer.errors import OutputError, SourceError, StreamerError
from streamer.messages import Event, Frame, MacroExpression, MicroExpression, StreamStarted
from streamer.pipeline import Recogniser, look_ahead, warm_up
from streamer.sinks import CsvSink, JsonLinesSink, Sink, VideoSink, close_sinks, send_event, send_frame
from streamer.sources import Source, open_source
from streamer.sources.ffmpeg import video_stream
from streamer.tracking import MediaPipeTracker

MEMORY_BYTES = 3_000_000_000
"""Most data memory of this process."""

FILE_BYTES = 500_000_000
"""Largest file that this process may write: they lie in memory."""

OPTIONS = {
    # A playlist would be a way to read other files of this machine: only formats that hold everything.
    "format_whitelist": "mov,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf,gif",
    "protocol_whitelist": "file",
}

CHART_POINTS = 4000
"""Most points in time of the chart; of more, the largest values of a few frames are kept."""

PROGRESS_S = 0.25


@dataclass(frozen=True)
class Job:
    """What to do. clip: path, or "sample". name: what the visitor calls it. The others: see `Limits`."""

    clip: str
    name: str
    folder: str
    landmarker: str
    engine: str
    sensitivity: float
    most_pixels: int
    most_s: float
    most_frames: int

    def line(self) -> bytes:
        """For standard input."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Work on the clip of standard input; returns the exit code: 0, or 1 after an error was reported."""
    job = Job(**json.loads(sys.stdin.readline()))
    _limit_this_process()
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    try:
        _work(job)
    except StreamerError as error:
        _say({"error": _for_the_visitor(error, job)})
        return 1
    except MemoryError:
        _say({"error": "the clip needs too much memory: cut or scale it down first"})
        return 1
    return 0


def _for_the_visitor(error: StreamerError, job: Job) -> str:
    """What the error says, without the server's own paths."""
    if isinstance(error, OutputError):
        return f"the results of {job.name} are larger than the server can keep: cut or scale it down first"
    return str(error).replace(job.clip, job.name)


def _end_with_the_server() -> None:
    """However the server ends, standard input ends with it, and nobody is there to want the result."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold at the exit
        pass
    os._exit(1)


def _limit_this_process() -> None:
    os.nice(5)  # live visitors come first
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))


def _work(job: Job) -> None:
    expected = None if job.clip == "sample" else _look_at(job)
    config = Config(source=job.clip, engine=job.engine, sensitivity=job.sensitivity)
    folder = Path(job.folder)
    engine = load_engine(config.engine, "cpu")
    tracker = MediaPipeTracker(Path(job.landmarker), config.tracking)
    page = _PageSink()
    sinks: list[Sink] = [
        JsonLinesSink(folder / "events.jsonl"),
        CsvSink(folder / "events.csv"),
        VideoSink(folder / "annotated.mp4"),
        page,
    ]
    try:
        warm_up(config, engine)
        with open_source(config) as source:
            _stream(job, config, source, tracker, engine, sinks, expected)
    finally:
        tracker.close()
        close_sinks(sinks)
    if not page.rows:
        # Nothing to look at: the page says why rather than show an empty chart.
        raise SourceError(
            f"no face is found in {job.name}: give a clip in which one is large, lit and seen from the front"
        )
    result = {
        "name": job.name,
        "sensitivity": job.sensitivity,
        "events": page.events,
        "chart": page.chart(),
        "about": about(engine),
    }
    (folder / "report.html").write_text(report(result), encoding="utf-8")
    # Last: where it is, all is there.
    (folder / "result.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")


def _look_at(job: Job) -> int | None:
    """Check what the clip's header promises, before a frame is decoded; about how many frames, if it says.

    Raises:
        SourceError: it is no video, or beyond the limits.
    """
    try:
        container = av.open(job.clip, "r", options=OPTIONS)
    except FFmpegError:
        raise SourceError(
            f"{job.name} cannot be read as a video: give a complete file in one of the usual formats "
            "(MP4, MOV, MKV, WebM, AVI)"
        ) from None
    try:
        stream = video_stream(container, job.name)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > job.most_pixels:
            raise SourceError(
                f"{job.name} has pictures of {width} x {height} pixels, and up to "
                f"{job.most_pixels / 1e6:.1f} megapixels are taken: scale it down first"
            )
        duration_s = None
        if stream.duration and stream.time_base:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration:
            duration_s = container.duration / 1e6
        if duration_s is not None and duration_s > job.most_s:
            raise SourceError(
                f"{job.name} is {duration_s:.0f} s long, and up to {job.most_s:g} s are taken: cut it first"
            )
        rate = float(stream.guessed_rate or stream.average_rate or 0)
        frames = stream.frames or (round(duration_s * rate) if duration_s else 0)
        if frames > job.most_frames:
            raise SourceError(
                f"{job.name} has about {frames} frames, and up to {job.most_frames} are taken: cut it first"
            )
        return frames or None
    finally:
        container.close()


def _stream(
    job: Job,
    config: Config,
    source: Source,
    tracker: MediaPipeTracker,
    engine: Engine,
    sinks: list[Sink],
    expected: int | None,
) -> None:
    """The clip through the recogniser, as the command line does it.

    Raises:
        SourceError: after what came before it was written.
    """
    recogniser = Recogniser(config, tracker, engine)
    reason = "end of source"
    failure: SourceError | None = None
    shown_s = time.monotonic()
    try:
        for frame in _frames(source, recogniser):
            if recogniser.frames == 0:
                classes = dict(engine.manifest.class_names)
                name = engine.manifest.name
                started = StreamStarted(job.name, source.width, source.height, source.fps, name, classes)
                send_event(sinks, started)
            if frame.time_s > job.most_s or recogniser.frames >= job.most_frames:
                # The header did not say so.
                reason = f"this is where the clip passed {job.most_s:g} s or {job.most_frames} frames"
                break
            events, face, motion = recogniser.process(frame)
            for event in events:
                send_event(sinks, event)
            send_frame(sinks, frame, face, motion)
            if time.monotonic() - shown_s > PROGRESS_S:
                shown_s = time.monotonic()
                _say({"frames": recogniser.frames, "of": expected})
    except SourceError as error:
        reason, failure = _for_the_visitor(error, job), error
    finally:
        recogniser.close()
    if recogniser.frames:
        send_event(sinks, stream_ended(recogniser, reason, source.drops))
    if failure is not None and not recogniser.frames:
        raise failure


def _frames(source: Source, recogniser: Recogniser) -> Iterator[Frame]:
    for message in look_ahead(source.frames(), recogniser):
        if isinstance(message, Frame):
            yield message


class _PageSink:
    """Collects what the page shows: events with faces, and the chart."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._form, self._faces = MotionForm(), Thumbnails(lazy=False)
        self.rows: list[list[float]] = []
        self._waiting: list[Event] = []

    def on_event(self, event: Event) -> None:
        # The frame at hand may be the one that an event speaks of, and comes after its events.
        self._waiting.append(event)
        if not isinstance(event, MicroExpression | MacroExpression):
            self._flush()

    def on_frame(self, frame: Frame, face: object, motion: Any) -> None:
        if motion is not None:
            self._faces.add(frame, motion, lambda: frame.image)
            self.rows.append([round(frame.time_s, 4), *self._form.of(motion)["regions"]])
        self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self.events += [event_form(event, self._faces) for event in self._waiting]
        self._waiting.clear()

    def chart(self) -> list[list[float]]:
        """Rows of time in seconds and each region's motion in % IOD."""
        step = -(-len(self.rows) // CHART_POINTS) or 1
        groups = [self.rows[i : i + step] for i in range(0, len(self.rows), step)]
        return [
            [group[0][0], *(max(values) for values in list(zip(*group, strict=True))[1:])] for group in groups
        ]


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
