"""Pictures of a face that can be compared: cut out in the face frame, so that the head stands still."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from streamer.face_crop import CROP_HEIGHT, CROP_LEFT, CROP_TOP, CROP_WIDTH
from streamer.messages import U8, Frame, Motion

WIDTH = 224
"""Width of a thumbnail, pixels; the height follows from the crop's form."""

KEPT_S = 6.0
"""An event is decided at most so long after its onset."""

MOST_BYTES = 64_000_000
"""What is kept for the pictures of a session: 6 s of the largest usual ones."""

QUALITY = 90


def face_pose(motion: Motion) -> np.ndarray:
    """(2, 3) similarity from the face frame (IOD) to image pixels: the nodes' places of rest onto where
    they are, by least squares. An expression moves a few nodes by a percent, which turns this by less."""
    rest = motion.nodes[:, 0] + 1j * motion.nodes[:, 1]
    seen = motion.points_px[:, 0] + 1j * motion.points_px[:, 1]
    from_centre = rest - rest.mean()
    turn = np.vdot(from_centre, seen - seen.mean()) / np.vdot(from_centre, from_centre)
    shift = seen.mean() - turn * rest.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def thumbnail(image: U8, pose: np.ndarray) -> bytes:
    """The face as a JPEG, `WIDTH` pixels wide. image: (H, W, 3) BGR; pose: see `face_pose`."""
    scale = WIDTH / CROP_WIDTH
    shrink = int(np.hypot(*pose[:, 0]) / scale + 0.5)
    if shrink > 1:  # average before sampling, or fine texture aliases
        size = (max(1, image.shape[1] // shrink), max(1, image.shape[0] // shrink))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        pose = pose / shrink
    to_face = np.array([[1 / scale, 0, CROP_LEFT], [0, 1 / scale, CROP_TOP], [0, 0, 1]])
    size = (WIDTH, round(CROP_HEIGHT * scale))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    face = cv2.warpAffine(image, pose @ to_face, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


class Thumbnails:
    """The faces of the last seconds, by frame number.

    lazy: keep what makes a frame's picture, and cut the face out when it is asked for: right where the
        picture is kept compressed. Otherwise it is cut out at once.
    """

    def __init__(self, *, lazy: bool) -> None:
        self._lazy = lazy
        self._kept: deque[tuple[int, float, int, Callable[[], bytes]]] = deque(maxlen=2048)
        self._bytes = 0

    def add(self, frame: Frame, motion: Motion, image: Callable[[], U8], size: int = 0) -> None:
        """Keep a frame; image: makes its (H, W, 3) BGR picture, and holds `size` bytes meanwhile."""
        pose = face_pose(motion)

        def make() -> bytes:
            return thumbnail(image(), pose)

        if self._lazy:
            self._keep(frame, size, make)
        else:
            done = make()
            self._keep(frame, len(done), lambda: done)
        while self._kept and (self._kept[0][1] < frame.time_s - KEPT_S or self._bytes > MOST_BYTES):
            self._bytes -= self._kept.popleft()[2]

    def _keep(self, frame: Frame, size: int, make: Callable[[], bytes]) -> None:
        if len(self._kept) == self._kept.maxlen:
            self._bytes -= self._kept.popleft()[2]
        self._kept.append((frame.index, frame.time_s, size, make))
        self._bytes += size

    def of(self, index: int) -> bytes | None:
        """The face at a frame, JPEG; None if it was not measured or is no longer kept."""
        return next((make() for kept, _, _, make in self._kept if kept == index), None)
