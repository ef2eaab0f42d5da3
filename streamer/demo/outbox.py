"""Messages from a worker thread to a WebSocket: never waits, never grows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)  # not gather: cancelled itself, it would hide who cancelled it
    for task in tasks:
        if not task.cancelled():
            task.exception()


class OutboxFull(Exception):
    """The browser has not read for so long that it is given up."""


class Outbox:
    """A queue into an event loop.

    Messages of the type "motion" and "picture" are worth something only while they are new: beyond
    `most_fleeting`, the oldest of them is dropped. Of the others, `most` may wait.

    Make it inside the loop that reads it.
    """

    FLEETING = ("motion", "picture")

    def __init__(self, most_fleeting: int = 8, most: int = 500) -> None:
        self._most_fleeting, self._most = most_fleeting, most
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = asyncio.Event()
        self._full = False
        self._closed = False

    def post(self, message: dict[str, Any]) -> None:
        """Queue a message, from any thread. After the loop has ended, it is forgotten."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._add, message)

    def close(self) -> None:
        """What waits is still given out, and then None. From any thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)

    async def get(self) -> dict[str, Any] | None:
        """The next message; None at the end.

        Raises:
            OutboxFull: see there.
        """
        while not self._waiting and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._full:
            raise OutboxFull
        return self._waiting.popleft() if self._waiting else None

    def _close(self) -> None:
        self._closed = True
        self._changed.set()

    def _add(self, message: dict[str, Any]) -> None:
        if self._closed:
            return
        if message["type"] in self.FLEETING:
            fleeting = [item for item in self._waiting if item["type"] in self.FLEETING]
            if len(fleeting) >= self._most_fleeting:
                self._waiting.remove(fleeting[0])
        elif len(self._waiting) >= self._most:
            self._full = True
        if not self._full:
            self._waiting.append(message)
        self._changed.set()
