"""What every source offers, and what the sources share."""

from __future__ import annotations

import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import cv2

from streamer.channel import Channel, Drops, Policy
from streamer.errors import SourceError
from streamer.messages import U8, Frame, Reconnected

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self from Python 3.11 on

log = logging.getLogger(__name__)

Message: TypeAlias = Frame | Reconnected

MAX_SIDE_PX = 8192
"""Frames wider or higher are refused: media is untrusted, and a small file can promise huge frames."""

JOIN_S = 2.0
"""How long `close` waits for a reader thread that is still inside a driver or a decoder."""


class Source(Protocol):
    """A camera, a file, a folder of images or a stream: something that gives frames.

    Attributes:
        name: what the user named, safe to print (credentials of a URL removed).
        width, height: size of every frame, pixels, upright.
        fps: nominal frame rate, None if unknown. For information: measuring uses `Frame.time_s`.
        live: whether frames are lost when they are not taken in time.
        drops: frames lost so far, count by cause.
    """

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> float | None: ...
    @property
    def live(self) -> bool: ...
    @property
    def drops(self) -> dict[str, int]: ...

    def frames(self) -> Iterator[Message]:
        """Start reading: frames in order, `Reconnected` after a hole. May be called once.

        Raises:
            SourceError: while iterating, when the source is lost for good or turns out unusable.
        """
        ...

    def close(self) -> None:
        """Stop reading and free the device or file. An iteration under way ends. May be repeated."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


def check_size(name: str, width: int, height: int) -> None:
    """Refuse frames larger than `MAX_SIDE_PX` on a side, before anything of their size is allocated.

    Raises:
        SourceError: the size is not within 1..MAX_SIDE_PX.
    """
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise SourceError(
            f"{name} has frames of {width}x{height} pixels, and 1 to {MAX_SIDE_PX} a side are accepted: "
            "scale it down first"
        )


def without_credentials(url: str) -> str:
    """The URL without user, password and query (cameras take passwords there too), to be printed."""
    scheme, _, rest = url.partition("://")
    rest, query, _ = re.sub(r"#.*", "", rest).partition("?")
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = host.rpartition("@")[2]
    elif re.search(r":(?!\d*$)[^\]]*$", host) and "@" in path:
        # "user:pass/word@host": a slash in a password that was not percent-encoded.
        host, slash, path = path.rpartition("@")[2].partition("/")
    return f"{scheme}://{host}{slash}{path}{'?...' if query else ''}"


def silence_opencv() -> None:
    """Stop OpenCV's own lines on stderr: the errors raised here say the same, once and clearer."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def join_or_warn(thread: threading.Thread, what: str) -> None:
    """Wait `JOIN_S` for a reader that was told to stop; one stuck in a driver is left behind, logged."""
    if thread is threading.current_thread():
        return
    thread.join(JOIN_S)
    if thread.is_alive():
        log.warning("%s does not return from a read: its thread is left behind", what)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a file's decoder gives: see `Frame` for image and grey. height, width: pixels, upright."""

    height: int
    width: int
    image: U8 | Callable[[], U8]
    grey: U8 | None = None

    @classmethod
    def of(cls, image: U8) -> Picture:
        """A picture that has its colours: (height, width, 3) uint8 BGR, upright."""
        return cls(image.shape[0], image.shape[1], image)


class FileSource(ABC):
    """Shared by sources that wait for their consumer: a thread reads ahead, so decoding overlaps
    recognition, through a channel of `buffer_frames`.

    A subclass fills `width`, `height` and `fps` in its constructor.
    """

    live = False
    width: int
    height: int
    fps: float | None

    def __init__(self, name: str, buffer_frames: int) -> None:
        self.name = name
        self._drops = Drops()
        self._channel: Channel[Message] = Channel(buffer_frames, Policy.WAIT, drops=self._drops)
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _pictures(self) -> Iterator[tuple[int, float, Picture]]:
        """(index, time_s, picture) of each frame in order, as in `Frame`."""

    @abstractmethod
    def _release(self) -> None:
        """Free what is open. Runs in the thread that read, or in `close` if none was started."""

    @property
    def drops(self) -> dict[str, int]:
        return self._drops.snapshot()

    def frames(self) -> Iterator[Message]:
        if self._thread is not None:
            raise RuntimeError(f"{self.name} is read already: open it again to read it again")
        # A daemon: a read from a dead network drive may never return, and must not hold up the exit.
        self._thread = threading.Thread(target=self._read, name=f"read {self.name}", daemon=True)
        self._thread.start()
        return iter(self._channel)

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for index, time_s, picture in self._pictures():
                frame = Frame(index, time_s, time.monotonic(), picture.image, picture.grey)
                if not self._channel.put(frame):
                    break
        except BaseException as raised:  # noqa: BLE001 - raised again in the consumer
            error = raised
        finally:
            self._release()
            self._channel.close(error)

    def close(self) -> None:
        self._channel.cancel()
        if self._thread is None:
            self._release()
        else:
            join_or_warn(self._thread, self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
