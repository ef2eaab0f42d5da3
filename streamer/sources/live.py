"""The reader of live sources: reads as fast as the device gives, drops the oldest, reconnects.

Two threads: the reader is in the driver; the consumer, while it waits for a frame, watches that the
reader comes back from it. A reader that does not is replaced by a new one, and what it may still bring
is thrown away.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamer.channel import Channel, ChannelClosed, Drops, Policy
from streamer.config import CaptureConfig
from streamer.errors import SourceError
from streamer.messages import U8, Frame, Reconnected
from streamer.sources.base import Message, Picture, check_size, join_or_warn

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self from Python 3.11 on

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 4.0
"""Pause before the first try to reconnect; it doubles with each try up to the maximum."""

OPEN_STALL_S = 15.0
"""Opening or releasing that takes longer counts as hung (some drivers need several seconds)."""

FALLBACK_INTERVAL_S = 1 / 30
"""Pause between failing reads of a device that states no frame rate."""

HICCUP_S, FASTEST_FPS = 0.1, 240.0
"""The buffer holds so much time at least, of a source up to that rate (what some streams state is no frame
rate at all): the landmark model takes as long as several frames of a fast camera, which catch up after."""

TICK_S = 1e-6
"""Least step between two frames' times, where the monotonic clock is coarse (Windows: 15.6 ms)."""


class DeviceLost(Exception):
    """The device will give no more pictures: unplugged, connection closed. The message says why."""


class Device(Protocol):
    """An open camera or stream. All its methods are called from one thread at a time."""

    width: int
    height: int
    fps: float | None

    def grab(self) -> bool:
        """Wait for the next picture. False: none came this time.

        Raises:
            DeviceLost: no more will come.
        """
        ...

    def retrieve(self) -> Picture | U8 | None:
        """The picture just grabbed, upright, or (height, width, 3) uint8 BGR; None if it is damaged."""
        ...

    def release(self) -> None: ...


class Opener(Protocol):
    """Opens a device, and opens it again after it was lost. name: safe to print."""

    name: str

    def open(self) -> Device:
        """Raises SourceError if the device cannot be opened or gives no picture."""
        ...


@dataclass
class _Outage:
    """A loss that is not over yet. since: on the reader's clock."""

    since: float
    cause: str
    attempts: int = 0


class _Reader:
    """A thread that reads, and since when it has been in the driver (None: it is not)."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.in_driver_since: float | None = None
        self.opening = False  # or releasing: what may take long


class LiveSource:
    """A camera or a stream behind a `Device`.

    `time_s` and `captured_s` come from the monotonic clock right after the grab, so time runs on
    across a reconnection. Every picture that was grabbed has an index, dropped ones too.
    Drops: "buffer full" (the consumer was late), "read failed" (no picture, or a damaged one).

    Args:
        opener: how to open the device; it is opened at once.
        capture: buffer_frames, stall_s and reconnect_s are used.
        clock: monotonic seconds.
        sleep: pause of so many seconds; by default one that `close` cuts short.

    Raises:
        SourceError: the device cannot be opened. While iterating: it was lost and did not return
            within `capture.reconnect_s`, or returned with frames of another size.
    """

    live = True

    def __init__(
        self,
        opener: Opener,
        capture: CaptureConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.name = opener.name
        self._opener = opener
        self._capture = capture
        self._clock = clock
        self._closing = threading.Event()
        self._sleep = sleep if sleep is not None else self._closing.wait
        self._drops = Drops()
        self._device: Device | None = opener.open()
        self._channel: Channel[Message] = Channel(
            max(capture.buffer_frames, math.ceil(HICCUP_S * min(self._device.fps or 0.0, FASTEST_FPS))),
            Policy.DROP_OLDEST,
            droppable=lambda message: isinstance(message, Frame),
            drops=self._drops,
        )
        # Guards what a replaced reader must no longer touch: everything below.
        self._lock = threading.Lock()
        self._reader: _Reader | None = None
        self._index = 0
        self._origin: float | None = None  # clock at the first frame
        self._last_time_s = 0.0
        self._outage: _Outage | None = None
        try:
            self.width, self.height = self._device.width, self._device.height
            self.fps = self._device.fps
            check_size(self.name, self.width, self.height)
        except SourceError:
            self._device.release()
            raise

    @property
    def drops(self) -> dict[str, int]:
        return self._drops.snapshot()

    def frames(self) -> Iterator[Message]:
        if self._reader is not None:
            raise RuntimeError(f"{self.name} is read already: open it again to read it again")
        device, self._device = self._device, None
        with self._lock:
            self._start_reader(device)
        return self._watched()

    def close(self) -> None:
        self._closing.set()
        self._channel.cancel()
        with self._lock:
            reader = self._reader
        if reader is not None and reader.thread is not None:
            join_or_warn(reader.thread, self.name)
        elif self._device is not None:
            self._device.release()
            self._device = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The consumer's side

    def _watched(self) -> Iterator[Message]:
        while True:
            try:
                message = self._channel.get(self._capture.stall_s / 4)
            except TimeoutError:
                self._replace_hung_reader()
            except ChannelClosed:
                return
            else:
                yield message

    def _replace_hung_reader(self) -> None:
        with self._lock:
            reader = self._reader
            if reader is None or reader.in_driver_since is None or self._closing.is_set():
                return
            limit_s = max(self._capture.stall_s, OPEN_STALL_S) if reader.opening else self._capture.stall_s
            if self._clock() - reader.in_driver_since <= limit_s:
                return
            self._note_loss(f"the driver did not answer for {limit_s:g} s")
            log.warning("%s: the driver hangs; its thread is left behind", self.name)
            self._start_reader(None)

    def _start_reader(self, device: Device | None) -> None:
        """Start a reader in place of the one before, if any. The lock is held."""
        reader = _Reader()
        # A daemon: a read that a driver never finishes must not hold up the exit.
        reader.thread = threading.Thread(
            target=self._run, args=(reader, device), name=f"read {self.name}", daemon=True
        )
        self._reader = reader
        reader.thread.start()

    # The reader's side

    def _run(self, reader: _Reader, device: Device | None) -> None:
        error: BaseException | None = None
        try:
            while self._runs(reader):
                if device is None:
                    device = self._reopen(reader)
                    continue
                self._read_until_lost(reader, device)
                self._enter_driver(reader, opening=True)
                device.release()
                device = None
        except BaseException as raised:  # noqa: BLE001 - raised again in the consumer
            error = raised
        finally:
            if device is not None:
                device.release()
            if self._reader is reader:
                self._channel.close(error)

    def _runs(self, reader: _Reader) -> bool:
        """Whether this reader is still wanted: not replaced, and the source not closed."""
        return self._reader is reader and not self._closing.is_set()

    def _read_until_lost(self, reader: _Reader, device: Device) -> None:
        """Pass on frames until the device is lost (an outage is noted) or the reader is not wanted."""
        last_good = self._clock()
        failed_before = False
        while self._runs(reader):
            lost: DeviceLost | None = None
            image: Picture | U8 | None = None
            if not self._enter_driver(reader, opening=False):
                return
            try:
                grabbed = device.grab()
                stamp = self._clock()
                if grabbed:
                    image = device.retrieve()
            except DeviceLost as raised:
                stamp = self._clock()
                lost = raised
            with self._lock:
                if self._reader is not reader:  # replaced while in the driver: this frame is stale
                    return
                reader.in_driver_since = None
                if lost is not None:
                    self._note_loss(str(lost))
                    return
                messages = self._count(stamp, image)
                stalled = image is None and stamp - last_good > self._capture.stall_s
                if stalled:
                    self._note_loss(f"no picture for {self._capture.stall_s:g} s")
            for message in messages:
                if not self._channel.put(message):
                    return
            if stalled:
                return
            if image is not None:
                last_good = stamp
            elif failed_before:  # the first failure is retried at once: the next frame may be there
                self._sleep(1 / self.fps if self.fps else FALLBACK_INTERVAL_S)
            failed_before = image is None

    def _count(self, stamp: float, image: Picture | U8 | None) -> list[Message]:
        """What to pass on after a read at `stamp`. The lock is held."""
        index = self._index
        self._index += 1
        if image is None:
            self._drops.add("read failed")
            return []
        picture = image if isinstance(image, Picture) else Picture.of(image)
        if (picture.width, picture.height) != (self.width, self.height):
            raise SourceError(
                f"{self.name}: the frame size changed from {self.width}x{self.height} "
                f"to {picture.width}x{picture.height}: start again"
            )
        if self._origin is None:
            self._origin = stamp
            time_s = 0.0
        else:
            time_s = max(stamp - self._origin, self._last_time_s + TICK_S)
        messages: list[Message] = []
        if self._outage is not None:
            outage, self._outage = self._outage, None
            lost_s = time_s - self._last_time_s
            log.warning("%s is back after %.1f s", self.name, lost_s)
            messages.append(Reconnected(self._last_time_s, lost_s, outage.attempts, outage.cause))
        self._last_time_s = time_s
        messages.append(Frame(index, time_s, stamp, picture.image, picture.grey))
        return messages

    def _note_loss(self, cause: str) -> None:
        """Begin an outage, or go on with the one that is not over. The lock is held."""
        if self._outage is None:
            self._outage = _Outage(self._clock(), cause)
            log.warning("%s is lost (%s): trying to get it back", self.name, cause)

    def _reopen(self, reader: _Reader) -> Device | None:
        """Pause, then try once to open the device. None: it did not open, or is not wanted any more.

        Raises:
            SourceError: it has been lost for longer than `capture.reconnect_s`.
        """
        with self._lock:
            outage = self._outage
            if self._reader is not reader or outage is None:
                return None
            reader.in_driver_since = None
            if self._clock() - outage.since >= self._capture.reconnect_s:
                raise SourceError(
                    f"{self.name} was lost ({outage.cause}) and did not return within "
                    f"{self._capture.reconnect_s:g} s: check it and its connection, then start again"
                )
            attempt = outage.attempts
        # 2**attempt is bounded, so that a long outage does not compute huge numbers.
        self._sleep(min(FIRST_BACKOFF_S * 2 ** min(attempt, 16), MAX_BACKOFF_S))
        if not self._enter_driver(reader, opening=True):
            return None
        outage.attempts += 1
        device: Device | None = None
        try:
            device = self._opener.open()
        except SourceError as error:
            log.info("try %d: %s", outage.attempts, error)
        with self._lock:
            reader.in_driver_since = None
            wanted = self._reader is reader
        if device is not None and not wanted:
            device.release()
            return None
        return device

    def _enter_driver(self, reader: _Reader, *, opening: bool) -> bool:
        """Note that the reader goes into the driver. False: it is not wanted any more."""
        with self._lock:
            if not self._runs(reader):
                return False
            reader.opening = opening
            reader.in_driver_since = self._clock()
            return True
