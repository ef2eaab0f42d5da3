"""Small clips and images for tests, encoded when they are needed, and ways to damage them.

Every picture carries its number: `picture(i)` paints it and `number(image)` reads it back, also after
lossy compression, so a test can say which frames came through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition

BITS = 8
SIZE = (64, 48)


def picture(number: int, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """(height, width, 3) uint8 BGR: red top-left quarter on green; the number's bits, least first, are
    white and black squares along the bottom quarter."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :] = (0, 160, 0)
    image[: height // 2, : width // 2] = (0, 0, 220)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[height * 3 // 4 :, left:right] = 255 if number >> bit & 1 else 0
    return image


def number(image: np.ndarray) -> int:
    """The number painted by `picture`."""
    height, width = image.shape[:2]
    row = image[height * 7 // 8, [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]].mean(1)
    return sum(1 << bit for bit in range(BITS) if row[bit] > 127)


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    fps: int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    times_ms: Sequence[int] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    sound_s: float = 0.0,
) -> Path:
    """Encode images into `path`, whose suffix chooses the container.

    times_ms: a timestamp for each image, instead of a constant frame rate.
    rotation, mirrored: the display matrix that is written, degrees counter-clockwise.
    sound_s: seconds of silence written beside the pictures.
    """
    height, width = images[0].shape[:2]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=codec_options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        time_base = Fraction(1, 1000) if times_ms else Fraction(1, fps)
        stream.codec_context.time_base = time_base
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        sound = _add_sound(container) if sound_s else None
        for position, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pix_fmt)
            frame.pts = times_ms[position] if times_ms else position
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _encode_silence(container, sound, sound_s)
    return path


def pictures(count: int, width: int = SIZE[0], height: int = SIZE[1]) -> list[np.ndarray]:
    return [picture(i, width, height) for i in range(count)]


def noisy_pictures(count: int) -> list[np.ndarray]:
    """Pictures of 160x120 with noise in the top-right quarter: they compress to a few kilobytes each,
    so a clip of them can be damaged in one frame or cut between two."""
    random = np.random.default_rng(0)
    images = pictures(count, 160, 120)
    for image in images:
        image[:60, 80:] = random.integers(0, 256, (60, 80, 3))
    return images


def write_sound(path: Path, seconds: float = 0.5, *, cover: np.ndarray | None = None) -> Path:
    """A file with sound only, or with a cover picture as music files have it."""
    with av.open(str(path), "w") as container:
        stream = _add_sound(container)
        if cover is not None:
            picture_stream = container.add_stream("mjpeg", rate=1)
            assert isinstance(picture_stream, av.VideoStream)
            picture_stream.height, picture_stream.width = cover.shape[:2]
            picture_stream.pix_fmt = "yuvj420p"
            picture_stream.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="bgr24").reformat(format="yuvj420p")
            container.mux(picture_stream.encode(frame))
            container.mux(picture_stream.encode())
        _encode_silence(container, stream, seconds)
    return path


def _add_sound(container: OutputContainer) -> av.AudioStream:
    stream = container.add_stream("aac", rate=16000)
    assert isinstance(stream, av.AudioStream)
    stream.layout = "mono"
    return stream


def _encode_silence(container: OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(16000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def retime(source: Path, target: Path, stamps_ms: Iterable[int]) -> Path:
    """Copy the packets of a clip with other presentation times, milliseconds."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        for position, (packet, stamp) in enumerate(zip(packets, stamps_ms, strict=True)):
            packet.time_base = Fraction(1, 1000)
            packet.pts, packet.dts = stamp, position  # muxers insist on decoding times that increase
            packet.stream = copy
            writer.mux(packet)
    return target


def packets(path: Path) -> list[tuple[int, int]]:
    """(position in the file, size) in bytes of each video packet, in the order of the file."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, position: int, size: int, byte: int = 0xA5) -> None:
    """Damage a stretch of a file in place."""
    data = bytearray(path.read_bytes())
    data[position : position + size] = bytes([byte]) * size
    path.write_bytes(data)


def cut(path: Path, share: float) -> Path:
    """Keep only the first `share` of a file, in place."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def write_images(folder: Path, names: Iterable[str], width: int = SIZE[0], height: int = SIZE[1]) -> Path:
    """Images of these names, painted 0, 1, 2, ... in the order given."""
    folder.mkdir(exist_ok=True)
    for position, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), picture(position, width, height))
    return folder
