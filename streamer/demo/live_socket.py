"""The WebSocket of the live page. Text messages are JSON objects with a `type`; frames are binary.

    browser -> server   start {sensitivity}, sensitivity {value}, pause, resume, stop; frames (see `packets`)
    server -> browser   ready, motion, event, ended (see `live`), error {code, message}

After an error the server closes the connection. Codes: full, idle, bad (not this protocol), session. When it
closes, whatever the session held is free again.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from streamer.demo.live import LiveSession, Models
from streamer.demo.outbox import Outbox, OutboxFull, end_tasks
from streamer.demo.packets import PacketError, read_packet
from streamer.demo.settings import Limits

TEXT_CHARACTERS = 1000
GRACE_S = 2.0
"""A visitor who finds all places taken waits so long before being told: whoever loads the page anew comes
before the server has missed the old page."""
TRY_LATER, POLICY, NORMAL = 1013, 1008, 1000  # RFC 6455, section 7.4, and its registry


class _End(Exception):
    """The session is over. code, message: for the browser."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LiveSockets:
    """All live sessions of a server, at most `limits.visitors`."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models, self._limits = models, limits
        self._taken = 0
        self._left = asyncio.Condition()

    @property
    def sessions(self) -> int:
        """Places that are taken: visitors who are connected, and sessions that are freeing their memory."""
        return self._taken

    async def serve(self, socket: WebSocket) -> None:
        """Serve one visitor until the session ends; the connection's origin has been checked."""
        await socket.accept()
        try:
            async with self._left:
                await asyncio.wait_for(
                    self._left.wait_for(lambda: self._taken < self._limits.visitors), GRACE_S
                )
                self._taken += 1
        except asyncio.TimeoutError:
            await _send_error(
                socket,
                "full",
                f"All {self._limits.visitors} places are taken just now. Wait until somebody leaves, then "
                "start again.",
                TRY_LATER,
            )
            return
        try:
            await self._serve(socket)
        except (WebSocketDisconnect, OutboxFull):
            pass
        finally:
            self._taken -= 1
            async with self._left:
                self._left.notify_all()

    async def _serve(self, socket: WebSocket) -> None:
        try:
            sensitivity = _start(await asyncio.wait_for(_receive(socket), self._limits.idle_s))
        except _End as end:
            await _send_error(socket, end.code, str(end))
            return
        except asyncio.TimeoutError:
            await _send_error(socket, "idle", "Nothing was started for a while: press Start.")
            return
        outbox = Outbox()
        session = LiveSession(
            self._models,
            sensitivity,
            self._limits.buffer_frames,
            self._limits.live_fps,
            outbox.post,
        )
        sending = asyncio.create_task(_send_all(socket, outbox))
        receiving = asyncio.create_task(self._receive_all(socket, session))
        error: _End | None = None
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                session.close(receiving.result())  # raises what the browser's leaving raised
                await sending
        except _End as end:
            error = end
        finally:
            session.abandon()
            await end_tasks(sending, receiving)
            await asyncio.to_thread(session.join)
        if error is None:
            await socket.close(sending.result())
        else:
            await _send_error(socket, error.code, str(error))

    async def _receive_all(self, socket: WebSocket, session: LiveSession) -> str:
        """Take the browser's messages until it stops; returns why."""
        limits = self._limits
        paused = False
        last_frame_s = time.monotonic()
        while True:
            patience_s = limits.paused_s if paused else limits.idle_s
            left_s = last_frame_s + patience_s - time.monotonic()
            try:
                if left_s <= 0:
                    raise asyncio.TimeoutError
                message = await asyncio.wait_for(_receive(socket), left_s)
            except asyncio.TimeoutError:
                why = "It was paused" if paused else "No frame came from the browser"
                raise _End(
                    "idle", f"{why} for {patience_s:g} s, so the session has ended: press Start."
                ) from None
            if isinstance(message, bytes):
                last_frame_s = time.monotonic()
                if len(message) > limits.frame_bytes:
                    raise _End("bad", "A frame is too large: choose a lower resolution.")
                try:
                    packet = read_packet(message, last_frame_s, limits.frame_pixels)
                except PacketError as error:
                    raise _End("bad", f"The session has ended: {error}.") from None
                session.offer(packet)
                continue
            kind = message.get("type")
            if kind == "stop":
                return "stopped"
            if kind in ("pause", "resume"):
                paused = kind == "pause"
                last_frame_s = time.monotonic()
            elif kind == "sensitivity":
                session.sensitivity = _share(message.get("value"))
            else:
                raise _End("bad", "The page and the server do not fit together: reload the page.")


async def _receive(socket: WebSocket) -> bytes | dict[str, Any]:
    """The next message: a frame, or a JSON object."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))
    data, text = message.get("bytes"), message.get("text")
    if data is not None:
        return data
    try:
        if text is None or len(text) > TEXT_CHARACTERS:
            raise ValueError
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise _End("bad", "The page and the server do not fit together: reload the page.") from None
    return content


def _start(message: bytes | dict[str, Any]) -> float:
    """The sensitivity of a start message."""
    if isinstance(message, bytes) or message.get("type") != "start":
        raise _End("bad", "The page and the server do not fit together: reload the page.")
    return _share(message.get("sensitivity"))


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _End("bad", "The sensitivity is no number: reload the page.")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise _End("bad", "The sensitivity has to be 0 to 1: reload the page.")
    return float(value)


async def _send_all(socket: WebSocket, outbox: Outbox) -> int:
    """Send what the session posts, up to its last message; returns the code to close with."""
    while (message := await outbox.get()) is not None:
        await socket.send_text(json.dumps(message, separators=(",", ":"), allow_nan=False))
        if message["type"] in ("ended", "error"):
            return NORMAL if message["type"] == "ended" else POLICY
    return NORMAL


async def _send_error(socket: WebSocket, code: str, message: str, close: int = POLICY) -> None:
    await socket.send_text(json.dumps({"type": "error", "code": code, "message": message}))
    await socket.close(close)
