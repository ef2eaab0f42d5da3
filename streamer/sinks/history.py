"""The last seconds of motion, bounded, as the strip chart and the arrows need them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamer.messages import F32, Motion

CAPACITY = 1024
"""Frames kept: four seconds at 256 fps; at higher rates the chart begins later."""


class MotionHistory:
    """Displacements of the last `window_s` seconds.

    A displacement counts from the start of its tracking segment, so that a change of posture stays in it.
    What is shown is therefore the displacement less its median over the window and the segment: the
    node's place of rest, as far as the eye is concerned.
    """

    def __init__(self, window_s: float, nodes: int = 14) -> None:
        self.window_s = window_s
        self._times = np.zeros(CAPACITY)
        self._segments = np.zeros(CAPACITY, np.int64)
        self._displacements = np.zeros((CAPACITY, nodes, 2), np.float32)
        self._weights = np.zeros((CAPACITY, nodes), np.float32)
        self._count = 0

    def add(self, motion: Motion) -> None:
        """Keep the motion of the next frame."""
        i = self._count % CAPACITY
        self._times[i] = motion.time_s
        self._segments[i] = motion.segment
        self._displacements[i] = motion.displacement
        self._weights[i] = motion.quality
        self._count += 1

    def stretches(
        self, now_s: float, regions: Sequence[tuple[int, ...]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """What to plot: one (times (n,) s, percent (n, len(regions)) % IOD) for each segment in the window.

        A region's value is the root mean square distance of its nodes from their places of rest, each
        node weighted by its registration quality.
        """
        rows = self._recent(now_s)
        segments = self._segments[rows]
        result = []
        for segment in np.unique(segments):
            part = rows[segments == segment]
            moved = self._displacements[part] - np.median(self._displacements[part], axis=0)
            squares = (moved**2).sum(-1) * self._weights[part]
            columns = []
            for region in regions:
                weight = self._weights[part][:, region].sum(-1)
                columns.append(squares[:, region].sum(-1) / np.maximum(weight, 1e-6))
            result.append((self._times[part], 100 * np.sqrt(np.stack(columns, -1))))
        return result

    def moved(self, motion: Motion) -> F32:
        """(14, 2) float32, face frame, IOD: how far each node is from its place of rest in this frame."""
        rows = self._recent(motion.time_s)
        rows = rows[self._segments[rows] == motion.segment]
        if rows.size == 0:
            return np.zeros_like(motion.displacement)
        return motion.displacement - np.median(self._displacements[rows], axis=0)

    def _recent(self, now_s: float) -> np.ndarray:
        """Indices of the rows within the window, oldest first."""
        rows = np.arange(max(0, self._count - CAPACITY), self._count) % CAPACITY
        return rows[self._times[rows] > now_s - self.window_s]
