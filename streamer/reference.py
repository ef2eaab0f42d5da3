"""The reference: the picture of the face that the following frames are matched against, and its patches,
cut as they look straight on or, once the head turns, as the turned head shows them."""

from __future__ import annotations

import cv2
import numpy as np

from streamer import face_crop
from streamer.face_crop import F64
from streamer.kernels.patches import cut_patches, structure
from streamer.kernels.registration import TERMS
from streamer.kernels.relief import show_turned, splat_depth, steepness, turn_back, turn_points
from streamer.messages import F32, U8

INFORMATION_LIMIT = 2.0
"""Most that one patch's image information may count, in medians of the face's patches."""

GRID = 0.06
"""Step of the grid on which the relief of the face is kept, IOD."""

REACH = (0.14, 0.8)
"""How far a point of the mesh tells the depth of the skin: usually, and where no other does; IOD."""


class Reference:
    """One reference picture.

    Args:
        time_s: of the picture.
        picture: (H, W) uint8, the crop. scale: its pixels an IOD.
        points3: (P, 3) the points to match, face frame, IOD; depth included. mesh: (M, 3) the landmark
            model's points likewise.
        window: side of a patch, pixels, odd.
        base: (14, 2) displacement of the nodes in this picture since the segment began, IOD. turn: (2,)
            likewise for the head's out-of-plane terms.

    Attributes, beside these:
        points: (P, 2) float32 places of the points in the picture, pixels.
        origin: (P, 2) float32 places in the picture that the patches show: `points` up to a hundredth.
        information: (P, 3) gxx, gxy, gyy of each patch. steep: (P,) slope of the skin.
        patches, gradients, inverse: of `cut_patches`. shown: (8,) head motion with which they were cut.
        mean, deviation: grey levels of the picture.
    """

    def __init__(
        self,
        time_s: float,
        picture: U8,
        scale: float,
        points3: F64,
        mesh: F64,
        window: int,
        base: F64,
        turn: F64,
    ) -> None:
        self.time_s, self.picture, self.scale = time_s, picture, scale
        self.points3, self.mesh = np.ascontiguousarray(points3, np.float64), mesh
        self.base, self.turn = base, turn
        self.mean, self.deviation = face_crop.grey_statistics(picture)
        self.points = self.origin = face_crop.crop_points(points3[:, :2], scale)
        count = len(points3)
        self.patches = np.empty((count, window, window), np.float32)
        self.gradients = np.empty((count, 2, window, window), np.float32)
        self.inverse = np.empty((count, 3))
        cut_patches(picture, self.points, self.patches, self.gradients, self.inverse)
        self.information = _information(picture, self.points, window)
        self.shown = np.zeros(TERMS)
        self._step_px = GRID * scale
        self._relief = np.empty([int(side / self._step_px) + 2 for side in picture.shape])
        self._place = face_crop.CROP_LEFT, face_crop.CROP_TOP, GRID
        splat_depth(mesh, *self._place, *REACH, self._relief)
        self.steep = np.empty(count)
        steepness(self.points3, self._relief, *self._place, self.steep)

    def turned(self, params: F64) -> float:
        """How far a head motion (8,) turns beyond the one with which the patches were cut."""
        return float(np.abs(params[4:] - self.shown[4:]).max())

    def show(self, params: F64) -> None:
        """Cut the patches anew as the head shows them after a motion (8,).

        Every place of the skin moves by its own depth, so that patches foreshorten, and bend on the nose.
        """
        back = np.empty((2, *self._relief.shape))
        turn_back(self._relief, *self._place, params, back)
        picture = np.empty_like(self.picture)
        show_turned(self.picture, back, self._step_px, picture)
        seen, origin = np.empty((2, len(self.points), 2))
        turn_points(self.points3, self._relief, *self._place, params, back, seen, origin)
        cut_patches(
            picture,
            (seen * self._step_px).astype(np.float32),
            self.patches,
            self.gradients,
            self.inverse,
        )
        self.origin = (origin * self._step_px).astype(np.float32)
        self.shown = params.copy()

    def search(self, picture: U8, levels: int, iterations: int) -> F32:
        """(P, 2) where the points are in another picture, pixels, found from far with an image pyramid."""
        window = self.patches.shape[1]
        points, _, _ = cv2.calcOpticalFlowPyrLK(
            self.picture,
            picture,
            self.points,
            self.points.copy(),
            winSize=(window, window),
            maxLevel=levels,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 0.003),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        return np.asarray(points, np.float32)


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
