"""What a person sees: nodes, edges and magnified motion on the face, and a panel below the picture."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from streamer.graph import EDGES, NODES
from streamer.messages import U8, Event, Face, Frame, MacroExpression, MicroExpression, Motion
from streamer.sinks import ink, panel
from streamer.sinks.history import MotionHistory
from streamer.sinks.ink import Ink

SMALLEST_WIDTH = 480
"""Narrower frames are enlarged by a whole factor until lines and text can be read."""

GOOD_QUALITY = 0.3
"""Nodes registered worse than that are drawn hollow and without an arrow."""

_NODE_COLOURS = [
    next(colour for _, nodes, colour in panel.SERIES if node in nodes) for node in range(len(NODES))
]


class Overlay:
    """Turns frames into annotated pictures.

    `on_event` and `observe` keep what the picture tells of the last seconds; both are cheap and must see
    everything. `draw` may be called for as few of the frames as are shown. Everything kept is bounded.

    magnify: factor by which the arrows show the motion of the nodes.
    """

    def __init__(self, magnify: float = 10.0) -> None:
        self._magnify = magnify
        self._history = MotionHistory(panel.CHART_S, len(NODES))
        self._shown: deque[panel.Shown] = deque(maxlen=32)
        self._times: deque[float] = deque(maxlen=512)
        self._micro = self._macro = 0
        self._now_s = 0.0
        self._frame_shape: tuple[int, ...] | None = None

    def on_event(self, event: Event) -> None:
        """Show an expression from now on; other events change nothing in the picture."""
        if isinstance(event, (MicroExpression, MacroExpression)):
            self._shown.append(panel.Shown(event, self._now_s))
            self._micro += isinstance(event, MicroExpression)
            self._macro += isinstance(event, MacroExpression)

    def observe(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Take note of a frame."""
        self._now_s = frame.time_s
        self._times.append(frame.time_s)
        while self._times[0] < frame.time_s - 1:
            self._times.popleft()
        if motion is not None:
            self._history.add(motion)
        while self._shown and max(self._shown[0].since_s, self._shown[0].event.offset.time_s) < (
            frame.time_s - panel.CHART_S
        ):
            self._shown.popleft()

    def draw(self, frame: Frame, face: Face | None, motion: Motion | None) -> U8:
        """The annotated picture, (height, width, 3) uint8 BGR: the frame, enlarged if small, and the panel.

        The array is reused: it is valid until the next call.
        """
        if frame.image.shape != self._frame_shape:
            self._lay_out(frame.image.shape)
        self._copy_frame(frame.image)
        if motion is not None:
            self._draw_face(motion)
        elif face is not None:
            points = face.landmarks[[node.mediapipe for node in NODES], :2]
            self._draw_graph(self._on_canvas(points), np.ones(len(NODES), bool))
        else:
            self._draw_no_face()
        totals = (self._micro, self._macro)
        self._panel.draw(self._status(frame, face, motion), self._history, list(self._shown), totals)
        return self._canvas

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        self._frame_shape = shape
        height, width = shape[:2]
        self._zoom = -(-SMALLEST_WIDTH // width) if width < SMALLEST_WIDTH else 1
        height, width = height * self._zoom, width * self._zoom
        scale = (width / 640) ** 0.85  # large pictures are seen large: text need not grow as much
        panel_height = round(panel.HEIGHT * scale)
        self._canvas = np.zeros((height + panel_height, width, 3), np.uint8)
        self._picture = self._canvas[:height]
        self._ink = Ink(self._picture, scale)
        self._panel = panel.Panel(Ink(self._canvas[height:], scale), self._magnify)

    def _copy_frame(self, image: U8) -> None:
        if image.ndim == 2:
            image = image[:, :, None]
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        if self._zoom == 1:
            self._picture[:] = image
        else:
            size = (self._picture.shape[1], self._picture.shape[0])
            cv2.resize(image, size, dst=self._picture, interpolation=cv2.INTER_CUBIC)

    def _on_canvas(self, points: np.ndarray) -> np.ndarray:
        """Image frame -> canvas; the origin of both is the centre of the top-left pixel."""
        return (points + 0.5) * self._zoom - 0.5

    def _draw_face(self, motion: Motion) -> None:
        points = self._on_canvas(motion.points_px)
        good = motion.quality >= GOOD_QUALITY
        self._draw_graph(points, good)
        moved = self._history.moved(motion) @ _face_to_image(motion).T * self._zoom
        for point, step, well in zip(points, moved, good, strict=True):
            if well:
                start = point - step
                self._arrow(start, start + self._magnify * step)

    def _draw_graph(self, points: np.ndarray, good: np.ndarray) -> None:
        if not np.isfinite(points).all():
            return
        pen = self._ink
        top, left = np.maximum(np.floor(points.min(0)[::-1]).astype(int) - 4, 0)
        bottom, right = np.maximum(np.ceil(points.max(0)[::-1]).astype(int) + 4, 0)
        region = self._picture[top:bottom, left:right]
        skin = region.copy()
        for colour, width in ((ink.SHADOW, 2.4), (ink.TEXT, 1.0)):
            for i, j in EDGES:
                pen.lines(points[[i, j]], colour, width)
        if region.size:
            cv2.addWeighted(region, 0.6, skin, 0.4, 0, dst=region)  # the face stays visible under the graph
        for (x, y), colour, well in zip(points, _NODE_COLOURS, good, strict=True):
            pen.dot(x, y, 3.6, ink.SHADOW)
            pen.dot(x, y, 2.6, colour, None if well else 1.0)

    def _arrow(self, start: np.ndarray, tip: np.ndarray) -> None:
        way = tip - start
        length = float(np.hypot(*way))
        unit = self._ink.scale
        if not length >= 4 * unit:  # shorter says nothing; also refuses NaN
            return
        along = way / length
        across = np.array([-along[1], along[0]])
        head = min(7 * unit, 0.5 * length)
        neck = tip - head * along
        triangle = np.array([tip, neck + 0.55 * head * across, neck - 0.55 * head * across])
        self._ink.lines(np.array([start, neck]), ink.SHADOW, 4)
        self._ink.lines(triangle, ink.SHADOW, 2.5, closed=True)
        self._ink.lines(np.array([start, neck]), ink.WARNING, 1.8)
        self._ink.fill(triangle, ink.WARNING)

    def _draw_no_face(self) -> None:
        pen, unit = self._ink, self._ink.scale
        middle = self._picture.shape[1] / 2
        half = pen.text_width("No face", 16, 600) / 2 + 14 * unit
        pen.tint(middle - half, 12 * unit, middle + half, 42 * unit, ink.GROUND, 0.8)
        pen.text(middle, 33 * unit, "No face", 16, ink.WARNING, 600, align="centre")

    def _status(self, frame: Frame, face: Face | None, motion: Motion | None) -> panel.Status:
        text = "No face"
        if motion is not None:
            text = f"Face, quality {float(np.mean(motion.quality)):.0%}"
        elif face is not None:
            text = "Face, motion not measured"
        if face is not None and face.others:
            text += f", {face.others} more not followed"
        span = self._times[-1] - self._times[0] if self._times else 0.0
        fps = (len(self._times) - 1) / span if span > 0 else None
        return panel.Status(text, motion is not None, fps, frame.index, frame.time_s)


def _face_to_image(motion: Motion) -> np.ndarray:
    """(2, 2): turns a step in the face frame (IOD) into pixels of the image.

    The eye line's direction is the rotation that lays the nodes in the face frame onto their places in
    the image (least squares).
    """
    a = motion.nodes - motion.nodes.mean(0)
    b = motion.points_px - motion.points_px.mean(0)
    angle = np.arctan2((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum(), (a * b).sum())
    return motion.iod_px * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
