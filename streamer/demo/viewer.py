"""The camera of the server: recognised once, watched by many, who see the newest picture."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import cv2
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamer.config import Config
from streamer.demo.outbox import Outbox, OutboxFull, end_tasks
from streamer.demo.results import event_form, stream_ended
from streamer.demo.thumbnails import Thumbnails
from streamer.engine import load_engine
from streamer.errors import StreamerError
from streamer.messages import Event, Frame
from streamer.pipeline import Recogniser
from streamer.sinks import Overlay
from streamer.sources import Source, open_source
from streamer.tracking import MediaPipeTracker

log = logging.getLogger(__name__)

PICTURES_S = 15.0
"""Pictures a second that are drawn for viewers; every frame is recognised."""

QUALITY = 85


class ServerCamera:
    """Runs the pipeline on a source of this machine in a thread, and keeps what viewers are shown.

    config: names the camera or source, and the engine. It is opened in the thread: a camera that is missing
        is a message to whoever watches, and no reason not to serve the rest.
    """

    def __init__(self, config: Config, landmarker: Path, most_viewers: int) -> None:
        self._config = config
        self._landmarker = landmarker
        self._most = most_viewers
        self._viewers: list[Outbox] = []
        self._lock = threading.Lock()
        self._state = {"type": "state", "message": "The camera of this machine is being opened."}
        self._stop = threading.Event()
        self._source: Source | None = None
        self._faces = Thumbnails(lazy=False)
        self._thread = threading.Thread(target=self._run, name="server camera", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and free the camera."""
        self._stop.set()
        source = self._source
        if source is not None:
            source.close()
        self._thread.join(5)

    async def serve(self, socket: WebSocket) -> None:
        """Show one viewer what comes, until they leave."""
        await socket.accept()
        outbox = Outbox(most_fleeting=1)
        with self._lock:
            full = len(self._viewers) >= self._most
            if not full:
                self._viewers.append(outbox)
            outbox.post(
                {"type": "state", "message": f"{self._most} people are watching already: try again later."}
                if full
                else self._state
            )
        if full:
            outbox.close()
        leaving = asyncio.create_task(_until_left(socket))
        sending = asyncio.create_task(_send_all(socket, outbox))
        try:
            await asyncio.wait({leaving, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                if outbox in self._viewers:
                    self._viewers.remove(outbox)
            await end_tasks(leaving, sending)

    # Below: the camera's thread.

    def _run(self) -> None:
        try:
            engine = load_engine(self._config.engine, "cpu")
            tracker = MediaPipeTracker(self._landmarker, self._config.tracking)
            try:
                with open_source(self._config) as source:
                    self._source = source
                    self._recognise(source, Recogniser(self._config, tracker, engine, live=source.live))
                self._say("The stream of this machine's camera has ended.")
            finally:
                tracker.close()
                engine.close()
        except StreamerError as error:
            log.warning("the server's camera: %s", error)
            self._say(f"The camera of this machine gives no picture: {error}")
        except Exception:
            log.exception("the server's camera failed")
            self._say("The camera of this machine failed; the server's log says more.")

    def _recognise(self, source: Source, recogniser: Recogniser) -> None:
        overlay = Overlay()
        drawn_s, begun_s = float("-inf"), time.monotonic()
        self._say("")
        for message in source.frames():
            if self._stop.is_set():
                break
            if not isinstance(message, Frame):
                continue
            # A file plays as fast as it was recorded: this is a view of a camera.
            if not source.live and self._stop.wait(max(0.0, begun_s + message.time_s - time.monotonic())):
                break
            events, face, motion = recogniser.process(message)
            if motion is not None:
                self._faces.add(message, motion, lambda frame=message: frame.image)
            for event in events:
                overlay.on_event(event)
                self._tell(event)
            overlay.observe(message, face, motion)
            now_s = time.monotonic()
            if self._watched and now_s - drawn_s >= 1 / PICTURES_S:
                drawn_s = now_s
                picture = overlay.draw(message, face, motion)
                jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
                self._post({"type": "picture", "jpeg": base64.b64encode(jpeg).decode("ascii")})
        self._tell(stream_ended(recogniser, "end of source", source.drops))

    @property
    def _watched(self) -> bool:
        with self._lock:
            return bool(self._viewers)

    def _say(self, text: str) -> None:
        self._state = {"type": "state", "message": text}
        self._post(self._state)

    def _tell(self, event: Event) -> None:
        if self._watched:
            self._post({"type": "event", "event": event_form(event, self._faces)})

    def _post(self, message: dict[str, Any]) -> None:
        with self._lock:
            for viewer in self._viewers:
                viewer.post(message)


async def _until_left(socket: WebSocket) -> None:
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # a viewer has nothing to say
    except WebSocketDisconnect:
        pass


async def _send_all(socket: WebSocket, outbox: Outbox) -> None:
    try:
        while (message := await outbox.get()) is not None:
            await socket.send_text(json.dumps(message, separators=(",", ":"), allow_nan=False))
        await socket.close()
    except (OutboxFull, WebSocketDisconnect, RuntimeError):
        pass
