"""A live session: one visitor's frames through a recogniser of its own, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.channel import Channel, Drops, Policy
from streamer.config import Config
from streamer.demo.hints import TEXTS, Hints
from streamer.demo.packets import Packet, PacketError
from streamer.demo.results import MotionForm, about, event_form, stream_ended
from streamer.demo.thumbnails import Thumbnails
from streamer.engine import Engine, load_engine
from streamer.errors import StreamerError
from streamer.events import to_dict
from streamer.messages import Event, FaceFound, FaceLost, Frame, StreamStarted
from streamer.pipeline import Recogniser
from streamer.tracking import MediaPipeTracker

log = logging.getLogger(__name__)

Post = Callable[[dict[str, Any]], None]
"""Takes a message for the browser, from any thread, without waiting."""

RATE_S = 1.0
"""Time over which the frame rate is measured."""


@dataclass(frozen=True)
class Models:
    """Where the models are that each session loads for itself."""

    landmarker: Path
    engine: str


class LiveSession:
    """Frames in by `offer`, messages out by `post`; never waits for either side.

    The first message is of the type "ready", or "error"; after that, for every frame that was worked on, one
    of the type "motion", and one of the type "event" for every event; "ended" is the last.

    Args:
        models: what to load.
        sensitivity: 0..1, see `Config.sensitivity`; the attribute may be set at any time.
        buffer_frames: frames that wait; beyond that the oldest is dropped and counted.
        most_fps: frames a second that are taken; more are dropped and counted.
        post: takes the messages.
    """

    def __init__(
        self, models: Models, sensitivity: float, buffer_frames: int, most_fps: float, post: Post
    ) -> None:
        self.drops = Drops()
        self._models = models
        self.sensitivity = sensitivity
        self._post = post
        self._channel: Channel[Packet] = Channel(buffer_frames, Policy.DROP_OLDEST, drops=self.drops)
        self._allowance = self._most_fps = most_fps
        self._refilled_s = time.monotonic()
        self._reason = "stopped"
        self._thread = threading.Thread(target=self._run, name="live session", daemon=True)
        self._thread.start()

    def offer(self, packet: Packet) -> None:
        """Hand over the next frame."""
        passed = packet.arrived_s - self._refilled_s
        self._refilled_s = packet.arrived_s
        self._allowance = min(self._most_fps, self._allowance + passed * self._most_fps)
        if self._allowance < 1:
            self.drops.add("too many frames a second")
            return
        self._allowance -= 1
        self._channel.put(packet)

    def close(self, reason: str) -> None:
        """No more frames: work on what waits, then end. Returns at once."""
        self._reason = reason
        self._channel.close()

    def abandon(self) -> None:
        """The visitor has gone: forget what waits. Returns at once."""
        self._channel.cancel()

    def join(self) -> None:
        """Wait until everything is freed; after `close` or `abandon`."""
        self._thread.join()

    # Below: the session's thread.

    def _run(self) -> None:
        try:
            config = Config(sensitivity=self.sensitivity)
            engine = load_engine(self._models.engine, "cpu")
            try:
                tracker = MediaPipeTracker(self._models.landmarker, config.tracking)
                try:
                    self._recognise(config, tracker, engine)
                finally:
                    tracker.close()
            finally:
                engine.close()
        except StreamerError as error:
            self._post({"type": "error", "code": "session", "message": f"{error}"})
        except Exception:
            log.exception("a live session failed")
            self._post(
                {
                    "type": "error",
                    "code": "session",
                    "message": "The server met an error in this session; its log says more. Start again.",
                }
            )
        finally:
            self._channel.cancel()

    def _recognise(self, config: Config, tracker: MediaPipeTracker, engine: Engine) -> None:
        stream = _Stream(config, tracker, engine, self._post, self.drops)
        self._post({"type": "ready", "hints": TEXTS, **about(engine)})
        for packet in self._channel:
            stream.recogniser.sensitivity = self.sensitivity
            stream.take(packet)
        stream.end(self._reason)


class _Stream:
    """One visitor's stream, from its first frame to its end. See `LiveSession`."""

    def __init__(
        self, config: Config, tracker: MediaPipeTracker, engine: Engine, post: Post, drops: Drops
    ) -> None:
        self._engine, self._post, self._drops = engine, post, drops
        self.recogniser = Recogniser(config, tracker, engine, live=True)
        self._form, self._hints, self._faces = MotionForm(), Hints(), Thumbnails(lazy=True)
        self._times: deque[float] = deque(maxlen=512)
        self._first: Packet | None = None
        self._last_time_s = -1.0
        self._has_face = False

    def take(self, packet: Packet) -> None:
        """Work on a frame."""
        first = self._first or packet
        if (packet.width, packet.height) != (first.width, first.height):
            raise PacketError("the picture's size has changed: start again")
        # Numbers and times run from the first frame that arrived; a clock that runs backwards is no clock.
        time_s = (packet.captured_ms - first.captured_ms) / 1e3
        index = packet.number - first.number
        if time_s <= self._last_time_s or index < 0:
            self._drops.add("capture time not after the last")
            return
        grey = packet.grey()
        if self._first is None:
            self._first = packet
            self._send_event(
                StreamStarted(
                    "browser",
                    packet.width,
                    packet.height,
                    None,
                    self._engine.manifest.name,
                    dict(self._engine.manifest.class_names),
                )
            )
        self._last_time_s = time_s
        frame = Frame(index, time_s, packet.arrived_s, packet.colour, grey)
        events, face, motion = self.recogniser.process(frame)
        if motion is not None:
            self._faces.add(frame, motion, packet.colour, len(packet.jpeg))
        for event in events:
            self._send_event(event)
        fps = self._rate(time_s)
        message: dict[str, Any] = {
            "type": "motion",
            "frame": index,
            "number": packet.number,
            "time_s": round(time_s, 6),
            "captured_ms": packet.captured_ms,
            "hints": self._hints.update(face, motion, self._has_face, fps),
            "fps": fps and round(fps, 1),
            "server_ms": round(1e3 * (time.monotonic() - packet.arrived_s), 2),
            "drops": self._drops.snapshot(),
        }
        if motion is not None:
            message |= self._form.of(motion)
        self._post(message)

    def end(self, reason: str) -> None:
        """Report the end."""
        ended = stream_ended(self.recogniser, reason, self._drops.snapshot())
        self._post({"type": "ended", "event": to_dict(ended)})

    def _send_event(self, event: Event) -> None:
        if isinstance(event, FaceFound | FaceLost):
            self._has_face = isinstance(event, FaceFound)
        self._post({"type": "event", "event": event_form(event, self._faces)})

    def _rate(self, time_s: float) -> float | None:
        """Frames a second that reach the recogniser."""
        times = self._times
        times.append(time_s)
        while times[0] < time_s - RATE_S:
            times.popleft()
        passed = times[-1] - times[0]
        return (len(times) - 1) / passed if passed > 0.5 * RATE_S else None
