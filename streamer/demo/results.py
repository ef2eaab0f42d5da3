"""What the page is told: events, motion and pictures as JSON-ready builtins. One form for live and clips."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from streamer import events
from streamer.demo.thumbnails import Thumbnails, face_pose
from streamer.engine import Engine
from streamer.graph import EDGES, NODES
from streamer.messages import Event, MacroExpression, MicroExpression, Motion, StreamEnded
from streamer.pipeline import Recogniser
from streamer.sinks.history import MotionHistory
from streamer.sinks.panel import CHART_S, SERIES

REGION_NODES = [nodes for _, nodes, _ in SERIES]


def about(engine: Engine) -> dict[str, Any]:
    """What does not change during a stream: nodes, edges, regions and classes."""
    return {
        "nodes": [node.name for node in NODES],
        "edges": [list(edge) for edge in EDGES],
        "regions": [{"name": name, "nodes": list(nodes)} for name, nodes, _ in SERIES],
        "classes": dict(engine.manifest.class_names),
        "engine": engine.manifest.name,
    }


class MotionForm:
    """Turns the motion of each frame into what the page draws."""

    def __init__(self) -> None:
        self._history = MotionHistory(CHART_S, len(NODES))

    def of(self, motion: Motion) -> dict[str, Any]:
        """points: 14 times x, y, pixels of the image. moved: 14 times x, y, pixels: how far each node is from
        where it rested in the last seconds. regions: the root mean square of that over each region's nodes,
        % IOD. quality: mean match quality, 0..1."""
        self._history.add(motion)
        moved = self._history.moved(motion)
        squares = (moved**2).sum(1) * motion.quality
        weights = [max(float(motion.quality[list(nodes)].sum()), 1e-6) for nodes in REGION_NODES]
        regions = [
            100 * float(np.sqrt(squares[list(nodes)].sum() / weight))
            for nodes, weight in zip(REGION_NODES, weights, strict=True)
        ]
        in_image = moved @ face_pose(motion)[:, :2].T
        return {
            "points": _rounded(motion.points_px, 1),
            "moved": _rounded(in_image, 2),
            "regions": [round(value, 3) for value in regions],
            "quality": round(float(motion.quality.mean()), 3),
        }


def _rounded(points: np.ndarray, decimals: int) -> list[float]:
    return [round(value, decimals) for value in points.ravel().tolist()]


def event_form(event: Event, faces: Thumbnails) -> dict[str, Any]:
    """The event as its JSON line has it, and for an expression its faces at onset and apex as data URLs."""
    form = events.to_dict(event)
    if isinstance(event, (MicroExpression, MacroExpression)):
        form["faces"] = {moment: as_data_url(faces.of(form[moment]["frame"])) for moment in ("onset", "apex")}
    return form


def as_data_url(jpeg: bytes | None) -> str | None:
    """A JPEG as a URL that holds it."""
    return None if jpeg is None else "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def stream_ended(recogniser: Recogniser, reason: str, drops: dict[str, int]) -> StreamEnded:
    """The last event of a stream."""
    return StreamEnded(
        reason=reason,
        frames=recogniser.frames,
        duration_s=recogniser.duration_s,
        micro_expressions=recogniser.micro_expressions,
        macro_expressions=recogniser.macro_expressions,
        drops=drops,
        rejected=recogniser.rejected,
        stages_ms=recogniser.clock.percentiles(),
    )
