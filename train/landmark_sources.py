"""The two ways to measure a face: the live program's tracker, and dlib's 68 points.

`track` follows the nodes through a clip exactly as the live program does, `Tracked.nodes` reads onset, apex
and offset off that motion as the spotter does: the amplitudes are a least squares fit of one rise and one
fall to every frame, with the annotated key frames in the place of fitted ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.config import MotionConfig, SpottingConfig, TrackingConfig
from streamer.errors import UsageError
from streamer.fetching import FetchError, check
from streamer.graph import NODE_SETS, NODES
from streamer.kernels.windows import amplitudes, course, course_curve
from streamer.landmarker_model import find_landmarker
from streamer.messages import F32, U8, Face, Frame, Motion
from streamer.motion import NEIGHBOURS, MotionMeter
from streamer.sources.base import Picture
from streamer.tracking import MediaPipeTracker
from train.datasets import Sample
from train.magnify import Magnifier, load_magnifier, magnify

F64 = NDArray[np.float64]

PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"
PREDICTOR_SIZE = 99_693_937
PREDICTOR_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
"""Of face-recognition-models 0.3.0. It was trained on the 300-W data, which are for research only."""

LEAST_FRAMES_TO_FIT = 8
"""With fewer frames from onset to offset the key frames' own displacements are taken."""

REMEMBERED = 200
"""Pictures whose faces a detector keeps."""

LEAST_SIDE_S = 0.03
"""Shortest rise and shortest fall of a course, as in the spotter's settings."""


class Detector:
    """The models, each loaded when it is first asked. Raises UsageError and EngineError then.

    Args:
        magnifier: weights of the motion magnification network, where it is used.
    """

    def __init__(self, magnifier: Path | None = None) -> None:
        self.weights = magnifier
        self._seen: OrderedDict[bytes, list[F32]] = OrderedDict()

    @cached_property
    def magnifier(self) -> Magnifier | None:
        """The motion magnification network."""
        return None if self.weights is None else load_magnifier(self.weights)

    @cached_property
    def tracker(self) -> MediaPipeTracker:
        """The live program's landmark model."""
        return MediaPipeTracker(find_landmarker(None), TrackingConfig())

    @cached_property
    def _dlib(self) -> tuple[Any, Any]:
        """dlib's face detector and its shape predictor."""
        package = importlib.util.find_spec("face_recognition_models")
        if importlib.util.find_spec("dlib") is None or package is None or package.origin is None:
            raise UsageError(
                "dlib's landmarks need the extra dlib: pip install 'gtsgn-streamer[dlib]', or take "
                "--landmarks.source tracker"
            )
        path = Path(package.origin).parent / PREDICTOR
        try:
            check(path.read_bytes(), PREDICTOR_SIZE, PREDICTOR_SHA256)
        except (OSError, FetchError) as error:
            raise UsageError(
                f"{path} is not the predictor of face-recognition-models 0.3.0 ({error}): reinstall it"
            ) from error
        import dlib  # pyright: ignore[reportMissingImports]

        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))  # pyright: ignore

    def load(self, source: str) -> None:
        """Load what `source` ("tracker" or "dlib") needs: what is missing shows before work begins."""
        _ = self.magnifier, self._dlib if source == "dlib" else self.tracker

    def faces(self, image: U8) -> list[F32]:
        """(478, 3) pixels of each face that the live program's landmark model sees. The last `REMEMBERED`
        pictures are not shown to it again: every node set asks for the same ones."""
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if key not in self._seen:
            self._seen[key] = self.tracker.detect(image)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return self._seen[key]

    def mesh(self, image: U8) -> F32:
        """(478, 3) pixels of the largest face.

        Raises:
            ValueError: there is none.
        """
        faces = self.faces(image)
        if not faces:
            raise ValueError("the landmark model sees no face")
        return max(faces, key=lambda face: float(np.prod(np.ptp(face[:, :2], axis=0))))

    def points68(self, image: U8) -> F32:
        """(68, 2) pixels of the largest face, by dlib.

        Raises:
            ValueError: there is none.
        """
        detect, predict = self._dlib
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        boxes = detect(grey, 0) or detect(grey, 1)  # once more enlarged: it knows faces from 80 pixels up
        if not boxes:
            raise ValueError("dlib sees no face")
        shape = predict(grey, max(boxes, key=lambda box: box.area()))
        return np.array([(p.x, p.y) for p in shape.parts()], np.float32)


def open_detector(source: str, magnifier: Path | None = None) -> Detector:
    """A detector with what `source` needs loaded, and the magnifier of these weights.

    Raises:
        UsageError: the extra `dlib` is missing, or the weights are none of the network's.
        EngineError: the landmark model cannot be had.
    """
    detector = Detector(magnifier)
    detector.load(source)
    return detector


def measure_key_frames(pictures: Sequence[Picture], detector: Detector) -> F32:
    """(3, 68, 2) pixels: dlib's points at onset, apex and offset."""
    return np.stack([detector.points68(_image(picture)) for picture in pictures])


def magnified(keys: Sequence[Picture], network: Magnifier, factor: float) -> list[Picture]:
    """Onset, apex and offset, the motion since the onset magnified. The onset goes through the network too,
    though nothing of it moves: so what the network does to a picture besides is the same in all three."""
    onset = _image(keys[0])
    return [Picture.of(magnify(network, onset, _image(key), factor)) for key in keys]


def _image(picture: Picture) -> U8:
    return picture.image() if callable(picture.image) else picture.image


class NodeMeter(MotionMeter):
    """The live program's registration, for the nodes of another set.

    Each is measured with five points of the mesh about 0.13 IOD around it: those of the live program where it
    is one of the 14 nodes.

    Args:
        node_set: name of the set. landmarks: (478, 3) pixels of the face to come, to choose those points.
    """

    def __init__(self, config: MotionConfig, node_set: str, landmarks: F32) -> None:
        super().__init__(config)
        stable = self._point_ids[self._nodes : self._pool]
        ids = NODE_SETS[node_set].mediapipe
        places = face_crop.in_face_frame(face_crop.eye_line_pose(landmarks), landmarks)[:468, :2]
        distance = np.linalg.norm(places[ids][:, None] - places[None], axis=2)
        near = np.argsort(np.abs(distance - 0.13), axis=1)[:, : len(NEIGHBOURS[0])]
        for node, points in zip(NODES, NEIGHBOURS, strict=True):
            near[ids == node.mediapipe] = points
        self._node_ids, self._nodes = ids, len(ids)
        self._point_ids = np.concatenate([ids, stable, near.ravel()])
        self._pool = self._nodes + len(stable)
        self.reset()


@dataclass(frozen=True)
class Tracked:
    """A clip's nodes, frame by frame.

    numbers: (F,) of the images. times: (F,) seconds. displacement: (F, 2n) IOD, since some frame; rest:
    (n, 2) the nodes at rest, face frame, IOD. landmarks: (478, 3) pixels, of the first frame.
    """

    numbers: NDArray[np.int64]
    times: F64
    displacement: F64
    rest: F64
    landmarks: F32
    onset: int
    offset: int

    @cached_property
    def apex(self) -> int:
        """Number of the image at the apex: the one for which the spotter's course, a rise from the onset and
        a fall to the offset, is nearest to what the nodes do.

        Raises:
            ValueError: there are too few frames between onset and offset.
        """
        inside = (self.numbers >= self.onset) & (self.numbers <= self.offset)
        times, values = self.times[inside], self.displacement[inside]
        if len(times) < 5:
            raise ValueError(f"{len(times)} images from onset to offset: too few to find the apex among them")
        least = min(LEAST_SIDE_S, 0.2 * float(times[-1] - times[0]))
        best, best_error = 0, np.inf
        for position, time in enumerate(times):
            if time - times[0] < least or times[-1] - time < least:
                continue
            rows = _course_rows(times, np.array([times[0], time, times[-1]]))
            error = float(((values - rows @ np.linalg.lstsq(rows, values, rcond=None)[0]) ** 2).sum())
            if error < best_error:
                best, best_error = position, error
        return int(self.numbers[inside][best])

    def nodes(self, sample: Sample, apex: int) -> F32:
        """(3, n, 2) face frame, IOD: onset, apex and offset, as `KeyFrames.nodes` has them live.

        Raises:
            ValueError: a key frame was not measured.
        """
        shape = np.array([self._time(number) for number in (sample.onset, apex, sample.offset)])
        inside = int(((self.times >= shape[0]) & (self.times <= shape[2])).sum())
        if inside >= LEAST_FRAMES_TO_FIT:
            change, residual = _fit(self.times, self.displacement, shape)
        else:
            at = [self.displacement[self.times == time][0] for time in shape]
            change = at[1] - at[0]
            residual = float((at[2] - at[0]) @ change / max(float(change @ change), 1e-12))
        change = change.reshape(self.rest.shape)
        residual = min(1.0, max(0.0, residual))
        return np.stack([self.rest, self.rest + change, self.rest + residual * change]).astype(np.float32)

    def _time(self, number: int) -> float:
        """When an image was taken.

        Raises:
            ValueError: it was not measured.
        """
        found = self.times[self.numbers == number]
        if not len(found):
            raise ValueError(f"the face cannot be followed in image {number}")
        return float(found[0])


def _course_rows(times: F64, shape: F64) -> F64:
    """(F, 3): what least squares fit a course with: a level, the rise and the fall."""
    rise, fall = np.array([course(time, *shape) for time in times]).T
    return np.column_stack([np.ones(len(times)), rise, -fall])


def _fit(times: F64, values: F64, shape: F64) -> tuple[F64, float]:
    """(2n,) displacement of a course between the key frames, and the part of it left at the offset."""
    risen, fallen = np.linalg.lstsq(_course_rows(times, shape), values, rcond=None)[0][1:]
    ratio = float(risen @ fallen / max(float(risen @ risen), 1e-12))
    ratio = min(1.0, max(0.0, ratio))
    form = np.empty(len(times))
    course_curve(times, shape, ratio, form)
    change = np.empty(values.shape[1])
    # A drift can be told from the course only by what lies before and after it.
    margins = min(shape[0] - times[0], times[-1] - shape[2])
    if margins < 0.05 or not amplitudes(times, np.ascontiguousarray(values), form, change):
        change = np.linalg.lstsq(np.column_stack([np.ones(len(times)), form]), values, rcond=None)[0][1]
    return change, 1.0 - ratio


def track(sample: Sample, view: Sequence[tuple[int, Picture]], node_set: str, detector: Detector) -> Tracked:
    """Follow the nodes through the frames of a clip: (number, picture), in order.

    Raises:
        ValueError: the first frame shows no face, or it cannot be followed.
    """
    first = detector.mesh(_image(view[0][1]))
    meter = MotionMeter(MotionConfig())
    if node_set != "gm14":
        meter = NodeMeter(MotionConfig(), node_set, first)
    numbers, motions = [], []
    anchored_s = float("-inf")
    for number, picture in view:
        time_s = (number - view[0][0]) / sample.fps
        face = None
        if not motions:
            face = Face(number, time_s, first)
        elif time_s - anchored_s >= TrackingConfig().anchor_interval_s or meter.needs_anchor:
            faces = detector.faces(_image(picture))
            face = Face(number, time_s, faces[0]) if len(faces) == 1 else None
        if face is not None:
            anchored_s = time_s
        motion = meter.update(Frame(number, time_s, 0.0, picture.image, picture.grey), face)
        if motion is None and not motions:
            raise ValueError("the face cannot be followed from the first image on")
        covered = motion is not None and float(motion.quality.mean()) < SpottingConfig().least_quality
        # What follows a loss cannot be compared with what was before.
        if motion is not None and motion.segment == 0 and not covered:
            numbers.append(number)
            motions.append(motion)
    last: Motion = motions[-1]
    return Tracked(
        np.array(numbers, np.int64),
        np.array([motion.time_s for motion in motions]),
        np.array([motion.displacement.ravel() for motion in motions], np.float64),
        last.nodes.astype(np.float64),
        first,
        sample.onset,
        sample.offset,
    )
