"""Video behind a URL: a live stream (RTSP, HTTP, RTMP, UDP), or a finite video served over one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import av
from av.container import InputContainer
from av.error import FFmpegError

from streamer.config import CaptureConfig
from streamer.errors import SourceError
from streamer.sources.base import Picture, without_credentials
from streamer.sources.ffmpeg import OPEN_TIMEOUT_S, Upright, open_url, reason, video_stream
from streamer.sources.live import DeviceLost

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "rtp", "tcp")


class StreamDevice:
    """An open stream; fulfils `streamer.sources.live.Device`."""

    def __init__(self, container: InputContainer, name: str) -> None:
        self._container = container
        self._name = name
        self._stream = video_stream(container, name)
        self._upright = Upright(name)
        self._frame: av.VideoFrame | None = None
        self._pending: Iterator[av.VideoFrame] = iter(())
        self._packets = container.demux(self._stream)
        rate = self._stream.guessed_rate or self._stream.average_rate
        self.fps: float | None = float(rate) if rate else None
        self.width = self.height = 0

    def wait_for_first(self, deadline: float, clock: Callable[[], float]) -> None:
        """Read up to the first sound picture, which tells the upright size.

        Raises:
            SourceError: none came before `deadline`.
        """
        try:
            while clock() < deadline:
                if self.grab() and (picture := self.retrieve()) is not None:
                    self.height, self.width = picture.height, picture.width
                    return
        except DeviceLost as error:
            raise SourceError(f"{self._name} gives no picture: {error}") from error
        raise SourceError(f"{self._name} gives no picture within {OPEN_TIMEOUT_S:g} s: is it running?")

    def grab(self) -> bool:
        """Wait until the next picture is decoded. False: a packet could not be decoded."""
        while True:
            self._frame = next(self._pending, None)
            if self._frame is not None:
                return True
            try:
                packet = next(self._packets)
            except StopIteration:
                raise DeviceLost("the stream ended") from None
            except FFmpegError as error:
                raise DeviceLost(reason(error)) from error
            try:
                frames = packet.decode()
            except FFmpegError:
                return False
            self._pending = iter([frame for frame in frames if isinstance(frame, av.VideoFrame)])

    def retrieve(self) -> Picture | None:
        frame, self._frame = self._frame, None
        if frame is None or frame.is_corrupt:
            return None
        return self._upright.picture(frame)

    def release(self) -> None:
        self._container.close()


class StreamOpener:
    """Opens a live stream; reads that take longer than `config.stall_s` count as lost."""

    def __init__(self, url: str, config: CaptureConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = without_credentials(url)
        self._url = url
        self._config = config
        self._clock = clock

    def open(self) -> StreamDevice:
        """Connect and wait for the first whole picture.

        Raises:
            SourceError: no connection, no video in it, or no picture in time.
        """
        deadline = self._clock() + OPEN_TIMEOUT_S
        container = open_url(self._url, self.name, self._config.stall_s, live=True)
        try:
            device = StreamDevice(container, self.name)
            device.wait_for_first(deadline, self._clock)
            return device
        except BaseException:
            container.close()
            raise


def is_finite(url: str, name: str) -> bool:
    """Whether the URL leads to a video with an end (a file on a web server), not to a live stream.

    Raises:
        SourceError: as `open_url`.
    """
    container = open_url(url, name, OPEN_TIMEOUT_S, live=True)
    try:
        return bool(container.duration) or container.size > 0
    finally:
        container.close()
