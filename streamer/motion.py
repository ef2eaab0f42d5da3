"""How the nodes move: sub-pixel registration on a face-stabilised crop.

The landmark model says where the nodes are, within its jitter; registration says how they move. Each
frame is warped into a crop in which the face stands still, pyramidal Lucas-Kanade (Bouguet 2001)
matches every point's patch against one reference crop, the rigid motion of the head is fitted to the
stable points and removed, and what is left of a node's shift is its displacement. While the head
turns, the reference's patches are cut as the turned head shows them.

One reference serves for half a second; then the current crop becomes the reference. The noise of that
picture enters once with each sign, so the displacement goes on without a step, and drift is bounded:
at every change of reference the points are pulled towards the landmark model's positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.config import MotionConfig
from streamer.face_crop import F64, EyeWatch, face_points, inverse, move, similarity
from streamer.graph import NODES
from streamer.kernels.patches import match_patches
from streamer.kernels.registration import (
    MOST_TURN,
    TERMS,
    fit_head,
    learn_depth,
    move_head,
    pool_nodes,
    remove_head,
)
from streamer.messages import F32, U8, Face, Frame, Motion
from streamer.reference import Reference

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

FIT_ROUNDS = 6
"""Reweighting rounds of the head fit: four to narrow its idea of an outlier, two to settle."""

MOST_DEPTH = 0.3
"""Largest correction of a point's depth, IOD."""
HOLE_S = 0.2
"""After a longer hole between two frames nothing is learned about depth."""


@dataclass
class _Match:
    """One frame matched: crop, (P, 2) points in crop pixels, shift (P, 2) IOD, residual IOD, (P,) quality,
    (P,) weight: quality, less where the turn leaves the skin's place uncertain, (4,) light as in `Motion`."""

    picture: U8
    points: F32
    shift: F64
    residual: float
    quality: F32
    weight: F32
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
        self._reference: Reference | None = None
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
        match = self._match(frame.grey_or_image, frame.time_s) if self._reference is not None else None
        if match is None or (face is not None and not self._agrees(face)):
            if face is None or not self._begin(frame, face):
                self._unsure = True
                return None
            match = self._match(frame.grey_or_image, frame.time_s)
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
            match.weight,
            self._pool,
            self._params,
            own,
        )
        self._own = own
        displacement = reference.base + own
        self._watch_turn(frame.time_s, reference, match)

        positions = face_points(match.points, reference.scale)
        lost = np.zeros(self._nodes, bool)
        if face is not None:
            lost = self._bring_back(face, positions, displacement)
            quality = np.where(lost, np.float32(0.0), quality)
            self._learn(face, displacement, positions)
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
        positions = self._settle(positions, reference, match.shift)
        if lost.any() or self._due(frame.time_s, reference):
            self._renew(frame, positions, displacement, reference)
        return motion

    # -- one frame ---------------------------------------------------------------------------------

    def _match(self, image: U8, time_s: float) -> _Match | None:
        """Match a frame with the reference and fit the head's motion; None if it does not fit."""
        reference = self._reference
        assert reference is not None
        c, nodes = self.config, self._nodes
        guess = reference.points + self._flow
        turning = math.hypot(*self._turn_rate.tolist()) > c.turn_rate
        if turning and 0.0 < time_s - self._last_s < HOLE_S:
            guess = guess + self._foresee(reference, time_s - self._last_s)
        before = self._params.copy()
        # Without pyramid first: from the last frame's shifts it is but a small step. With it, if that fails.
        for last_try in (False, True):
            picture = face_crop.crop(image, self._pose, reference.scale)
            light = face_crop.quarter_light(picture)
            picture = face_crop.with_statistics(picture, reference.mean, reference.deviation)
            points = reference.search(picture, c.levels, c.iterations) if last_try else guess
            error = np.empty(len(points), np.float32)
            residual = float("inf")
            for again in (False, True):
                if turning and reference.turned(self._params) > c.turn_step:
                    reference.show(self._params)
                elif again:
                    break
                match_patches(
                    picture,
                    reference.patches,
                    reference.gradients,
                    reference.inverse,
                    c.iterations,
                    points,
                    error,
                )
                shift = (points - reference.origin).astype(np.float64) / reference.scale
                weights = self._prior * np.isfinite(error[nodes : self._pool])
                if np.add.reduce(weights) < c.least_stable * self._prior_sum:
                    break
                # Where the skin slopes away, its place is not known well enough to say where a turn takes it.
                turn = math.hypot(*self._params[6:8].tolist())
                trust = 1.0 / (1.0 + (turn * c.unsure_place / c.outlier * reference.steep) ** 2)
                weights *= trust[nodes : self._pool]
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
            if residual == float("inf"):
                self._params[:] = before
                continue
            quality = np.float32(1.5) - error / np.float32(0.5 * reference.deviation)
            quality = np.minimum(np.maximum(quality, np.float32(0.0)), np.float32(1.0))
            moved = max(map(abs, self._params[:4].tolist())) > c.rewarp
            if not moved and min(quality[:nodes].tolist()) > c.sure_quality:
                break
            if not last_try and residual < c.lost_residual:
                # Patches are cut and turned differently by now: crop again where the head has gone.
                self._follow()
            elif not last_try:
                self._params[:] = before
        if not residual < c.lost_residual:
            self._params[:] = before
            return None
        return _Match(picture, points, shift, residual, quality, quality * trust.astype(np.float32), light)

    def _fitted(self) -> F64:
        """The similarity part of the fitted head motion, face frame to face frame."""
        tx, ty, scale, roll = self._params[:4].tolist()
        return similarity(1 + scale, roll, tx, ty)

    def _follow(self) -> F64:
        """Move the crop along with the head; the similarity by which it moved, face frame to face frame.

        What was fitted holds in the moved crop afterwards.
        """
        fitted = self._fitted()
        self._pose = self._pose @ fitted
        tx, ty, scale, roll, stretch, shear = self._params[:6].tolist()
        linear = np.array(
            [[1 + scale + stretch, shear - roll, tx], [shear + roll, 1 + scale - stretch, ty], [0, 0, 1]]
        )
        (a, b, tx), (c, d, ty), _ = (inverse(fitted) @ linear).tolist()
        self._params[:6] = tx, ty, (a + d) / 2 - 1, (c - b) / 2, (a - d) / 2, (b + c) / 2
        return fitted

    def _settle(self, positions: F64, reference: Reference, shift: F64) -> F64:
        """Move the crop along with the head, so that the next frame starts centred; moved positions.

        A point that has strayed further from the head than any skin moves starts where the head has it.
        """
        own = np.empty_like(shift)
        remove_head(reference.points3, shift, self._params, own)
        astray = np.abs(own).max(1) > self.config.astray
        back = inverse(self._follow())
        start = positions - own * astray[:, None] if astray.any() else positions
        self._flow = face_crop.crop_points(move(back, start), reference.scale) - reference.points
        return move(back, positions)

    def _head(self, reference: Reference) -> F32:
        """(6,) `Motion.head`."""
        (a, _, x), (b, _, y), _ = (inverse(self._start_pose) @ self._pose @ self._fitted()).tolist()
        yaw, pitch = (reference.turn + self._params[6:8]).tolist()
        return np.array([x, y, math.atan2(b, a), math.log(math.hypot(a, b)), yaw, pitch], np.float32)

    def _foresee(self, reference: Reference, elapsed: float) -> F32:
        """Turn the fitted motion on at the rate of the last frame; (P, 2) how far that takes the points, crop
        pixels."""
        before, after = np.empty_like(reference.points3), np.empty_like(reference.points3)
        move_head(reference.points3, self._params, before)
        self._params[6:8] = np.clip(self._params[6:8] + elapsed * self._turn_rate, -MOST_TURN, MOST_TURN)
        move_head(reference.points3, self._params, after)
        return ((after - before)[:, :2] * reference.scale).astype(np.float32)

    def _watch_turn(self, time_s: float, reference: Reference, match: _Match) -> None:
        """Note how fast the head turns, and correct the points' depth by what the turn shows."""
        c = self.config
        elapsed, self._last_s = time_s - self._last_s, time_s
        turn = reference.turn + self._params[6:8]
        self._turn_rate = (turn - self._turn) / elapsed if 0.0 < elapsed < HOLE_S else np.zeros(2)
        self._turn = turn
        if elapsed < HOLE_S:
            reference.base *= math.exp(-elapsed / c.forget_s)
        if c.forget_turn > 0 and elapsed < HOLE_S:
            # Little by little, in step with the turn: a step now and then would look like a movement.
            turned = elapsed * max(0.0, math.hypot(*self._turn_rate.tolist()) - c.still_rate)
            reference.base *= math.exp(-turned / c.forget_turn)
        if c.depth_s > 0 and elapsed < HOLE_S:
            step = min(1.0, elapsed / c.depth_s)
            learn_depth(self._depth, reference.points3, match.shift, self._params, step, c.depth_limit)
            # What a turn does not determine (depth against angle) must not wander off.
            self._depth *= math.exp(-elapsed / c.forget_s)
            np.clip(self._depth, -MOST_DEPTH, MOST_DEPTH, out=self._depth)
            reference.points3[:, 2] = reference.mesh[self._point_ids, 2] + self._depth

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
        self._mesh_error = np.zeros((len(face.landmarks), 3))
        self._point_error = np.zeros((len(self._point_ids), 2))
        self._rest = face_crop.in_face_frame(self._pose, face.landmarks)
        self._depth = np.zeros(len(self._point_ids))
        self._eyes = EyeWatch()
        self._turn_rate, self._turn = np.zeros(2), np.zeros(2)
        self._own = np.zeros((self._nodes, 2))
        self._refer(
            frame,
            self._rest[self._point_ids].copy(),
            self._rest.copy(),
            np.zeros((self._nodes, 2)),
            np.zeros(2),
        )
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

    def _bring_back(self, face: Face, positions: F64, displacement: F64) -> NDArray[np.bool_]:
        """(14,) the nodes whose patch has wandered off, as the mouth's do when it opens wide: it is far from
        where the landmark model sees the node. Patch and displacement begin anew there, in place."""
        seen = face_crop.in_face_frame(self._pose, face.landmarks)[self._point_ids, :2]
        away = seen[: self._nodes] - positions[: self._nodes]
        lost = np.hypot(away[:, 0], away[:, 1]) > self.config.lost_node
        if lost.any():
            own = np.concatenate([lost, np.zeros(self._pool - self._nodes, bool)])
            points = np.concatenate([own, np.repeat(lost, (len(positions) - self._pool) // self._nodes)])
            positions[points] = seen[points]
            self._point_error[points] = 0.0
            rest = face_crop.in_face_frame(self._pose @ self._fitted(), face.landmarks)
            displacement[lost] = (rest - self._rest)[self._node_ids, :2][lost]
        return lost

    def _learn(self, face: Face, displacement: F64, positions: F64) -> None:
        """Average over anchors where the landmark model sees the face and its points."""
        reference, gain = self._reference, self.config.anchor_gain
        assert reference is not None
        seen = face_crop.in_face_frame(self._pose, face.landmarks)
        expected = np.empty_like(reference.mesh)
        move_head(reference.mesh, self._params, expected)
        self._mesh_error += gain * (seen - expected - self._mesh_error)
        self._point_error += gain * (seen[self._point_ids, :2] - positions - self._point_error)
        pose = self._pose @ self._fitted()
        rest = face_crop.in_face_frame(pose, face.landmarks)
        rest[self._node_ids, :2] -= displacement
        self._rest += gain * (rest - self._rest)
        error = inverse(pose) @ face_crop.eye_line_pose(face.landmarks)
        now = np.array([error[0, 2], error[1, 2], error[0, 0] - 1.0, error[1, 0]])
        self._pose_error += gain * (now - self._pose_error)

    def _due(self, time_s: float, reference: Reference) -> bool:
        """Whether the reference is old, or the head is no longer as it was in it."""
        old = time_s - reference.time_s >= self.config.reference_s
        turned = max(map(abs, self._params[4:].tolist())) > self.config.turn_limit
        resized = abs(math.log(self._crop_scale() / reference.scale)) > self.config.resize_limit
        return old or turned or resized

    def _renew(self, frame: Frame, positions: F64, displacement: F64, reference: Reference) -> None:
        """Make this picture the reference, pulled towards the landmark model's pose and points."""
        pull = self.config.pull
        tx, ty, scale, roll = pull * self._pose_error
        correction = similarity(1 + scale, roll, tx, ty)
        self._pose = self._pose @ correction
        self._pose_error *= 1 - pull
        back = inverse(correction)
        positions = move(back, positions)
        self._rest[:, :2] = move(back, self._rest[:, :2])
        mesh = np.empty_like(reference.mesh)
        move_head(reference.mesh, self._params, mesh)
        mesh[:, :2] = move(back, mesh[:, :2])
        mesh += pull * self._mesh_error
        self._mesh_error *= 1 - pull
        points3 = mesh[self._point_ids]
        points3[:, :2] = positions + pull * self._point_error
        self._point_error *= 1 - pull
        turn = self._params[6:8]
        self._own = np.zeros((self._nodes, 2))
        self._refer(frame, points3, mesh, displacement, reference.turn + turn)

    def _refer(self, frame: Frame, points3: F64, mesh: F64, base: F64, turn: F64) -> None:
        """Cut the reference crop at the current pose."""
        scale = self._crop_scale()
        picture = face_crop.crop(frame.grey_or_image, self._pose, scale)
        points3[:, 2] = mesh[self._point_ids, 2] + self._depth
        window = self._window(scale)
        self._reference = Reference(frame.time_s, picture, scale, points3, mesh, window, base, turn)
        self._flow = np.zeros_like(self._reference.points)
        self._params[:] = 0.0

    def _crop_scale(self) -> float:
        """Crop pixels an IOD for the face's present size."""
        c = self.config
        return min(max(face_crop.size(self._pose), c.crop_iod_min_px), c.crop_iod_max_px)

    def _window(self, scale: float) -> int:
        """Side of the matched patch, crop pixels, odd."""
        return max(7, int(self.config.window * scale) | 1)
