"""The frames of a browser, as they come through the WebSocket: checked before anything is decoded.

A binary message is a header of 12 bytes and a JPEG. Header, little endian: uint32 number of the frame,
counted by the browser over all frames that its camera presented, so that those it did not send are gaps in
the count; float64 capture time in milliseconds on the browser's monotonic clock.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from streamer.errors import SourceError
from streamer.messages import U8

HEADER = struct.Struct("<Id")


START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header, which says its size (ITU-T T.81, table B.1)."""

MOST_SEGMENTS = 64
"""Before the frame header; browsers write about six. A picture of a million empty ones would take a second
to read."""


class PacketError(SourceError):
    """What a browser sent is no frame. A browser of this page never sends that: the session ends."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame of a browser, not decoded yet.

    number: see the header. captured_ms: by the browser's clock. arrived_s: `time.monotonic()` here.
    width, height: pixels, as the JPEG's own header says.
    """

    number: int
    captured_ms: float
    arrived_s: float
    width: int
    height: int
    jpeg: bytes

    def grey(self) -> U8:
        """(height, width) uint8, the JPEG's own luma, black 0 and white 255.

        Raises:
            PacketError: the JPEG is damaged.
        """
        return self._decoded(cv2.IMREAD_GRAYSCALE)

    def colour(self) -> U8:
        """(height, width, 3) uint8 BGR. Raises as `grey`."""
        return self._decoded(cv2.IMREAD_COLOR)

    def _decoded(self, mode: int) -> U8:
        # The orientation is the browser's matter: a turned picture would not have the size that was checked.
        image = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape[:2] != (self.height, self.width):
            raise PacketError("a frame is damaged: its JPEG cannot be decoded")
        return np.asarray(image, np.uint8)


def read_packet(data: bytes, arrived_s: float, most_pixels: int) -> Packet:
    """Take a binary message apart. The JPEG's header is read, its pixels are not.

    Raises:
        PacketError: it is no JPEG with a header, its numbers are impossible, or the picture is too large.
    """
    if len(data) <= HEADER.size:
        raise PacketError("a frame is too short to be one")
    number, captured_ms = HEADER.unpack_from(data)
    if not math.isfinite(captured_ms) or not 0 <= captured_ms < 1e15:
        raise PacketError("a frame has an impossible capture time")
    jpeg = data[HEADER.size :]
    width, height = _jpeg_size(jpeg)
    if width < 32 or height < 32 or width * height > most_pixels:
        raise PacketError(
            f"the pictures have {width} x {height} pixels: choose a resolution of 32 x 32 to "
            f"{most_pixels / 1e6:.1f} megapixels"
        )
    return Packet(number, captured_ms, arrived_s, width, height, jpeg)


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height as a JPEG's frame header says.

    Raises:
        PacketError: it has none.
    """
    at = 2 if jpeg.startswith(b"\xff\xd8") else len(jpeg)
    for _ in range(MOST_SEGMENTS):
        if at + 9 > len(jpeg) or jpeg[at] != 0xFF:
            break
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker in START_OF_FRAME:
            return int.from_bytes(jpeg[at + 7 : at + 9], "big"), int.from_bytes(jpeg[at + 5 : at + 7], "big")
        at += 2 + max(2, length)
    raise PacketError("a frame is no JPEG picture")
