"""How the nodes move: sub-pixel registration on a face-stabilised crop.

The landmark model says where the nodes are, within its jitter; registration says how they move. Each
frame is warped into a crop in which the face stands still, pyramidal Lucas-Kanade (Bouguet 2001)
matches every point's patch against one reference crop, the rigid motion of the head is fitted to the
stable points and removed, and what is left of a node's shift is its displacement.

One reference serves for about a second; then the current crop becomes the reference. The noise of
that picture enters once with each sign, so the displacement goes on without a step and drift is
bounded: at every change of reference the points are pulled towards the landmark model's positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from streamer.config import MotionConfig
from streamer.graph import NODES
from streamer.kernels.registration import TERMS, fit_head, learn_depth, remove_head
from streamer.messages import F32, U8, Face, Frame, Motion

STABLE_POINTS = {
    1.0: (6, 197, 195, 5, 4, 122, 351, 127, 356, 139, 368, 116, 345, 117, 346, 123, 352, 50, 280, 101, 330),
    0.5: (33, 133, 362, 263, 36, 266, 205, 425, 187, 411, 151, 69, 299, 104, 333, 67, 297, 108, 337),
    0.3: (199, 175, 32, 262, 210, 430, 135, 364, 212, 432),
}
"""MediaPipe-478 points that carry the head's motion, by prior weight: bone (nose, temples, cheek
bones), then eye corners, cheeks and forehead, then the lower face, so that the fit spans the face.
Those that an expression moves are a minority that the robust fit leaves out."""

EYE_CORNERS = ((33, 133), (362, 263))
"""(outer, inner) of the person's right eye, (inner, outer) of the left: image left to image right."""

EYE_LIDS = ((159, 145), (386, 374))
"""Middle of the upper and of the lower lid, person's right eye then left."""

EYE_BOX, EYE_PATCH = (0.24, 0.11), (24, 11)
"""The patch of an eye: half width and half height in IOD, and its size in samples."""

INFORMATION_LIMIT = 2.0
"""Most that one patch's image information may count, in medians of the face's patches."""

CROP_LEFT, CROP_TOP, CROP_WIDTH, CROP_HEIGHT = -1.2, -0.85, 2.4, 2.55
"""The crop in the face frame, IOD."""


@dataclass
class _Reference:
    """The crop that the following frames are matched against.

    crop: (H, W) uint8 grey. points: (P, 2) float32 crop pixels. depth_points: (P, 3) float64
    face frame. information: (P, 3) float64. base: (14, 2) float64 displacement of the nodes in this
    crop since the segment began. turn: (2,) likewise for the out-of-plane terms.
    mean, std: grey level statistics of the crop.
    """

    time_s: float
    scale: float
    crop: U8
    points: F32
    points3: np.ndarray
    information: np.ndarray
    base: np.ndarray
    turn: np.ndarray
    mean: float
    std: float


def _similarity(a: float, b: float, x: float, y: float) -> np.ndarray:
    return np.array([[a, -b, x], [b, a, y], [0.0, 0.0, 1.0]])


def eye_line_pose(landmarks: np.ndarray) -> np.ndarray:
    """(3, 3) similarity from the face frame (IOD) to image pixels, by the two eye centres.

    Raises:
        ValueError: the two eye centres coincide.
    """
    right = landmarks[list(EYE_CORNERS[0]), :2].mean(0).astype(np.float64)
    left = landmarks[list(EYE_CORNERS[1]), :2].mean(0).astype(np.float64)
    axis = left - right
    if not np.hypot(*axis) > 1e-3:
        raise ValueError("the eye centres coincide: no face frame")
    centre = (right + left) / 2
    return _similarity(axis[0], axis[1], centre[0], centre[1])


def eye_openness(landmarks: np.ndarray, eye: int) -> float:
    """Distance between the lids over the eye's width; eye 0 is the person's right, 1 the left."""
    upper, lower = EYE_LIDS[eye]
    first, second = EYE_CORNERS[eye]
    width = float(np.hypot(*(landmarks[first, :2] - landmarks[second, :2])))
    return float(np.hypot(*(landmarks[upper, :2] - landmarks[lower, :2]))) / max(width, 1e-6)


def _to_face(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(pose)
    return points @ inverse[:2, :2].T + inverse[:2, 2]


class MotionMeter:
    """Measures node displacement frame by frame; one face, one call a frame.

    Bounded: one reference crop, one current crop.
    """

    def __init__(self, config: MotionConfig) -> None:
        self.config = config
        self._node_ids = np.array([node.mediapipe for node in NODES])
        self._point_ids = np.concatenate([self._node_ids, *map(np.array, STABLE_POINTS.values())])
        self._nodes = len(NODES)
        self._prior = np.concatenate([np.full(len(ids), w) for w, ids in STABLE_POINTS.items()])
        self._segment = -1
        self._ridge = np.array([0.0, 0.0, 0.0, 0.0, *([config.shear_ridge] * 2), *([config.turn_ridge] * 2)])
        self._params = np.zeros(TERMS)
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next frame that has one starts a new segment."""
        self._reference: _Reference | None = None
        self._pose = np.eye(3)
        self._start_pose = np.eye(3)
        self._rest: np.ndarray | None = None
        self._bad_frames = 0
        self._flow: F32 | None = None
        self._depth = np.zeros(len(self._point_ids))
        self._usual_eye = np.zeros((2, EYE_PATCH[1], EYE_PATCH[0]), np.float32)
        self._usual_openness = np.zeros(2)
        self._last_s = float("-inf")

    @property
    def needs_anchor(self) -> bool:
        """The registration is unsure: run the landmark model on the next frame."""
        return self._reference is None or self._bad_frames > 0

    def update(self, frame: Frame, face: Face | None) -> Motion | None:
        """Measure one frame.

        Args:
            frame: the picture.
            face: the landmark model's answer for this very frame, or None where it did not run.

        Returns:
            The motion, or None while no face is known.
        """
        grey_source = frame.image
        if self._reference is None:
            if face is None:
                return None
            self._begin(frame, face)
        measured = self._measure(grey_source)
        if measured is None or (face is not None and not self._agrees(face)):
            if face is None:
                self._bad_frames += 1
                return None
            self._begin(frame, face)
            measured = self._measure(grey_source)
            if measured is None:
                return None
        points, residual, quality = measured
        reference = self._reference
        assert reference is not None and self._rest is not None
        moved = (points - reference.points).astype(np.float64) / reference.scale
        own = np.empty((self._nodes, 2))
        remove_head(reference.points3[: self._nodes], moved[: self._nodes], self._params, own)
        displacement = reference.base + own
        elapsed = frame.time_s - self._last_s
        self._last_s = frame.time_s
        if self.config.depth_s > 0 and elapsed < 0.2:
            step = min(1.0, elapsed / self.config.depth_s)
            learn_depth(self._depth, reference.points3, moved, self._params, step, self.config.depth_limit)
            reference.points3[:, 2] = self._depth
        self._bad_frames = 0 if quality[: self._nodes].mean() > 0.5 else self._bad_frames + 1

        crop_to_face = points.astype(np.float64) / reference.scale + (CROP_LEFT, CROP_TOP)
        points_px = crop_to_face[: self._nodes] @ self._pose[:2, :2].T + self._pose[:2, 2]
        if face is not None:
            self._learn(face, displacement)
        eyes = self._closure(face)
        head = self._head(reference)
        motion = Motion(
            frame=frame.index,
            time_s=frame.time_s,
            segment=self._segment,
            nodes=self._rest[self._node_ids, :2].astype(np.float32),
            displacement=displacement.astype(np.float32),
            quality=quality[: self._nodes],
            head=head,
            eyes=eyes,
            residual=residual,
            iod_px=float(np.hypot(self._pose[0, 0], self._pose[1, 0])),
            points_px=points_px.astype(np.float32),
        )
        self._settle(crop_to_face)
        if self._due(frame.time_s, reference, quality):
            self._renew(frame, displacement)
        return motion

    # -- one frame ---------------------------------------------------------------------------------

    def _crop(self, image: U8, scale: float) -> U8:
        """The face-stabilised grey crop at `scale` pixels per IOD."""
        width, height = round(CROP_WIDTH * scale), round(CROP_HEIGHT * scale)
        iod_px = float(np.hypot(self._pose[0, 0], self._pose[1, 0]))
        to_image = self._pose @ _similarity(1 / scale, 0.0, CROP_LEFT, CROP_TOP)
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ to_image[:2, :2].T
        corners += to_image[:2, 2]
        left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 2, 0)
        right, bottom = np.ceil(corners.max(0)).astype(int) + 3
        patch = image[top:bottom, left:right]
        if patch.shape[0] < 8 or patch.shape[1] < 8:
            return np.zeros((height, width), np.uint8)
        grey = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY) if patch.ndim == 3 else patch
        shift = _similarity(1.0, 0.0, -float(left), -float(top))
        shrink = int(iod_px / scale + 0.5)
        if shrink > 1:
            small = (max(1, grey.shape[1] // shrink), max(1, grey.shape[0] // shrink))
            fx, fy = small[0] / grey.shape[1], small[1] / grey.shape[0]
            grey = cv2.resize(grey, small, interpolation=cv2.INTER_AREA)
            shift = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]]) @ shift
        return cv2.warpAffine(
            grey,
            (shift @ to_image)[:2],
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _measure(self, image: U8) -> tuple[F32, float, F32] | None:
        """Match the frame: (P, 2) points in crop pixels, stable residual (IOD), (P,) quality."""
        reference = self._reference
        assert reference is not None
        c = self.config
        window = max(7, int(c.window * reference.scale) | 1)
        for attempt in range(2):
            crop = self._crop(image, reference.scale)
            mean, std = cv2.meanStdDev(crop)
            gain = reference.std / max(float(std[0, 0]), 1.0)
            crop = cv2.convertScaleAbs(crop, alpha=gain, beta=reference.mean - gain * float(mean[0, 0]))
            guess = reference.points.copy() if self._flow is None else reference.points + self._flow
            points, status, error = cv2.calcOpticalFlowPyrLK(
                reference.crop,
                crop,
                reference.points,
                guess,
                winSize=(window, window),
                maxLevel=c.levels,
                criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, c.iterations, 0.003),
                flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
            )
            found = status.ravel() == 1
            moved = (points - reference.points).astype(np.float64) / reference.scale
            weights = np.where(found[self._nodes :], self._prior, 0.0)
            if weights.sum() < 6:
                return None
            residual = fit_head(
                reference.points3[self._nodes :],
                moved[self._nodes :],
                reference.information[self._nodes :],
                self._ridge,
                c.outlier,
                6,
                weights,
                self._params,
            )
            self._weights = weights
            shift = float(np.abs(self._params[:4]).max())
            if attempt == 0 and shift > c.rewarp:
                self._pose = self._pose @ self._fitted()
                self._flow = None
                continue
            break
        self._grey = crop
        contrast = max(reference.std, 1.0)
        quality = np.where(found, np.clip(1.5 - error.ravel() / (0.5 * contrast), 0.0, 1.0), 0.0)
        if residual > c.lost_residual or not np.isfinite(residual):
            return None
        self._flow = points - reference.points
        return points, residual, quality.astype(np.float32)

    def _fitted(self) -> np.ndarray:
        """The similarity part of the fitted head motion, face frame to face frame."""
        tx, ty, s, r = self._params[:4]
        return _similarity(1 + s, r, tx, ty)

    def _settle(self, positions: np.ndarray) -> None:
        """Move the crop along with the head, so that the next frame starts centred."""
        fitted = self._fitted()
        self._pose = self._pose @ fitted
        if self._flow is not None and self._reference is not None:
            scale = self._reference.scale
            inverse = np.linalg.inv(fitted)
            settled = positions @ inverse[:2, :2].T + inverse[:2, 2]
            self._flow = ((settled - (CROP_LEFT, CROP_TOP)) * scale).astype(
                np.float32
            ) - self._reference.points

    def _head(self, reference: _Reference) -> F32:
        now = np.linalg.inv(self._start_pose) @ self._pose @ self._fitted()
        turn = reference.turn + self._params[6:8]
        size = np.hypot(now[0, 0], now[1, 0])
        roll = np.arctan2(now[1, 0], now[0, 0])
        return np.array([now[0, 2], now[1, 2], roll, np.log(size), turn[0], turn[1]], np.float32)

    def _closure(self, face: Face | None) -> F32:
        """(2,) how shut each eye is: 1 - correlation of the eye's patch with how it usually looks.

        The usual look is learned only while the landmark model sees the eye about as open as ever.
        """
        reference = self._reference
        assert reference is not None
        closure = np.zeros(2, np.float32)
        for eye in range(2):
            left, top = (
                np.array([eye - 0.5 - EYE_BOX[0], -EYE_BOX[1]]) - (CROP_LEFT, CROP_TOP)
            ) * reference.scale
            width, height = 2 * EYE_BOX[0] * reference.scale, 2 * EYE_BOX[1] * reference.scale
            box = self._grey[round(top) : round(top + height), round(left) : round(left + width)]
            patch = cv2.resize(box, EYE_PATCH, interpolation=cv2.INTER_AREA).astype(np.float32)
            patch -= patch.mean()
            patch /= max(float(np.sqrt((patch * patch).sum())), 1e-6)
            usual = self._usual_eye[eye]
            if face is not None:
                openness = eye_openness(face.landmarks, eye)
                self._usual_openness[eye] = max(openness, 0.98 * self._usual_openness[eye])
                if openness > 0.75 * self._usual_openness[eye]:
                    usual += (0.3 if usual.any() else 1.0) * (patch - usual)
            size = float(np.sqrt((usual * usual).sum()))
            if size > 0:
                closure[eye] = min(1.0, max(0.0, 1.0 - float((patch * usual).sum()) / size))
        return closure

    # -- anchors and references --------------------------------------------------------------------

    def _begin(self, frame: Frame, face: Face) -> None:
        """Start a segment at the landmark model's face."""
        self._segment += 1
        self._pose = eye_line_pose(face.landmarks)
        self._start_pose = self._pose.copy()
        self._pose_error = np.zeros(4)
        self._rest = self._in_face_frame(face)
        self._flow = None
        self._params[:] = 0.0
        self._depth[:] = self._rest[self._point_ids, 2]
        scale = self._scale()
        crop = self._crop(frame.image, scale)
        self._set_reference(
            frame.time_s, scale, crop, self._rest[self._point_ids], np.zeros((14, 2)), np.zeros(2)
        )

    def _scale(self) -> float:
        iod_px = float(np.hypot(self._pose[0, 0], self._pose[1, 0]))
        return float(np.clip(iod_px, self.config.crop_iod_min_px, self.config.crop_iod_max_px))

    def _in_face_frame(self, face: Face) -> np.ndarray:
        """(478, 3) landmarks in the face frame of the current pose; depth from the eye corners' plane."""
        landmarks = face.landmarks.astype(np.float64)
        iod_px = float(np.hypot(self._pose[0, 0], self._pose[1, 0]))
        out = np.empty_like(landmarks)
        out[:, :2] = _to_face(self._pose, landmarks[:, :2])
        corners = [i for eye in EYE_CORNERS for i in eye]
        out[:, 2] = (landmarks[:, 2] - landmarks[corners, 2].mean()) / iod_px
        return out

    def _agrees(self, face: Face) -> bool:
        """Whether the landmark model still sees the face where registration has it."""
        try:
            model = eye_line_pose(face.landmarks)
        except ValueError:
            return False
        error = np.linalg.inv(self._pose @ self._fitted()) @ model
        shift = np.hypot(error[0, 2], error[1, 2])
        size = np.hypot(error[0, 0], error[1, 0])
        return bool(shift < self.config.disagree and abs(np.log(size)) < self.config.disagree)

    def _learn(self, face: Face, displacement: np.ndarray) -> None:
        """Average the landmark model's rest positions and the pose error over anchors."""
        assert self._rest is not None
        seen = self._in_face_frame(face)
        inverse = np.linalg.inv(self._fitted())
        seen[:, :2] = seen[:, :2] @ inverse[:2, :2].T + inverse[:2, 2]
        rest = seen.copy()
        rest[self._node_ids, :2] -= displacement
        self._rest += self.config.anchor_gain * (rest - self._rest)
        error = np.linalg.inv(self._pose @ self._fitted()) @ eye_line_pose(face.landmarks)
        now = np.array([error[0, 2], error[1, 2], error[0, 0] - 1.0, error[1, 0]])
        self._pose_error += self.config.anchor_gain * (now - self._pose_error)

    def _due(self, time_s: float, reference: _Reference, quality: F32) -> bool:
        old = time_s - reference.time_s >= self.config.reference_s
        turned = float(np.abs(self._params[4:]).max()) > self.config.turn_limit
        scaled = abs(np.log(self._scale() / reference.scale)) > 0.2
        return old or turned or scaled

    def _renew(self, frame: Frame, displacement: np.ndarray) -> None:
        """Make the current picture the reference, pulled towards the landmark model's pose and points."""
        reference = self._reference
        assert reference is not None and self._flow is not None and self._rest is not None
        pull = self.config.pull
        tx, ty, s, r = pull * self._pose_error
        correction = _similarity(1 + s, r, tx, ty)
        self._pose = self._pose @ correction
        self._pose_error *= 1 - pull
        inverse = np.linalg.inv(correction)
        scale = self._scale()
        points = (reference.points + self._flow).astype(np.float64) / reference.scale + (CROP_LEFT, CROP_TOP)
        points = points @ inverse[:2, :2].T + inverse[:2, 2]
        self._rest[:, :2] = self._rest[:, :2] @ inverse[:2, :2].T + inverse[:2, 2]
        model = self._rest[self._point_ids].copy()
        model[: self._nodes, :2] += displacement
        model[:, :2] = points + pull * (model[:, :2] - points)
        model[:, 2] = self._depth
        self._set_reference(
            frame.time_s,
            scale,
            self._crop(frame.image, scale),
            model,
            displacement,
            reference.turn + self._params[6:8],
        )
        self._flow = None
        self._params[:] = 0.0

    def _set_reference(
        self, time_s: float, scale: float, crop: U8, points3: np.ndarray, base: np.ndarray, turn: np.ndarray
    ) -> None:
        window = max(7, int(self.config.window * scale) | 1)
        points = ((points3[:, :2] - (CROP_LEFT, CROP_TOP)) * scale).astype(np.float32)
        mean, std = cv2.meanStdDev(crop)
        self._reference = _Reference(
            time_s=time_s,
            scale=scale,
            crop=crop,
            points=points,
            points3=np.ascontiguousarray(points3, np.float64),
            information=self._information(crop, points, window),
            base=base.copy(),
            turn=turn.copy(),
            mean=float(mean[0, 0]),
            std=max(float(std[0, 0]), 1.0),
        )

    @staticmethod
    def _information(crop: U8, points: F32, window: int) -> np.ndarray:
        """(P, 3) gxx, gxy, gyy of each patch, the median trace scaled to 1."""
        smooth = cv2.GaussianBlur(crop, (0, 0), 1.0).astype(np.float32)
        gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
        size = (window, window)
        tensor = np.stack([cv2.boxFilter(p, -1, size) for p in (gx * gx, gx * gy, gy * gy)], -1)
        column = np.clip(np.rint(points[:, 0]).astype(int), 0, crop.shape[1] - 1)
        row = np.clip(np.rint(points[:, 1]).astype(int), 0, crop.shape[0] - 1)
        information = tensor[row, column].astype(np.float64)
        trace = information[:, 0] + information[:, 2]
        typical = max(float(np.median(trace)), 1e-6)
        # A strong edge measures better than a faint one, but past some contrast it is the head model
        # that errs, not the match: no patch may outweigh the others.
        return information / np.maximum(typical, trace / INFORMATION_LIMIT)[:, None]
