"""The wiring, top to bottom in the order in which data flows.

    source -> track -> measure motion -> spot -> build graph, classify -> sinks

The source reads ahead in a thread of its own, through a bounded channel. Frames of a file are known
before their turn comes, so the landmark model looks at the next one that will need it in a thread of its
own, meanwhile. Everything else runs in the caller's thread, frame by frame, and each answer of the
landmark model is used at the frame it was asked for: a file gives the same events on every run.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np

from streamer.config import Config
from streamer.engine import Engine, load_engine
from streamer.errors import OutputError, SourceError, StreamerError
from streamer.graph import build_graph
from streamer.graph import warm_up as warm_up_graph
from streamer.interrupts import Interrupts
from streamer.landmarker_model import find_landmarker
from streamer.messages import (
    F32,
    Event,
    Face,
    FaceFound,
    FaceLost,
    Frame,
    KeyFrames,
    MacroExpression,
    MicroExpression,
    Motion,
    Reconnected,
    SourceReconnected,
    StreamEnded,
    StreamGap,
    StreamStarted,
)
from streamer.motion import MotionMeter
from streamer.sinks import Sink, StreamStop, close_sinks, open_sinks, send_event, send_frame
from streamer.sources import Message, Source, open_source
from streamer.spotting import Spotter
from streamer.timing import StageClock
from streamer.tracking import FaceFollower, MediaPipeTracker, Tracker

log = logging.getLogger(__name__)

CAPTURES_KEPT = 4096
"""Capture stamps kept, to compute an event's latency from its offset frame."""


LOOK_AHEAD = 8
"""Frames of a file known before their turn: the landmark model takes about as long as these do."""


class Recogniser:
    """All stages behind one call a frame, without source and sinks.

    `process` alone is enough. Who knows frames beforehand may `expect` them, which changes nothing but the
    time it takes, and has to `close` the recogniser before the tracker.

    Args:
        config: settings of the stages.
        tracker: the landmark model; closed by whoever made it.
        engine: the classifier; likewise.
        live: latencies are measured on the clock (True) or, for a file, on the stream's own time.
    """

    def __init__(self, config: Config, tracker: Tracker, engine: Engine, *, live: bool = False) -> None:
        self.config = config
        self.clock = StageClock()
        self.frames = 0
        self.micro_expressions = 0
        self.macro_expressions = 0
        self._tracker = tracker
        self._engine = engine
        self._live = live
        self._follower = FaceFollower(config.tracking.lost_s)
        self._taken = 0
        self._meter = MotionMeter(config.motion)
        self._spotter = Spotter(config.spotting, config.sensitivity)
        self._captured: deque[tuple[int, float, float]] = deque(maxlen=CAPTURES_KEPT)
        self._has_face = False
        self._misses = 0
        self._anchored_s = float("-inf")
        self._last: Frame | None = None
        self._usual_interval_s = 0.0
        self._first_s = 0.0
        self._coming: deque[Frame] = deque()
        self._worker: ThreadPoolExecutor | None = None
        self._early: tuple[int, Future[tuple[list[F32], float]]] | None = None  # frame, its answer

    @property
    def duration_s(self) -> float:
        """Time covered by the frames so far, seconds of the source."""
        return self._last.time_s - self._first_s if self._last else 0.0

    @property
    def sensitivity(self) -> float:
        """See `Config.sensitivity`. It may be set at any time, and holds for what is decided from then on."""
        return self._spotter.sensitivity

    @sensitivity.setter
    def sensitivity(self, value: float) -> None:
        self.config = replace(self.config, sensitivity=value)
        self._spotter.sensitivity = value

    @property
    def rejected(self) -> dict[str, int]:
        """Candidate movements that were turned down, by cause."""
        return dict(sorted(self._spotter.rejected.items()))

    def process(self, frame: Frame) -> tuple[list[Event], Face | None, Motion | None]:
        """Take one frame through all stages.

        Returns:
            The events it brings about; the landmark model's face, where it ran; the motion, where a
            face is known.
        """
        begun = time.perf_counter()
        events: list[Event] = list(self._gap(frame))
        self._captured.append((frame.index, frame.time_s, frame.captured_s))
        while self._coming and self._coming[0].index <= frame.index:
            self._coming.popleft()
        face = None
        if self._anchor_due(frame):
            face = self._follower.update(frame.index, frame.time_s, self._detect(frame))
            self._anchored_s = frame.time_s
            events += self._presence(frame, face)
        motion = None
        if self._has_face:
            with self.clock.stage("motion"):
                motion = self._meter.update(frame, face)
        if motion is not None:
            with self.clock.stage("spot"):
                spotted = self._spotter.update(motion)
            events += [self._finish(key_frames) for key_frames in spotted]
        self._last = frame
        self.frames += 1
        self._start_early()
        self.clock.add("all stages", time.perf_counter() - begun)
        return events, face, motion

    def expect(self, frame: Frame) -> None:
        """Announce a frame that `process` will be given, in order: its landmarks may be sought already."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "landmarks")
        self._coming.append(frame)
        self._start_early()

    def close(self) -> None:
        """Wait for the landmark model where it is at work. May be called twice."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
            self._worker = None
        self._coming.clear()
        self._early = None

    def _start_early(self) -> None:
        """Let the landmark model begin with the next expected frame that will need it, as far as is known."""
        if self._worker is None or self._early is not None:
            return
        for frame in self._coming:
            if self._anchor_due(frame):
                self._early = (frame.index, self._worker.submit(self._timed_detect, frame))
                return

    def _detect(self, frame: Frame) -> list[F32]:
        """The faces of a frame: the early answer, if that is for this very frame."""
        early, self._early = self._early, None
        if early is not None:
            index, answer = early
            if index != frame.index and not answer.cancel():
                answer.exception()  # one tracker serves one thread at a time: wait
            if index == frame.index:
                faces, seconds = answer.result()
                self.clock.add("track", seconds)
                return faces
        faces, seconds = self._timed_detect(frame)
        self.clock.add("track", seconds)
        return faces

    def _timed_detect(self, frame: Frame) -> tuple[list[F32], float]:
        begun = time.perf_counter()
        return self._tracker.detect(frame.image), time.perf_counter() - begun

    def _anchor_due(self, frame: Frame) -> bool:
        """Whether the landmark model has to look at this frame."""
        c = self.config.tracking
        elapsed = frame.time_s - self._anchored_s + 1e-6
        if not self._has_face:
            return elapsed >= c.search_interval_s
        return elapsed >= c.anchor_interval_s or self._meter.needs_anchor or self._misses > 0

    def _presence(self, frame: Frame, face: Face | None) -> Iterator[Event]:
        """Face found or lost. One missing answer is asked again at the next frame; three in a row count."""
        if face is None:
            self._misses += 1
            if self._has_face and (self._misses >= self.config.tracking.misses or self._meter.needs_anchor):
                self._has_face = False
                self._meter.reset()
                yield FaceLost(frame.index, frame.time_s)
            return
        self._misses = 0
        if self._follower.taken != self._taken and self._has_face:
            self._meter.reset()  # another person: nothing of the last one's motion may be compared
        self._taken = self._follower.taken
        if not self._has_face:
            self._has_face = True
            yield FaceFound(frame.index, frame.time_s, face.others)

    def _gap(self, frame: Frame) -> Iterator[Event]:
        """A hole between two frames, unless holes are this source's usual frame interval."""
        if self._last is None:
            self._first_s = frame.time_s
            return
        interval = frame.time_s - self._last.time_s
        limit = max(self.config.spotting.gap_s, 1.5 * self._usual_interval_s)
        if interval > limit:
            missing = frame.index - self._last.index - 1
            cause = f"{missing} frames dropped" if missing > 0 else "no frames from the source"
            yield StreamGap(frame.index, frame.time_s, interval, cause)
            if self._usual_interval_s == 0.0:
                log.warning(
                    "the source gives %.1f frames a second: a micro-expression cannot be seen below %.0f",
                    1 / interval,
                    1 / self.config.spotting.gap_s,
                )
        step = 1.0 if self._usual_interval_s == 0.0 else 0.1
        self._usual_interval_s += step * (interval - self._usual_interval_s)

    def _finish(self, key_frames: KeyFrames) -> Event:
        """Classify a micro-expression; make the event."""
        number = self.micro_expressions + self.macro_expressions + 1
        common = {
            "id": number,
            "onset": key_frames.onset,
            "apex": key_frames.apex,
            "offset": key_frames.offset,
            "strength": key_frames.strength,
        }
        if key_frames.kind == "macro":
            self.macro_expressions += 1
            return MacroExpression(**common, latency_ms=self._latency_ms(key_frames))
        with self.clock.stage("classify"):
            manifest = self._engine.manifest
            result = self._engine.classify(build_graph(key_frames.nodes, manifest.features))
        label = max(result.scores, key=lambda name: result.scores[name])
        self.micro_expressions += 1
        return MicroExpression(
            **common,
            label=label,
            name=manifest.class_names[label],
            scores=result.scores,
            action_units=result.action_units,
            confidence=key_frames.confidence,
            latency_ms=self._latency_ms(key_frames),
        )

    def _latency_ms(self, key_frames: KeyFrames) -> float:
        """From the capture of the offset frame to now: by the clock for a live source, else by the
        stream's own time, so that a file gives the same figure on every run."""
        _, now_s, captured_s = self._captured[-1]
        for index, time_s, captured in reversed(self._captured):
            if index <= key_frames.offset.frame:
                return (time.monotonic() - captured if self._live else now_s - time_s) * 1e3
        return 0.0 if not self._live else (time.monotonic() - captured_s) * 1e3


def warm_up(config: Config, engine: Engine) -> None:
    """Compile every kernel and set up every library before a source is opened.

    A still made-up face goes through registration, a made-up movement of it through spotting, graph
    and engine.
    """
    cv2.setNumThreads(1)  # waking OpenCV's pool costs more than it saves on crops of this size
    warm_up_graph()
    rng = np.random.default_rng(0)
    image = np.asarray(cv2.GaussianBlur(rng.integers(0, 255, (320, 320, 3), np.uint8), (0, 0), 2.0), np.uint8)
    landmarks = rng.uniform(80, 240, (478, 3)).astype(np.float32)
    landmarks[[33, 133], :2], landmarks[[362, 263], :2] = (130, 100), (190, 100)
    meter, spotter = MotionMeter(config.motion), Spotter(config.spotting)
    motion = None
    for index, time_s in enumerate((0.0, 0.03, config.motion.reference_s + 0.1)):  # the last: a new reference
        face = None if index == 1 else Face(index, time_s, landmarks)
        motion = meter.update(Frame(index, time_s, 0.0, image), face)
    if motion is None:
        raise RuntimeError("the warm-up face was not measured")
    for index in range(75):
        moved = motion.displacement.copy()
        moved[:6, 1] -= 0.03 * np.exp(-(((index - 50) / 3.0) ** 2))
        moving = replace(motion, frame=index, time_s=index / 30, displacement=moved)
        for key_frames in spotter.update(moving):
            engine.classify(build_graph(key_frames.nodes, engine.manifest.features))


def run(config: Config) -> int:
    """Recognise the configured source until it ends; returns the exit code (0, or 130 for Ctrl-C).

    Raises:
        StreamerError: with the exit code and the one line that the user has to read.
    """
    sinks = open_sinks(config)
    try:
        engine = load_engine(config.engine, config.device, node_set="gm14")
        tracker = MediaPipeTracker(find_landmarker(config.landmarker), config.tracking)
        try:
            warm_up(config, engine)
            with open_source(config) as source:
                return _stream(config, source, tracker, engine, sinks)
        finally:
            tracker.close()
            engine.close()
    finally:
        close_sinks(sinks)


def look_ahead(messages: Iterable[Message], recogniser: Recogniser) -> Iterator[Message]:
    """The messages of a file, each announced to the recogniser `LOOK_AHEAD` messages before its turn.

    Raises:
        SourceError: the source's, after what came before it.
    """
    waiting: deque[Message] = deque()
    failure: SourceError | None = None
    iterator = iter(messages)
    while True:
        try:
            message = next(iterator, None)
        except SourceError as error:
            message, failure = None, error
        if message is None:
            break
        if isinstance(message, Frame):
            recogniser.expect(message)
        waiting.append(message)
        if len(waiting) > LOOK_AHEAD:
            yield waiting.popleft()
    yield from waiting
    if failure is not None:
        raise failure


def _stream(config: Config, source: Source, tracker: Tracker, engine: Engine, sinks: list[Sink]) -> int:
    """Frames from the source, events and pictures to the sinks; always ends with `StreamEnded`."""
    recogniser = Recogniser(config, tracker, engine, live=source.live)
    reason, code = "end of source", 0
    pending: Reconnected | None = None
    failure: StreamerError | None = None
    try:
        with Interrupts() as interrupts:
            frames = source.frames() if source.live else look_ahead(source.frames(), recogniser)
            for message in interrupts.between(frames):
                if isinstance(message, Reconnected):
                    pending = message
                    continue
                if recogniser.frames == 0:
                    send_event(sinks, _started(source, engine))
                if pending is not None:
                    send_event(sinks, _reconnected(message, pending))
                    pending = None
                events, face, motion = recogniser.process(message)
                with recogniser.clock.stage("sinks"):
                    for event in events:
                        send_event(sinks, event)
                    send_frame(sinks, message, face, motion)
                if config.max_frames is not None and recogniser.frames >= config.max_frames:
                    reason = "max frames"
                    break
    except StreamStop as stop:
        reason = str(stop)
    except KeyboardInterrupt:
        reason, code = "interrupted", 130
    except (SourceError, OutputError) as error:
        reason, failure = str(error), error
    finally:
        recogniser.close()
    if recogniser.frames:
        ended = StreamEnded(
            reason=reason,
            frames=recogniser.frames,
            duration_s=recogniser.duration_s,
            micro_expressions=recogniser.micro_expressions,
            macro_expressions=recogniser.macro_expressions,
            drops=source.drops,
            rejected=recogniser.rejected,
            stages_ms=recogniser.clock.percentiles(),
        )
        try:
            send_event(sinks, ended)
        except StreamStop:
            pass  # whoever stopped the stream does not read its end
        except OutputError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return code


def _reconnected(frame: Frame, hole: Reconnected) -> SourceReconnected:
    return SourceReconnected(frame.index, frame.time_s, hole.lost_s, hole.attempts, hole.cause)


def _started(source: Source, engine: Engine) -> StreamStarted:
    return StreamStarted(
        source=source.name,
        width=source.width,
        height=source.height,
        fps=source.fps,
        engine=engine.manifest.name,
        classes=dict(engine.manifest.class_names),
    )
