"""The annotated video: H.264 in MP4, with the source's own timestamps."""

from __future__ import annotations

import contextlib
import logging
import queue
import struct
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace

from streamer.errors import OutputError, UsageError
from streamer.messages import U8, Event, Face, Frame, Motion, StreamStarted
from streamer.sinks.base import OutputFile, printable
from streamer.sinks.overlay import Overlay

log = logging.getLogger(__name__)

TIME_BASE = Fraction(1, 60_000)
"""Unit of the timestamps in the file, seconds; whole for the usual frame rates (MPEG-4 allows 1/65535)."""

_BT709 = 1  # its number in ITU-T H.273; untagged video is shown with shifted colours by some players

QUEUE_FRAMES = 8
"""Frames that wait for the encoder before `on_frame` waits for it."""


class VideoSink:
    """Draws the overlay on every frame and encodes it, in a thread of its own.

    The thread keeps drawing and encoding out of the recogniser's way, and Ctrl-C out of the encoder:
    KeyboardInterrupt is raised in the main thread only, so `close` always finds a sound encoder and
    finishes the file. Should writing fail, or the process die, the file still plays: it is written as a
    fragmented MP4, one fragment a frame, cut back to whole fragments when a write fails, and made an
    ordinary MP4 by `close`.

    Raises:
        UsageError: the file cannot be opened for writing, is not called .mp4, or is a pipe or a device.
    """

    def __init__(self, path: Path, overlay: Overlay | None = None) -> None:
        if path.suffix.lower() != ".mp4":
            raise UsageError(f"--save: {printable(str(path))} has to end in .mp4, the format that is written")
        self._out = OutputFile(path, "--save", readable=True)
        if not self._out.regular:
            self._out.close()
            raise UsageError(f"--save: {self._out.name} is a device or a pipe; an MP4 needs a file")
        self._overlay = overlay or Overlay()
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_FRAMES)
        self._encoder: _Encoder | None = None
        self._fps: float | None = None
        self._failure: Exception | None = None
        self._broken = False
        self._thread = threading.Thread(target=self._work, name="video", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Show the event in the frames that follow.

        Raises:
            OutputError: an earlier frame could not be written.
        """
        self._put(lambda: self._take_event(event))

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Hand the frame to the encoder; waits while it is `QUEUE_FRAMES` behind.

        Raises:
            OutputError: an earlier frame could not be written.
        """
        self._put(lambda: self._take_frame(frame, face, motion))

    def close(self) -> None:
        """Encode what waits, and finish the file.

        Raises:
            OutputError: a frame or the end of the file could not be written; the file plays up to there.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._out.close()
        self._raise_failure()

    def _put(self, work: Callable[[], None]) -> None:
        self._raise_failure()
        self._queue.put(work)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    # Below: the video thread.

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            self._attempt(work)
        if self._encoder:
            self._attempt(self._encoder.finish)

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do the work, but nothing after the first failure: `on_frame` must not wait for ever."""
        if self._broken:
            return
        try:
            work()
        except FFmpegError as error:
            self._broken = True
            self._failure = OutputError(
                f"--save: the video encoder failed on {self._out.name}: {error}; try without --save"
            )
        except Exception as error:  # noqa: BLE001 - raised again by the recogniser's next call
            self._failure, self._broken = error, True

    def _take_event(self, event: Event) -> None:
        if isinstance(event, StreamStarted):
            self._fps = event.fps
        self._overlay.on_event(event)

    def _take_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        self._overlay.observe(frame, face, motion)
        picture = self._overlay.draw(frame, face, motion)
        if self._encoder is None:
            height, width = picture.shape[:2]
            self._encoder = _Encoder(self._out, width, height, self._fps)
        self._encoder.write(picture, frame.time_s)


class _Encoder:
    """Pictures in, fragmented MP4 out. The size is fixed; other sizes are fitted into it."""

    def __init__(self, out: OutputFile, width: int, height: int, fps: float | None) -> None:
        self._out = out
        self._size = (width + width % 2, height + height % 2)  # yuv420p halves both sides
        self._last_pts = -1
        # hybrid_fragmented: fragments while recording, an ordinary MP4 once finished.
        # flush_packets: a fragment is in the file when mux() returns, so that its end is known.
        options = {"movflags": "hybrid_fragmented+frag_every_frame", "flush_packets": "1"}
        self._container = av.open(out, "w", format="mp4", options=options)
        rate = Fraction(fps or 30).limit_denominator(1001)  # only a hint: timestamps say when
        codec, codec_options = _codec()
        stream: Any = self._container.add_stream(codec, rate=rate, options=codec_options)
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        self._stream = stream
        self._start = b""
        self._whole = 0  # bytes

    def write(self, picture: U8, time_s: float) -> None:
        """Encode one picture, (height, width, 3) uint8 BGR, to be shown at `time_s`.

        Raises:
            OutputError: the file could not be written.
        """
        frame = av.VideoFrame.from_ndarray(_fit(picture, self._size), format="bgr24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        # Two frames within one tick would be refused: timestamps must increase.
        self._last_pts = max(round(time_s / TIME_BASE), self._last_pts + 1)
        frame.pts = self._last_pts
        frame.time_base = TIME_BASE
        self._mux(frame)

    def finish(self) -> None:
        """Write what the encoder still holds, and turn the file into an ordinary MP4.

        Raises:
            OutputError: the file could not be written; it is still a fragmented MP4.
        """
        self._mux(None)
        # Finishing changes the first bytes, in some versions of FFmpeg before the index is written.
        self._start = self._out.read_at(0, 256)
        self._guard(self._container.close)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._guard(lambda packet=packet: self._container.mux(packet))
            self._whole = self._out.size()

    def _guard(self, work: Callable[[], None]) -> None:
        """Do some writing; when it fails, cut the file back to its whole fragments."""
        try:
            work()
        except OutputError:
            self._out.cut(self._end_of_fragments(), self._start)
            # Closed here, and not by the garbage collector, at which some versions of PyAV crash. It has
            # nothing left to write to, and says so.
            with contextlib.suppress(FFmpegError):
                self._container.close()
            raise

    def _end_of_fragments(self) -> int:
        """Where the last whole fragment ends, by the sizes that the file's boxes state (ISO 14496-12)."""
        end = box = self._whole
        while len(header := self._out.read_at(box, 8)) == 8:
            size, kind = struct.unpack(">I4s", header)
            box += size
            if size < 8 or box > self._out.size():
                break
            if kind == b"mdat":  # a fragment is the boxes moof and mdat
                end = box
        return end


def _codec() -> tuple[str, dict[str, str]]:
    """The encoder and its options.

    No B-frames: frames reach the file in the order in which they come. A fixed number of threads: the
    frames that the encoder holds (about a dozen) and the file do not depend on the machine.
    """
    if "libx264" in av.codecs_available:
        return "libx264", {"preset": "veryfast", "crf": "20", "bf": "0", "g": "60", "threads": "3"}
    log.warning("this PyAV has no libx264; the annotated video is MPEG-4 part 2, larger and less sharp")
    return "mpeg4", {"q": "3", "g": "60"}


def _fit(picture: U8, size: tuple[int, int]) -> U8:
    """The picture padded with black to `size` (width, height), resized first if it differs by more."""
    width, height = size
    if abs(width - picture.shape[1]) > 1 or abs(height - picture.shape[0]) > 1:
        scale = min(width / picture.shape[1], height / picture.shape[0])
        smaller = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)  # pyright: ignore
    down, right = height - picture.shape[0], width - picture.shape[1]
    if down == 0 and right == 0:
        return picture
    return cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_CONSTANT)  # pyright: ignore
