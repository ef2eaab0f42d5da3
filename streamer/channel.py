"""A bounded channel between two threads, which waits or drops the oldest when it is full.

One thread `put`s and ends with `close`; the other iterates (or `get`s) and may leave early with
`cancel`. A file's reader waits for room, so nothing is lost. A live reader must never wait, or the
driver's own buffer grows stale: it drops the oldest item, and every drop is counted by its cause.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Policy(Enum):
    """What `put` does when the channel is full."""

    WAIT = "wait"
    DROP_OLDEST = "drop oldest"


class ChannelClosed(Exception):
    """`get` on a channel that has ended and is empty."""


class Drops:
    """Counts of what was lost, by cause. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, cause: str, count: int = 1) -> None:
        """Count `count` more losses by `cause` (a short phrase such as "buffer full")."""
        with self._lock:
            self._counts[cause] = self._counts.get(cause, 0) + count

    def snapshot(self) -> dict[str, int]:
        """A copy of the counts: cause -> count, only causes that occurred."""
        with self._lock:
            return dict(self._counts)


class Channel(Generic[T]):
    """A first-in-first-out queue of at most `capacity` items between a producer and a consumer.

    Args:
        capacity: items kept, at least 1.
        policy: WAIT makes `put` wait for room; DROP_OLDEST makes room by dropping the oldest item.
        droppable: says which items may be dropped; all by default. When nothing droppable is queued,
            `put` waits for room even under DROP_OLDEST (or, if the new item is itself droppable,
            drops that one).
        drops: where drops are counted, under "buffer full"; a new counter by default.
    """

    FULL = "buffer full"

    def __init__(
        self,
        capacity: int,
        policy: Policy,
        droppable: Callable[[T], bool] = lambda item: True,
        drops: Drops | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a channel needs room for at least one item, not {capacity}")
        self._capacity = capacity
        self._policy = policy
        self._droppable = droppable
        self.drops = drops if drops is not None else Drops()
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Queue an item.

        Returns:
            False if the consumer has left (or the channel was closed): the producer should stop.
        """
        with self._changed:
            while not self._closed and len(self._items) >= self._capacity:
                if self._policy is Policy.WAIT or not self._drop_one():
                    if self._policy is Policy.DROP_OLDEST and self._droppable(item):
                        self.drops.add(self.FULL)
                        return True
                    self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def _drop_one(self) -> bool:
        """Drop the oldest droppable item, if there is one. The lock is held."""
        for position, item in enumerate(self._items):
            if self._droppable(item):
                del self._items[position]
                self.drops.add(self.FULL)
                return True
        return False

    def get(self, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one.

        Args:
            timeout: seconds to wait at most; None waits until there is an item or the channel ends.

        Raises:
            TimeoutError: no item came in time.
            ChannelClosed: the channel has ended and everything queued was taken.
            BaseException: the producer's, if it closed the channel with one; after the queued items.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                raise TimeoutError(f"nothing came through the channel in {timeout:g} s")
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise ChannelClosed

    def __iter__(self) -> Iterator[T]:
        """Items until the channel ends. Raises the producer's error, if it closed with one."""
        while True:
            try:
                item = self.get()
            except ChannelClosed:
                return
            yield item

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def close(self, error: BaseException | None = None) -> None:
        """End of the producer: what is queued is still delivered, then the consumer sees the end,
        or `error` raised. The first call counts; later ones do nothing."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
            self._changed.notify_all()

    def cancel(self) -> None:
        """End of the consumer: what is queued is forgotten, and a waiting `put` returns False.

        An error the producer closes with afterwards is not raised: nobody is there to see it.
        """
        with self._changed:
            self._closed = True
            self._error = None
            self._items.clear()
            self._changed.notify_all()
