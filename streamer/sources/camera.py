"""Cameras of this machine, through OpenCV."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamer.config import CaptureConfig
from streamer.errors import SourceError
from streamer.messages import U8
from streamer.sources.base import check_size, silence_opencv

INDICES_TRIED = 10
"""Camera numbers that `list_cameras` tries where the system has no list of its own."""


class CameraDevice:
    """An open camera; fulfils `streamer.sources.live.Device`.

    width, height and fps are what the camera gives, which may differ from what was asked for.
    """

    def __init__(self, capture: cv2.VideoCapture, width: int, height: int) -> None:
        self._capture = capture
        self.width, self.height = width, height
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = float(fps) if 0 < fps < 10_000 else None

    def grab(self) -> bool:
        return bool(self._capture.grab())

    def retrieve(self) -> U8 | None:
        ok, image = self._capture.retrieve()
        return _bgr(image) if ok and image is not None else None

    def release(self) -> None:
        self._capture.release()


class CameraOpener:
    """Opens camera `index`, asking for the size and frame rate in `config`."""

    def __init__(self, index: int, config: CaptureConfig) -> None:
        self.name = f"camera {index}"
        self._index = index
        self._config = config

    def open(self) -> CameraDevice:
        """Open the camera and take one picture: some devices open and give none.

        Raises:
            SourceError: it does not open, or gives no picture.
        """
        silence_opencv()
        capture = cv2.VideoCapture(self._index)
        try:
            if not capture.isOpened():
                raise SourceError(
                    f"{self.name} cannot be opened (not there, in use, or not permitted): "
                    "run --list-cameras to see which can, or give --source"
                )
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._config.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._config.height)
            capture.set(cv2.CAP_PROP_FPS, self._config.camera_fps)
            ok, image = capture.read()
            if not ok or image is None:
                raise SourceError(
                    f"{self.name} opens but gives no picture: close other programs that use it, "
                    "or run --list-cameras"
                )
            height, width = image.shape[:2]
            check_size(self.name, width, height)
            return CameraDevice(capture, width, height)
        except BaseException:
            capture.release()
            raise


@dataclass(frozen=True)
class CameraInfo:
    """A camera that opens and gives pictures, at its own default size. fps: None if not stated."""

    index: int
    name: str
    width: int
    height: int
    fps: float | None


def list_cameras() -> list[CameraInfo]:
    """The cameras of this machine that give a picture, by index. Opens each for a moment."""
    silence_opencv()
    cameras = []
    for index in _indices():
        capture = cv2.VideoCapture(index)
        try:
            if not capture.isOpened():
                continue
            ok, image = capture.read()
            if ok and image is not None:
                device = CameraDevice(capture, image.shape[1], image.shape[0])
                cameras.append(CameraInfo(index, _name(index), device.width, device.height, device.fps))
        finally:
            capture.release()
    return cameras


def _indices() -> list[int]:
    devices = Path("/dev")
    if Path("/sys/class/video4linux").is_dir():
        numbers = (re.fullmatch(r"video(\d+)", path.name) for path in devices.iterdir())
        return sorted(int(number.group(1)) for number in numbers if number)
    return list(range(INDICES_TRIED))


def _name(index: int) -> str:
    """What the system calls the camera (Linux), else its number."""
    try:
        return Path(f"/sys/class/video4linux/video{index}/name").read_text().strip()
    except OSError:
        return f"camera {index}"


def _bgr(image: np.ndarray) -> U8:
    """Some cameras give grey pictures even where OpenCV was asked to convert."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image  # type: ignore[return-value]
