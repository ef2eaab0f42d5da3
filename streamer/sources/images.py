"""A folder of numbered images, as the databases of micro-expressions are handed out."""

from __future__ import annotations

import logging
import re
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from streamer.errors import SourceError
from streamer.messages import U8
from streamer.sources.base import FileSource, Picture, check_size, silence_opencv

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}

DECODERS = 2
"""Threads that decode images: a PNG takes longer than everything else that is done with a frame."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"


class ImageFolder(FileSource):
    """Images in the order of the number their names end with (img46.jpg, 006_05562.jpg).

    Index and time count from the first image by number, so a missing number leaves a hole in both.
    Drops: "missing image" (a number without a file), "unreadable image" (damaged, logged).

    Args:
        folder: where the images are; other files in it are ignored.
        fps: their frame rate: images have no timestamps.
        buffer_frames: images read ahead of the consumer.

    Raises:
        SourceError: there is no numbered image, two have the same number, or none can be read.
    """

    def __init__(self, folder: Path, fps: float, buffer_frames: int) -> None:
        super().__init__(str(folder), buffer_frames)
        if not fps > 0:
            raise SourceError(f"{folder}: a folder of images needs a frame rate above 0, not {fps:g}")
        self.fps = self._rate = fps
        silence_opencv()
        self._files = numbered_images(folder)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            self._release()
            raise SourceError(f"{folder}: none of its {len(self._files)} images can be read")
        self._first: tuple[int, float, Picture] | None = first
        self.height, self.width = first[2].height, first[2].width

    def _pictures(self) -> Iterator[tuple[int, float, Picture]]:
        assert self._first is not None
        yield self._first
        self._first = None
        yield from self._decoded

    def _release(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _decode(self) -> Iterator[tuple[int, float, Picture]]:
        origin = previous = self._files[0][0]
        size_of: tuple[Path, tuple[int, int]] | None = None
        for number, path, picture in self._read_ahead():
            if number > previous + 1:
                self._drops.add("missing image", number - previous - 1)
            previous = number
            if picture is None:
                self._drops.add("unreadable image")
                log.warning("%s cannot be read as an image: skipped", path)
                continue
            size = (picture.width, picture.height)
            if size_of is None:
                size_of = (path, size)
            if size != size_of[1]:
                raise SourceError(
                    f"images of one folder must have one size: {size_of[0]} is {_size(size_of[1])}, "
                    f"{path} is {_size(size)}; crop or scale them alike"
                )
            yield number - origin, (number - origin) / self._rate, picture

    def _read_ahead(self) -> Iterator[tuple[int, Path, Picture | None]]:
        """The images in their order, several of them decoded at once; they are read one by one, here, since
        a read from a dead network drive would hold up the decoders' exit."""
        ahead: deque[tuple[int, Path, Future[Picture | None]]] = deque()
        for number, path in self._files:
            try:
                data = path.read_bytes()
            except OSError:
                data = b""
            ahead.append((number, path, self._decoders.submit(decode_image, data, str(path))))
            if len(ahead) > DECODERS:
                number, path, picture = ahead.popleft()
                yield number, path, picture.result()
        while ahead:
            number, path, picture = ahead.popleft()
            yield number, path, picture.result()


def numbered_images(folder: Path) -> list[tuple[int, Path]]:
    """The folder's images by the number their names end with, least first.

    Raises:
        SourceError: there is none, or two have the same number.
    """
    try:
        images = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    if not images:
        raise SourceError(
            f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}): give the folder they are in"
        )
    by_number: dict[int, Path] = {}
    for path in sorted(images):
        digits = re.search(r"\d+$", path.stem, re.ASCII)
        if digits is None:
            log.warning("%s: its name does not end with a number: ignored", path)
            continue
        number = int(digits.group())
        if number in by_number:
            raise SourceError(
                f"{by_number[number]} and {path} have the same number: keep one sequence in a folder"
            )
        by_number[number] = path
    if not by_number:
        raise SourceError(f"{folder} holds no numbered images (such as img46.jpg): name them so")
    return sorted(by_number.items())


def read_image(path: Path) -> Picture | None:
    """The picture, upright as its EXIF orientation says; None if damaged.

    A JPEG file holds grey and colour apart: its colours are decoded when they are asked for.

    Raises:
        SourceError: the image is larger than is accepted.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Picture | None:
    """What `read_image` gives, of a file's content. name: for errors."""
    size = stated_size(data)
    if size is None:
        return None
    check_size(name, *size)
    coded = np.frombuffer(data, np.uint8)
    if not data.startswith(_JPEG):
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return None if image is None else Picture.of(np.asarray(image, np.uint8))
    grey = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        return None
    grey = np.asarray(grey, np.uint8)

    def colour() -> U8:
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if image is None else image, np.uint8)

    return Picture(grey.shape[0], grey.shape[1], colour, grey)


def stated_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as the header of a JPEG, PNG or BMP file says; None if it is neither, or
    is a PNG that is cut off or fails its checksums.

    OpenCV would allocate whatever a header asks for, and libpng would complain on stderr.
    """
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    if data.startswith(_PNG):
        return _png_size(data)
    if data.startswith(b"BM") and len(data) >= 26:
        width = int.from_bytes(data[18:22], "little", signed=True)
        height = int.from_bytes(data[22:26], "little", signed=True)
        return width, abs(height)  # negative: rows from the top
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments (ITU-T T.81, annex B) to the frame header."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOF0..SOF15
            height = int.from_bytes(data[position + 5 : position + 7], "big")
            width = int.from_bytes(data[position + 7 : position + 9], "big")
            return width, height
        # A marker may be preceded by fill bytes; else a segment's length follows it.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Walk the chunks (PNG specification, section 5) and check each one's CRC."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if data[position + 4 : position + 8] == b"IEND":
            header = data[len(_PNG) + 8 :]
            return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
        position = end + 4
    return None


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
