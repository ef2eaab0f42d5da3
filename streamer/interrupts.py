"""Ctrl-C and SIGTERM that never tear an output in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Interrupts:
    """Turns SIGINT and SIGTERM into a KeyboardInterrupt between two items of an iteration.

    While the next item is waited for, the signal ends the wait at once. While an item is worked on, the
    work is finished first, so that no line is half written. A second signal does not wait.
    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Interrupts:
        self._asked = False
        self._waiting = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in self.SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waiting or self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as nobody interrupts.

        Raises:
            KeyboardInterrupt: while waiting for an item, or after the item that was worked on.
        """
        iterator = iter(items)
        while True:
            self._waiting = True
            try:
                if self._asked:
                    raise KeyboardInterrupt
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield item
