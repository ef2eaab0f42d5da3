"""Finding faces: the landmark model behind one Protocol, and the choice of the face that is followed.

The landmark model says where a face is and where its 478 points are, in one frame, with no memory of the
frames before: MediaPipe's VIDEO mode low-passes the points of a single face, which flattens and delays a
micro-expression. How the points move is measured by `streamer.motion`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from streamer.config import TrackingConfig
from streamer.errors import EngineError
from streamer.messages import F32, U8, Face

log = logging.getLogger(__name__)

LANDMARKS = 478
"""Points of MediaPipe's face mesh: 468 on the face, then 5 for each iris."""


class Tracker(Protocol):
    """A landmark model: pictures in, faces out, one picture independent of the other."""

    def detect(self, image: U8) -> list[F32]:
        """Find the faces of one picture, in no particular order.

        Args:
            image: (height, width, 3) uint8 BGR, or (height, width) or (height, width, 1) uint8 grey; any
                size and memory layout.

        Returns:
            One (478, 3) float32 array a face, image frame, pixels; z in pixels too, relative to the
            head's centre, towards the camera negative.
        """
        ...

    def close(self) -> None:
        """Free the model. May be called twice."""
        ...


class MediaPipeTracker:
    """MediaPipe's FaceLandmarker in IMAGE mode on the CPU.

    Where the whole picture shows it no face, it looks again at overlapping square parts, which show small
    faces larger. A face in two of them is given twice; `FaceFollower` counts it once.

    One tracker serves one thread at a time; several trackers may work in several threads.

    Args:
        model: a checked `face_landmarker.task` (see `streamer.landmarker_model`).
        config: number of faces and confidence threshold.

    Raises:
        EngineError: MediaPipe cannot be loaded, or refuses the model.
    """

    def __init__(self, model: Path, config: TrackingConfig) -> None:
        try:
            data = model.read_bytes()
        except OSError as error:
            raise EngineError(
                f"the landmark model {model} cannot be read ({error.strerror}): check --landmarker"
            ) from error
        with _native_messages_to_log():
            # Here and not at the top: it takes 0.7 s, which nobody needs who only follows faces.
            try:
                import mediapipe
                from mediapipe.tasks.python import BaseOptions, vision
            except (ImportError, OSError) as error:
                raise EngineError(
                    f"MediaPipe cannot be loaded ({error}): on Debian and Ubuntu install its libraries with "
                    f"'apt-get install libegl1 libgles2', elsewhere reinstall mediapipe"
                ) from error
            try:
                options = vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_buffer=data, delegate=BaseOptions.Delegate.CPU),
                    running_mode=vision.RunningMode.IMAGE,
                    num_faces=config.max_faces,
                    min_face_detection_confidence=config.min_confidence,
                    min_face_presence_confidence=config.min_confidence,
                )
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
                # Closed at the latest when this object goes. Left to the garbage collector, the landmarker
                # waits for ever for its own worker thread, which may have been collected before it.
                self._close = weakref.finalize(self, _close, self._landmarker)
                self._image = mediapipe.Image
                self._format = mediapipe.ImageFormat.SRGB
                # The graph's threads start (and write their messages) before the first result is out.
                self.detect(np.zeros((64, 64, 3), np.uint8))
            # What MediaPipe raises for a bad model file (its own docstring names these two).
            except (RuntimeError, ValueError) as error:
                raise EngineError(
                    f"MediaPipe refuses the landmark model {model} ({error}): delete the file and start "
                    f"again to fetch it anew, or check --landmarker"
                ) from error

    def detect(self, image: U8) -> list[F32]:
        """See `Tracker.detect`.

        Raises:
            ValueError: the array is not a picture as described there, or the tracker is closed.
        """
        if not self._close.alive:
            raise ValueError("the tracker is closed")
        rgb = _to_rgb(image)
        return self._detect(rgb) or [
            face for tile in _tiles(*rgb.shape[:2]) for face in self._in_tile(rgb, tile)
        ]

    def _detect(self, rgb: U8) -> list[F32]:
        """The faces of a contiguous RGB picture."""
        height, width = rgb.shape[:2]
        result = self._landmarker.detect(self._image(image_format=self._format, data=rgb))
        # Normalised by the picture's sides, z by its width. Scaled so, whole numbers are pixel centres: an
        # enlargement by k moves the points to k p + (k - 1) / 2, a mirror image to width - 1 - x.
        scale = np.array([width, height, width], np.float32)
        return [
            np.array([(p.x, p.y, p.z) for p in landmarks], np.float32) * scale
            for landmarks in result.face_landmarks
        ]

    def _in_tile(self, rgb: U8, tile: tuple[slice, slice]) -> list[F32]:
        """The faces of a part of the picture that the part's edges do not cut (a next part shows those)."""
        rows, columns = tile
        height, width = rgb.shape[:2]
        low = np.array([0 if columns.start else -np.inf, 0 if rows.start else -np.inf])
        high = np.array([columns.stop, rows.stop]) - (columns.start, rows.start) - 1.0
        high[[columns.stop == width, rows.stop == height]] = np.inf
        return [
            face + np.array([columns.start, rows.start, 0], np.float32)
            for face in self._detect(np.ascontiguousarray(rgb[tile]))
            if (face[:, :2] >= low).all() and (face[:, :2] <= high).all()
        ]

    def close(self) -> None:
        """See `Tracker.close`."""
        self._close()


def _close(landmarker: Any) -> None:
    try:
        landmarker.close()
    except RuntimeError as error:
        # A tracker that is still open when the program ends: its worker thread is gone, and all memory
        # goes with the process. Without a handle MediaPipe does not try once more.
        landmarker._handle = None
        log.debug("the landmark model is left to the end of the process: %s", error)


MAX_TILES = 6


def _tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """Square parts that cover an oblong picture, each overlapping the next by at least half.

    The detector sees the whole picture at 128 x 128 pixels and misses faces whose eyes are less than
    about 5.5 % of the longer side apart (35 px of 640, 75 px of 1280, 100 px of 1920). A square part of
    the shorter side's length brings that down to 26, 40 and 60 px.
    """
    side, length = min(height, width), max(height, width)
    count = math.ceil(2 * (length - side) / side) + 1
    if not 1 < count <= MAX_TILES:  # a square gains nothing; a ribbon is no picture of a face
        return []
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    whole = slice(0, side)
    parts = [slice(start, start + side) for start in starts]
    return [(whole, part) if width > height else (part, whole) for part in parts]


def _to_rgb(image: U8) -> U8:
    if image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"a picture is uint8 and not empty, this is {image.dtype} of shape {image.shape}")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        code = cv2.COLOR_GRAY2RGB
    elif image.ndim == 3 and image.shape[2] == 3:
        code = cv2.COLOR_BGR2RGB
    else:
        raise ValueError(f"a picture is BGR or grey, this has shape {image.shape}")
    return cv2.cvtColor(np.ascontiguousarray(image), code)  # pyright: ignore[reportReturnType]


_NATIVE_MESSAGE = re.compile(rb"[IWEF]\d{4} |INFO: |WARNING: All log messages ")
"""How absl, glog and TensorFlow Lite begin a line."""
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _native_messages_to_log() -> Iterator[None]:
    """Turn what native code writes to standard error into DEBUG records; everything else passes through.

    MediaPipe, absl and TensorFlow Lite write to file descriptor 2 and offer no switch, so the descriptor is
    pointed at a file meanwhile. What Python code of another thread writes in that time comes out afterwards.
    """
    with _stderr_lock, tempfile.TemporaryFile() as caught:
        try:
            stderr = os.dup(2)
        except OSError:  # Closed by who started the program: then there is nothing to keep clean.
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if _NATIVE_MESSAGE.match(line):
                    log.debug("%s", line.decode(errors="replace").rstrip())
                else:
                    os.write(2, line)


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a face is: centre (2,) float, image frame, pixels; size: side of the square of equal area."""

    centre: F32
    size: float

    @classmethod
    def of(cls, landmarks: F32) -> _Box:
        low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
        return cls((low + high) / 2, float(np.sqrt(np.prod(high - low))))

    def distance(self, other: _Box) -> float:
        """Between the centres, in units of this face's size."""
        return float(np.linalg.norm(self.centre - other.centre)) / max(self.size, 1.0)


class FaceFollower:
    """Chooses one face and stays with it.

    The largest face is taken first. From then on the face is the one that continues it in place and size,
    however large others are. A face that is missing for more than `lost_s` is given up and the largest is
    taken again. A function of what it is given: no clock, no randomness.

    Args:
        lost_s: how long a missing face is waited for, seconds, from the first update that lacks it: updates
            may be further apart than that.

    Attributes:
        taken: how often a face was taken anew. Two faces returned under the same number are the same
            person, as far as place and size can tell.
    """

    SAME_FACE = 0.25
    """Two detections whose centres are nearer than this (in face sizes) are one face seen twice."""
    MAX_STEP = 0.75
    """A face moves at most so many of its own sizes between two updates. Heads that touch cheek to cheek
    are about 0.9 face sizes apart (the box of the landmarks is higher than it is wide)."""
    MAX_RESIZE = 1.5
    """A face grows or shrinks at most by this factor between two updates."""

    def __init__(self, lost_s: float) -> None:
        self._lost_s = lost_s
        self._last: _Box | None = None
        self._missing_since_s: float | None = None
        self._neighbours: list[_Box] = []
        self.taken = 0

    def update(self, frame_index: int, time_s: float, faces: list[F32]) -> Face | None:
        """Choose among the faces of one frame.

        Args:
            frame_index: 0-based index of the frame in its source.
            time_s: its time in the source, seconds, not decreasing.
            faces: (478, 3) float32 each, image frame, pixels, as `Tracker.detect` gives them.

        Returns:
            The followed face, with the number of the others; None if it is not in this frame.
        """
        seen = self._distinct(faces)
        if self._missing_since_s is not None and time_s - self._missing_since_s > self._lost_s:
            self._last = None
        if self._last is not None:
            chosen = self._continuation(self._last, [box for box, _ in seen])
        elif seen:
            chosen = 0
            self.taken += 1
        else:
            chosen = None
        self._neighbours = [box for i, (box, _) in enumerate(seen) if i != chosen]
        if chosen is None:
            if self._missing_since_s is None:
                self._missing_since_s = time_s
            return None
        self._last, landmarks = seen[chosen]
        self._missing_since_s = None
        return Face(frame_index, time_s, landmarks, others=len(seen) - 1)

    def _distinct(self, faces: list[F32]) -> list[tuple[_Box, F32]]:
        """The faces, largest first, without second detections of the same face."""
        kept: list[tuple[_Box, F32]] = []
        for box, face in sorted(((_Box.of(face), face) for face in faces), key=lambda pair: -pair[0].size):
            if all(other.distance(box) > self.SAME_FACE for other, _ in kept):
                kept.append((box, face))
        return kept

    def _continuation(self, last: _Box, boxes: list[_Box]) -> int | None:
        """Index of the box that continues `last`, if one does."""
        best, best_distance = None, self.MAX_STEP
        for i, box in enumerate(boxes):
            distance = last.distance(box)
            same_size = 1 / self.MAX_RESIZE < box.size / max(last.size, 1.0) < self.MAX_RESIZE
            # A face that stands where a neighbour stood is that neighbour, even if ours has just gone.
            is_neighbour = any(
                last.size * distance > other.size * other.distance(box) for other in self._neighbours
            )
            if distance < best_distance and same_size and not is_neighbour:
                best, best_distance = i, distance
        return best
