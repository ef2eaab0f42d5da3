"""A video file (or a finite video behind a URL), read with FFmpeg through PyAV."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError

from streamer.errors import SourceError
from streamer.sources.base import FileSource, Picture
from streamer.sources.ffmpeg import OPEN_TIMEOUT_S, Upright, open_file, open_url, reason, video_stream

log = logging.getLogger(__name__)

FALLBACK_FPS = 30.0
"""Nominal rate of a video that states none; only used to make up missing timestamps."""

MAX_BAD_READS = 100
"""Unreadable places in a row after which the rest of a file is given up."""


class VideoFile(FileSource):
    """Every frame of a video, in order, with its own timestamp.

    The index counts frames in display order. A frame that could not be decoded keeps its number, as far
    as packets tell: what a damaged container no longer shows at all cannot be counted.
    Drops: "corrupt packet" (could not be decoded), "corrupt frame" (decoded, but damaged),
    "truncated" (promised by the header and missing at the end: an estimate by duration).
    `repaired` counts timestamps that were missing or ran backwards and were made up from the nominal
    rate; those frames are not lost.

    Args:
        location: path, or URL of a finite video.
        name: what to call it, safe to print.
        buffer_frames: frames decoded ahead of the consumer.

    Raises:
        SourceError: it is not a video, or no frame of it can be decoded.
    """

    def __init__(self, location: Path | str, name: str, buffer_frames: int) -> None:
        super().__init__(name, buffer_frames)
        self.repaired = 0
        if isinstance(location, Path):
            self._container = open_file(location, name)
        else:
            self._container = open_url(location, name, OPEN_TIMEOUT_S, live=False)
        try:
            self._stream = video_stream(self._container, name)
            rate = self._stream.guessed_rate or self._stream.average_rate
            self.fps = float(rate) if rate else None
            # The first frame tells the upright size, and that the file can be decoded at all.
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise SourceError(f"{name}: not one frame can be decoded; is the file damaged?")
            self.height, self.width = self._first[2].height, self._first[2].width
        except BaseException:
            self._container.close()
            raise

    def _release(self) -> None:
        self._container.close()

    def _pictures(self) -> Iterator[tuple[int, float, Picture]]:
        assert self._first is not None
        yield self._first
        self._first = None
        for index, time_s, picture in self._decoded:
            if (picture.width, picture.height) != (self.width, self.height):
                raise SourceError(
                    f"{self.name}: the frame size changes from {self.width}x{self.height} "
                    f"to {picture.width}x{picture.height} at frame {index}: split the file there"
                )
            yield index, time_s, picture
        if self.repaired:
            log.warning(
                "%s: %d timestamps were missing or ran backwards; made up at %g frames/s",
                self.name,
                self.repaired,
                self.fps or FALLBACK_FPS,
            )

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the video stream; unreadable places are skipped and counted."""
        bad_reads = 0
        while bad_reads < MAX_BAD_READS:
            try:
                for packet in self._container.demux(self._stream):
                    bad_reads = 0
                    yield packet
                return
            except InvalidDataError:
                bad_reads += 1
                self._drops.add("corrupt packet")
            except FFmpegError as error:
                raise SourceError(
                    f"{self.name}: reading failed ({reason(error)}): is the disk or the server still there?"
                ) from None
        log.warning("%s: the rest of the file is unreadable", self.name)

    def _decode(self) -> Iterator[tuple[int, float, Picture]]:
        """(index, time_s, upright picture) of each sound frame."""
        time_base = self._stream.time_base
        assert time_base is not None

        def seconds(ticks: int) -> float:
            return ticks * time_base.numerator / time_base.denominator

        upright = Upright(self.name)
        clock = _Clock(1 / (self.fps or FALLBACK_FPS))
        index = 0
        # Timestamps of packets whose frame has not come out, least first. Frames come out in order, so
        # what is passed over gave no frame. That is normal for some packets (invisible reference
        # frames), but with an undecodable one among them, they are lost, and keep their numbers.
        waiting: list[int] = []
        undecodable: set[int] = set()
        damaged: set[int] = set()
        end_s = 0.0
        for packet in self._packets():
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None and not packet.is_discard:
                heapq.heappush(waiting, stamp)
                length_s = seconds(packet.duration) if packet.duration else clock.period_s
                end_s = max(end_s, seconds(stamp) + length_s)
                if packet.is_corrupt:
                    damaged.add(stamp)
            try:
                frames = packet.decode()
            except FFmpegError as error:
                log.debug("%s: packet at %s: %s", self.name, stamp, reason(error))
                if stamp is None:
                    self._drops.add("corrupt packet")
                    index += 1
                else:
                    undecodable.add(stamp)
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                if frame.pts is not None:
                    index += self._lost(_passed(waiting, frame.pts), undecodable)
                if frame.is_corrupt or frame.pts in damaged:
                    self._drops.add("corrupt frame")
                else:
                    time_s, repaired = clock.time(index, None if frame.pts is None else seconds(frame.pts))
                    self.repaired += repaired
                    yield index, time_s, upright.picture(frame)
                index += 1
        self._lost(waiting, undecodable)
        missing = self._missing_at_end(end_s)
        if missing:
            self._drops.add("truncated", missing)
            log.warning("%s ends early: about %d frames are missing at its end", self.name, missing)

    def _lost(self, passed_over: list[int], undecodable: set[int]) -> int:
        """How many of the packets passed over are lost frames; counts them."""
        if undecodable.isdisjoint(passed_over):
            return 0
        undecodable.difference_update(passed_over)
        self._drops.add("corrupt packet", len(passed_over))
        return len(passed_over)

    def _missing_at_end(self, end_s: float) -> int:
        """About how many frames the header promises after `end_s`, where the last packet ended."""
        promised_s = _promised_end_s(self._container, self._stream)
        frames = (promised_s - end_s) * (self.fps or FALLBACK_FPS)
        return round(frames) if frames > 1.5 else 0  # less may be the last frame's length


def _passed(waiting: list[int], stamp: int) -> list[int]:
    """Take `stamp` and what is before it from the heap `waiting`; return what was before it."""
    before = []
    while waiting and waiting[0] < stamp:
        before.append(heapq.heappop(waiting))
    if waiting and waiting[0] == stamp:
        heapq.heappop(waiting)
    return before


class _Clock:
    """Gives times from the first frame, increasing, made up from `period_s` where stamps fail."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._origin_s: float | None = None
        self._last: tuple[int, float] | None = None

    def time(self, index: int, stamp_s: float | None) -> tuple[float, bool]:
        """Seconds from the first frame of frame `index`, and whether they were made up.

        stamp_s: the frame's own timestamp on the container's clock, None if missing.
        """
        expected_s = 0.0 if self._last is None else self._last[1] + (index - self._last[0]) * self.period_s
        if stamp_s is not None and self._origin_s is None:
            self._origin_s = stamp_s - expected_s
        if stamp_s is None or self._origin_s is None:
            time_s, repaired = expected_s, True
        else:
            time_s, repaired = stamp_s - self._origin_s, False
            if self._last is not None and time_s <= self._last[1]:
                time_s, repaired = expected_s, True
        self._last = (index, time_s)
        return time_s, repaired


def _promised_end_s(container: InputContainer, stream: av.VideoStream) -> float:
    """When the container's header says the video ends, seconds on the container's clock; 0 if unknown.

    Never later than the truth for a whole file: an end that is too late would report a sound file as
    truncated.
    """
    if container.format.name == "avi" and stream.frames:
        # AVI's index is at the end, so FFmpeg's duration of a cut file is that of what is left; the
        # frame count is in the header.
        return stream.frames / float(stream.average_rate or FALLBACK_FPS)
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    for key, value in stream.metadata.items():  # Matroska's statistics of a track
        clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value, re.ASCII)
        if key.startswith("DURATION") and clock:
            hours, minutes, seconds = clock.groups()
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if len(container.streams) == 1 and container.duration:
        return container.duration / av.time_base
    return 0.0  # with sound beside it, the container's duration may be the sound's
