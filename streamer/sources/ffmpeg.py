"""What files and streams share of FFmpeg (through PyAV): opening, choosing the video, upright pictures.

PyAV keeps FFmpeg's own log lines off stderr unless asked for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from streamer.errors import SourceError
from streamer.messages import U8
from streamer.sources.base import Picture, check_size

OPEN_TIMEOUT_S = 10.0
"""For connecting to a URL, and for its first picture."""

TEXT_ART = {"ansi", "bintext", "idf", "xbin"}
"""FFmpeg draws a text file as pictures of text with these decoders; that is no video."""

FILE_OPTIONS = {
    # A playlist or a reference file must not make FFmpeg reach out to the network.
    "protocol_whitelist": "file,crypto,data",
}

URL_OPTIONS = {
    # A playlist or a redirect must not make FFmpeg read files of this machine.
    "protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,rtmp,http,https,httpproxy,crypto,data",
    # Over UDP, RTSP loses packets, and each loss smears until the next key frame.
    "rtsp_transport": "tcp",
}

LIVE_OPTIONS = URL_OPTIONS | {
    # While FFmpeg probes a stream, frames pile up, which then come late and all at once: probe only
    # until the format is known, not to estimate the frame rate.
    "fpsprobesize": "0",
    "analyzeduration": "1000000",
}


def open_file(path: Path, name: str) -> InputContainer:
    """Open a video file.

    Raises:
        SourceError: it is empty, not permitted, or no video format.
    """
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty (0 bytes): record or copy it again")
        return av.open(str(path.resolve()), "r", options=FILE_OPTIONS)
    except FFmpegError as error:
        raise SourceError(
            f"{name} cannot be read as a video ({reason(error)}): is it one, and complete?"
        ) from error
    except OSError as error:
        raise SourceError(f"{name} cannot be opened: {error.strerror}") from error


def open_url(url: str, name: str, read_timeout_s: float, *, live: bool) -> InputContainer:
    """Connect to a URL; `name` is the URL without credentials.

    Raises:
        SourceError: there is no connection, or no video format in it.
    """
    options = LIVE_OPTIONS if live else URL_OPTIONS
    try:
        return av.open(url, "r", options=options, timeout=(OPEN_TIMEOUT_S, read_timeout_s))
    except FFmpegError as error:
        # Not chained, and never the error's own text: it repeats the URL with its credentials.
        raise SourceError(
            f"{name} cannot be opened ({reason(error)}): check the address, the network and the password"
        ) from None


def reason(error: FFmpegError) -> str:
    """What FFmpeg says went wrong, without the file or URL."""
    if isinstance(error, ExitError):  # our own time-out interrupted FFmpeg
        return "no answer in time"
    return error.strerror or type(error).__name__


def video_stream(container: InputContainer, name: str) -> av.VideoStream:
    """The stream with moving pictures, its frame size checked.

    Raises:
        SourceError: there is none (sound only, text), it has no decoder, or its frames are too large.
    """
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:  # the cover picture of a song
            continue
        codec = stream.codec_context
        if codec is None:
            raise SourceError(f"{name} uses a video format without a decoder here: convert it to H.264")
        if codec.name in TEXT_ART:
            continue
        check_size(name, codec.width, codec.height)
        return stream
    if container.streams.audio:
        raise SourceError(f"{name} has sound but no video: give a file with pictures")
    raise SourceError(f"{name} holds no video: is it a video file, and complete?")


class Upright:
    """Turns the frames of one stream as their display matrix says.

    The matrix is read at the first frame and where the angle changes. Reading it ties frame and matrix in a
    cycle of references, so that their memory is free only when Python's garbage collector comes round: done
    at each frame, that is gigabytes an hour.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._angle: int | None = None
        self._matrix: np.ndarray | None = None  # None: as stored

    def picture(self, frame: av.VideoFrame) -> Picture:
        """The frame upright; its colours are made when they are asked for.

        Raises:
            SourceError: the frame is larger than is accepted.
        """
        check_size(self._name, frame.width, frame.height)
        if frame.rotation != self._angle:
            self._angle, self._matrix = frame.rotation, _display_matrix(frame)
        matrix = self._matrix

        def image() -> U8:
            bgr = cast(U8, frame.to_ndarray(format="bgr24"))
            return bgr if matrix is None else turned(bgr, matrix)

        grey = luma(frame)
        if grey is None:
            return Picture.of(image())
        if matrix is not None:
            grey = turned(grey, matrix)
        return Picture(grey.shape[0], grey.shape[1], image, grey)


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """(9,) int32 as `turned` takes it; None if the frame has none."""
    for item in cast("tuple[SideData, ...]", tuple(frame.side_data)) if len(frame.side_data) else ():
        if item.type == SideDataType.DISPLAYMATRIX:
            return np.frombuffer(bytes(item), np.int32)
    return None


LUMA_FORMATS = ("yuv4", "yuvj4", "yuva4", "nv12", "nv21", "nv16", "gray")
"""How the names of FFmpeg's pixel formats begin whose first plane is the grey picture."""

FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""


def luma(frame: av.VideoFrame) -> U8 | None:
    """(height, width) uint8 grey, black 0 and white 255: the decoded frame's own luma, not turned.

    None if the frame has none that can be taken as it is. Studio range (ITU-R BT.601 and 709: black 16,
    white 235, shifted up for more than 8 bits) is stretched; a full-range 8-bit plane is not even copied.
    """
    pixels = frame.format
    bits = pixels.components[0].bits
    if not pixels.name.startswith(LUMA_FORMATS) or bits > 16 or (bits > 8 and pixels.is_big_endian):
        return None
    plane = frame.planes[0]
    kind = np.uint8 if bits <= 8 else np.uint16
    flat = np.frombuffer(cast(memoryview, plane), kind)
    stored = flat.reshape(-1, plane.line_size // flat.itemsize)[: frame.height, : frame.width]
    # As FFmpeg's own scaler: these formats have no studio range, whatever the frame says.
    full = frame.color_range == FULL_RANGE or pixels.name.startswith(("yuvj", "gray"))
    if full and bits == 8:
        return cast(U8, stored)
    if full:
        return cast(U8, cv2.convertScaleAbs(stored, alpha=255 / (2**bits - 1)))
    step = 2 ** (bits - 8)
    above_black = cv2.subtract(stored, 16.0 * step)  # pyright: ignore  # saturates at black
    return cast(U8, cv2.convertScaleAbs(above_black, alpha=255 / (219 * step)))


def turned(image: U8, matrix: np.ndarray) -> U8:
    """The image turned and mirrored by a display matrix, to the nearest quarter turn.

    image: (H, W) or (H, W, 3).
    matrix: (9,) int32 as in FFmpeg's libavutil/display.h: (a, b, u, c, d, v, x, y, w) takes pixel
    (p, q) of the stored image to (a p + c q + x, b p + d q + y) on the display.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        image = image.swapaxes(0, 1)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
