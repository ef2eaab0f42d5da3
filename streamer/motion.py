"""How the nodes move: sub-pixel registration on a face-stabilised crop.

The landmark model says where the nodes are, within its jitter; registration says how they move. Each
frame is warped into a crop in which the face stands still, pyramidal Lucas-Kanade (Bouguet 2001)
matches every point's patch against one reference crop, the rigid motion of the head is fitted to the
stable points and removed, and what is left of a node's shift is its displacement.

One reference serves for half a second; then the current crop becomes the reference. The noise of that
picture enters once with each sign, so the displacement goes on without a step, and drift is bounded:
at every change of reference the points are pulled towards the landmark model's positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from streamer import face_crop
from streamer.config import MotionConfig
from streamer.face_crop import F64, EyeWatch, face_points, inverse, move, similarity
from streamer.graph import NODES
from streamer.kernels.patches import cut_patches, match_patches, structure
from streamer.kernels.registration import TERMS, fit_head, learn_depth, pool_nodes
from streamer.messages import F32, U8, Face, Frame, Motion

STABLE_POINTS = {
    1.0: (
        *(6, 197, 195, 5, 4, 122, 351, 127, 356, 139, 368, 116, 345, 117, 346, 123, 352, 50, 280, 101, 330),
        *(199, 175, 32, 262, 210, 430, 135, 364, 212, 432),
    ),
    0.5: (33, 133, 362, 263, 36, 266, 205, 425, 187, 411),
    0.2: (151, 69, 299, 104, 333, 67, 297, 108, 337),
}
"""MediaPipe-478 points that carry the head's motion, by prior weight: nose, temples, cheek bones and jaw;
then eye corners and cheeks, which more expressions move; then the forehead, which every raised brow
takes along. They span the face, and those that an expression moves are a minority that the robust fit
leaves out. The weights are those of several tried that lost least of known expressions."""

NEIGHBOURS = (
    (46, 53, 63, 68, 156),
    (52, 63, 66, 104, 69),
    (55, 65, 66, 108, 9),
    (285, 295, 296, 337, 9),
    (282, 293, 296, 333, 299),
    (276, 283, 293, 298, 383),
    (6, 8, 193, 417, 197),
    (4, 5, 19, 45, 275),
    (64, 97, 129, 165, 203),
    (294, 326, 358, 391, 423),
    (43, 57, 92, 106, 186),
    (37, 39, 164, 267, 269),
    (273, 287, 322, 335, 410),
    (18, 84, 181, 314, 405),
)
"""MediaPipe-478 points about 0.13 IOD around each node that are measured with it: a video codec displaces
its blocks one by one, and six patches on as many blocks are steadier than one. None lies on a lid, on the
inside of the lips or at the edge of the face."""

INFORMATION_LIMIT = 2.0
"""Most that one patch's image information may count, in medians of the face's patches."""

FIT_ROUNDS = 6
"""Reweighting rounds of the head fit: four to narrow its idea of an outlier, two to settle."""

HOLE_S = 0.2
"""After a longer hole between two frames nothing is learned about depth."""


@dataclass
class _Reference:
    """The crop that the following frames are matched against.

    picture: (H, W) uint8. scale: pixels an IOD. points: (P, 2) float32, crop pixels. points3: (P, 3)
    face frame, IOD. information: (P, 3). patches, gradients, inverse: of `cut_patches`. base: (14, 2)
    displacement of the nodes in this picture since the segment began; turn: (2,) likewise for the head's
    out-of-plane terms. mean, deviation: grey levels.
    """

    time_s: float
    scale: float
    picture: U8
    points: F32
    points3: F64
    information: F64
    patches: F32
    gradients: F32
    inverse: F64
    base: F64
    turn: F64
    mean: float
    deviation: float


@dataclass
class _Match:
    """One frame matched: crop, (P, 2) points in crop pixels, shift (P, 2) IOD, residual IOD, (P,) quality,
    (4,) light as in `Motion`."""

    picture: U8
    points: F32
    shift: F64
    residual: float
    quality: F32
    light: F32


class MotionMeter:
    """Measures node displacement frame by frame; one face, one `update` a frame, bounded memory."""

    def __init__(self, config: MotionConfig) -> None:
        self.config = config
        self._node_ids = np.array([node.mediapipe for node in NODES])
        self._nodes = len(NODES)
        stable = [point for points in STABLE_POINTS.values() for point in points]
        self._point_ids = np.concatenate([self._node_ids, stable, *NEIGHBOURS])
        self._pool = self._nodes + len(stable)
        self._prior = np.concatenate([np.full(len(ids), w) for w, ids in STABLE_POINTS.items()])
        self._prior_sum = float(self._prior.sum())
        self._ridge = np.array([0.0] * 4 + [config.shear_ridge] * 2 + [config.turn_ridge] * 2)
        self._params = np.zeros(TERMS)
        self._segment = -1
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next frame that has one starts a new segment."""
        self._reference: _Reference | None = None
        self._unsure = False
        self._last_s = float("-inf")

    @property
    def needs_anchor(self) -> bool:
        """The registration is unsure, or there is none: run the landmark model on the next frame."""
        return self._reference is None or self._unsure

    def update(self, frame: Frame, face: Face | None) -> Motion | None:
        """Measure one frame.

        Args:
            frame: the picture.
            face: the landmark model's answer for this very frame, or None where it did not run.

        Returns:
            The motion; None while no face is known, and for a frame that cannot be matched.
        """
        match = self._match(frame.grey_or_image) if self._reference is not None else None
        if match is None or (face is not None and not self._agrees(face)):
            if face is None or not self._begin(frame, face):
                self._unsure = True
                return None
            match = self._match(frame.grey_or_image)
            if match is None:
                self._unsure = True
                return None
        reference = self._reference
        assert reference is not None
        quality = match.quality[: self._nodes]
        self._unsure = sum(quality.tolist()) < self.config.unsure_quality * self._nodes

        own = self._own.copy()  # a node that is out of sight stays where it was seen last
        pool_nodes(
            reference.points3,
            match.shift,
            reference.information,
            match.quality,
            self._pool,
            self._params,
            own,
        )
        self._own = own
        displacement = reference.base + own
        self._learn_depth(frame.time_s, reference, match)

        positions = face_points(match.points, reference.scale)
        if face is not None:
            self._learn(face, displacement)
        motion = Motion(
            frame=frame.index,
            time_s=frame.time_s,
            segment=self._segment,
            nodes=self._rest[self._node_ids, :2].astype(np.float32),
            displacement=displacement.astype(np.float32),
            quality=quality,
            head=self._head(reference),
            eyes=self._eyes.update(match.picture, reference.scale, None if face is None else face.landmarks),
            residual=match.residual,
            iod_px=face_crop.size(self._pose),
            points_px=move(self._pose, positions[: self._nodes]).astype(np.float32),
            light=match.light,
        )
        positions = self._settle(positions, reference)
        if self._due(frame.time_s, reference):
            self._renew(frame, positions, displacement, reference)
        return motion

    # -- one frame ---------------------------------------------------------------------------------

    def _match(self, image: U8) -> _Match | None:
        """Match a frame with the reference and fit the head's motion; None if it does not fit."""
        reference = self._reference
        assert reference is not None
        c, nodes = self.config, self._nodes
        guess = reference.points + self._flow
        # Without pyramid first: from the last frame's shifts it is but a small step. With it, if that fails.
        for last_try in (False, True):
            picture = face_crop.crop(image, self._pose, reference.scale)
            light = face_crop.quarter_light(picture)
            picture = face_crop.with_statistics(picture, reference.mean, reference.deviation)
            points = self._coarse(picture, reference) if last_try else guess
            error = np.empty(len(points), np.float32)
            match_patches(
                picture,
                reference.patches,
                reference.gradients,
                reference.inverse,
                c.iterations,
                points,
                error,
            )
            quality = np.float32(1.5) - error / np.float32(0.5 * reference.deviation)
            quality = np.minimum(np.maximum(quality, np.float32(0.0)), np.float32(1.0))
            shift = (points - reference.points).astype(np.float64) / reference.scale
            weights = self._prior * np.isfinite(error[nodes : self._pool])
            if np.add.reduce(weights) < c.least_stable * self._prior_sum:
                residual = float("inf")
                continue
            residual = fit_head(
                reference.points3[nodes : self._pool],
                shift[nodes : self._pool],
                reference.information[nodes : self._pool],
                self._ridge,
                c.outlier,
                FIT_ROUNDS,
                weights,
                self._params,
            )
            moved = max(map(abs, self._params[:4].tolist())) > c.rewarp
            if not moved and min(quality[:nodes].tolist()) > c.sure_quality:
                break
            if not last_try and residual < c.lost_residual:
                # Patches are cut and turned differently by now: crop again where the head has gone.
                self._pose = self._pose @ self._fitted()
        if not residual < c.lost_residual:
            return None
        return _Match(picture, points, shift, residual, quality, light)

    def _coarse(self, picture: U8, reference: _Reference) -> F32:
        """(P, 2) where the reference's points are in the picture, found from far with an image pyramid."""
        window = self._window(reference.scale)
        points, _, _ = cv2.calcOpticalFlowPyrLK(
            reference.picture,
            picture,
            reference.points,
            reference.points.copy(),
            winSize=(window, window),
            maxLevel=self.config.levels,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, self.config.iterations, 0.003),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        return np.asarray(points, np.float32)

    def _fitted(self) -> F64:
        """The similarity part of the fitted head motion, face frame to face frame."""
        tx, ty, scale, roll = self._params[:4].tolist()
        return similarity(1 + scale, roll, tx, ty)

    def _settle(self, positions: F64, reference: _Reference) -> F64:
        """Move the crop along with the head, so that the next frame starts centred; moved positions."""
        fitted = self._fitted()
        self._pose = self._pose @ fitted
        positions = move(inverse(fitted), positions)
        self._flow = face_crop.crop_points(positions, reference.scale) - reference.points
        return positions

    def _head(self, reference: _Reference) -> F32:
        """(6,) `Motion.head`."""
        (a, _, x), (b, _, y), _ = (inverse(self._start_pose) @ self._pose @ self._fitted()).tolist()
        yaw, pitch = (reference.turn + self._params[6:8]).tolist()
        return np.array([x, y, math.atan2(b, a), math.log(math.hypot(a, b)), yaw, pitch], np.float32)

    def _learn_depth(self, time_s: float, reference: _Reference, match: _Match) -> None:
        """Correct the points' depth by what the turning head shows."""
        elapsed, self._last_s = time_s - self._last_s, time_s
        if self.config.depth_s > 0 and elapsed < HOLE_S:
            step = min(1.0, elapsed / self.config.depth_s)
            limit = self.config.depth_limit
            learn_depth(self._depth, reference.points3, match.shift, self._params, step, limit)
            reference.points3[:, 2] = self._depth

    # -- anchors and references --------------------------------------------------------------------

    def _begin(self, frame: Frame, face: Face) -> bool:
        """Start a segment at the landmark model's face; False if that is no face at all."""
        try:
            self._pose = face_crop.eye_line_pose(face.landmarks)
        except ValueError:
            return False
        self._segment += 1
        self._start_pose = self._pose
        self._pose_error = np.zeros(4)
        self._rest = face_crop.in_face_frame(self._pose, face.landmarks)
        self._depth = self._rest[self._point_ids, 2].copy()
        self._eyes = EyeWatch()
        self._own = np.zeros((self._nodes, 2))
        self._refer(frame, self._rest[self._point_ids], np.zeros((self._nodes, 2)), np.zeros(2))
        return True

    def _agrees(self, face: Face) -> bool:
        """Whether the landmark model still sees the face where registration has it."""
        try:
            seen = face_crop.eye_line_pose(face.landmarks)
        except ValueError:
            return False
        error = inverse(self._pose @ self._fitted()) @ seen
        shift = float(np.hypot(error[0, 2], error[1, 2]))
        return shift < self.config.disagree and abs(np.log(face_crop.size(error))) < self.config.disagree

    def _learn(self, face: Face, displacement: F64) -> None:
        """Average the landmark model's rest positions and its pose over anchors."""
        pose = self._pose @ self._fitted()
        rest = face_crop.in_face_frame(pose, face.landmarks)
        rest[self._node_ids, :2] -= displacement
        self._rest += self.config.anchor_gain * (rest - self._rest)
        error = inverse(pose) @ face_crop.eye_line_pose(face.landmarks)
        now = np.array([error[0, 2], error[1, 2], error[0, 0] - 1.0, error[1, 0]])
        self._pose_error += self.config.anchor_gain * (now - self._pose_error)

    def _due(self, time_s: float, reference: _Reference) -> bool:
        """Whether the reference is old, or the head is no longer as it was in it."""
        old = time_s - reference.time_s >= self.config.reference_s
        turned = max(map(abs, self._params[4:].tolist())) > self.config.turn_limit
        resized = abs(math.log(self._crop_scale() / reference.scale)) > self.config.resize_limit
        return old or turned or resized

    def _renew(self, frame: Frame, positions: F64, displacement: F64, reference: _Reference) -> None:
        """Make this picture the reference, pulled towards the landmark model's pose and points."""
        pull = self.config.pull
        tx, ty, scale, roll = pull * self._pose_error
        correction = similarity(1 + scale, roll, tx, ty)
        self._pose = self._pose @ correction
        self._pose_error *= 1 - pull
        back = inverse(correction)
        positions = move(back, positions)
        self._rest[:, :2] = move(back, self._rest[:, :2])
        points3 = self._rest[self._point_ids].copy()
        points3[: self._nodes, :2] += displacement
        points3[self._pool :, :2] += np.repeat(displacement, len(NEIGHBOURS[0]), axis=0)
        points3[:, :2] = positions + pull * (points3[:, :2] - positions)
        points3[:, 2] = self._depth
        self._own = np.zeros((self._nodes, 2))
        self._refer(frame, points3, displacement, reference.turn + self._params[6:8])

    def _refer(self, frame: Frame, points3: F64, base: F64, turn: F64) -> None:
        """Cut the reference crop at the current pose."""
        scale = self._crop_scale()
        picture = face_crop.crop(frame.grey_or_image, self._pose, scale)
        points = face_crop.crop_points(points3[:, :2], scale)
        mean, deviation = face_crop.grey_statistics(picture)
        window = self._window(scale)
        patches = np.empty((len(points), window, window), np.float32)
        gradients = np.empty((len(points), 2, window, window), np.float32)
        normal = np.empty((len(points), 3))
        cut_patches(picture, points, patches, gradients, normal)
        self._reference = _Reference(
            time_s=frame.time_s,
            scale=scale,
            picture=picture,
            points=points,
            points3=np.ascontiguousarray(points3, np.float64),
            information=self._information(picture, points, window),
            patches=patches,
            gradients=gradients,
            inverse=normal,
            base=base,
            turn=turn,
            mean=mean,
            deviation=deviation,
        )
        self._flow = np.zeros_like(points)
        self._params[:] = 0.0

    def _crop_scale(self) -> float:
        """Crop pixels an IOD for the face's present size."""
        c = self.config
        return min(max(face_crop.size(self._pose), c.crop_iod_min_px), c.crop_iod_max_px)

    def _window(self, scale: float) -> int:
        """Side of the matched patch, crop pixels, odd."""
        return max(7, int(self.config.window * scale) | 1)

    @staticmethod
    def _information(picture: U8, points: F32, window: int) -> F64:
        """(P, 3) gxx, gxy, gyy of each patch: how well it constrains motion in each direction.

        The median trace is 1. A strong edge measures better than a faint one, but past some contrast it
        is the head model that errs, not the match: no patch outweighs the others much.
        """
        smooth = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.0), np.uint8)
        information = np.empty((len(points), 3))
        structure(smooth, points, window, information)
        trace = information[:, 0] + information[:, 2]
        typical = max(float(np.median(trace)), 1e-6)
        return information / np.maximum(typical, trace / INFORMATION_LIMIT)[:, None]
