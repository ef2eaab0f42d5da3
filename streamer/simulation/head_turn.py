"""How well motion is measured while the head turns: a head in three dimensions, turning under a perspective
camera, with exact truth, against what `MotionMeter` says.

The head is a textured triangle mesh: the landmarks of a portrait with the landmark model's depth, times a
factor, since the true depth of a person is not the model's. Its texture is the portrait. With `shading` the
light comes from the side, and the skin's grey changes as it turns, as it does in a room with a window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.config import Config
from streamer.engine import load_engine
from streamer.graph import NODES
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8, Frame, MicroExpression, Motion
from streamer.pipeline import Recogniser
from streamer.simulation import mesh
from streamer.simulation.render import Injection, Portrait
from streamer.tracking import MediaPipeTracker

F64 = NDArray[np.float64]

REGIONS = {"brows": range(6), "nose": range(6, 10), "mouth": range(10, 14)}
"""Nodes by part of the face."""

ANGLES = (0.0, 7.0, 14.0, 20.5)
"""Edges of the bins by how far the head is turned, degrees."""

PIVOT = (0.0, 0.9, 1.3)
"""The head turns about this point of the face frame, IOD: the top of the neck, behind the mouth."""

RINGS = ((1.2, 0.35), (1.55, 0.9), (2.2, 1.2))
"""Around the outline, rings of points that carry the hair and the neck: how far out, in distances from the
face's middle, and how much farther from the camera, IOD."""

SMOOTH = 0.06
"""The depth is smoothed with a Gaussian of this standard deviation, IOD: at the lips and lids the landmark
model's points lie in folds."""

HIDDEN = 0.05
"""A node is hidden if something lies so far before it, IOD."""

BRIEF_S = 0.25
"""The brief part of an error: what is left after the mean of the errors so long before and after."""

UNITS = ({"AU1": 1.0, "AU2": 1.0}, {"AU12": 1.0}, {"AU4": 1.0}, {"AU15": 1.0}, {"AU9": 1.0}, {"AU25": 1.0})
FIRST_S, EVERY_S, LENGTH_S = 1.0, 1.1, 0.4


def expressions(duration_s: float, peak: float = 0.02) -> tuple[Injection, ...]:
    """Brief expressions of one kind after the other, `peak` IOD, all through a clip."""
    starts = np.arange(FIRST_S, duration_s - LENGTH_S, EVERY_S)
    return tuple(
        Injection(UNITS[k % len(UNITS)], float(t), float(t) + 0.5 * LENGTH_S, float(t) + LENGTH_S, peak)
        for k, t in enumerate(starts)
    )


@dataclass(frozen=True)
class HeadTurn:
    """What to render. The head turns as a sine, from straight ahead.

    axis: yaw to the person's left, pitch down, roll to the right shoulder, or "mixed": yaw, with half as much
    pitch and roll at slower rhythms. degrees: amplitude. hz: turns to and fro a second. distance: camera to
    eyes, IOD. depth: the head's
    depth over the landmark model's. shading: share of the light that comes from the side (left of the
    picture), 0..1. noise: standard deviation of the sensor noise, grey levels.
    """

    axis: Literal["yaw", "pitch", "roll", "mixed"] = "yaw"
    degrees: float = 20.0
    hz: float = 0.4
    duration_s: float = 8.0
    fps: float = 30.0
    width: int = 640
    height: int = 480
    iod_px: float = 110.0
    distance: float = 10.0
    depth: float = 1.0
    shading: float = 0.0
    noise: float = 2.0
    injections: tuple[Injection, ...] = ()
    seed: int = 0


def _turned(axis: str, degrees: float) -> F64:
    """(3, 3) rotation about an axis of the face frame."""
    cos, sin = (f(math.radians(degrees)) for f in (math.cos, math.sin))
    if axis == "yaw":
        return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    if axis == "pitch":
        return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


class TurningHead:
    """Renders `turn` with the face of `portrait`; `frames()` gives (time_s, image)."""

    def __init__(self, portrait: Portrait, turn: HeadTurn) -> None:
        self.portrait, self.turn = portrait, turn
        self.times = np.arange(round(turn.duration_s * turn.fps)) / turn.fps
        rng = np.random.default_rng(turn.seed)
        self._fields = [i.field(portrait.nodes, rng) for i in turn.injections]
        self._noise = np.random.default_rng((turn.seed, 1))
        rest = face_crop.in_face_frame(portrait.pose, portrait.landmarks)
        rest[:, 2] *= turn.depth
        rest = rest[: mesh.SKIN_POINTS]
        apart2 = ((rest[:, None, :2] - rest[:, :2]) ** 2).sum(2)
        weights = np.exp(-apart2 / (2 * SMOOTH**2))
        rest[:, 2] = weights @ rest[:, 2] / weights.sum(1)
        outline = rest[list(mesh.oval())]
        middle = outline.mean(0)
        vertices = [rest]
        for far, behind in RINGS:
            ring = outline + np.array([0, 0, behind])
            ring[:, :2] = middle[:2] + far * (outline[:, :2] - middle[:2])
            vertices.append(ring)
        self._vertices = np.concatenate(vertices)
        self._triangles = mesh.delaunay(1000 * self._vertices[:, :2])
        # Nothing is folded while the head looks as in the portrait; turned, all is seen from both sides.
        self._sides = np.zeros(len(self._triangles))
        self._texture = face_crop.move(portrait.pose, self._vertices[:, :2])
        self._nodes = [node.mediapipe for node in NODES]
        self._normals = self._vertex_normals()

    def angle(self, t: float) -> float:
        """The turn at time t about the axis (of a mixed turn: its yaw), degrees."""
        return self.turn.degrees * math.sin(2 * math.pi * self.turn.hz * t)

    def _rotation(self, t: float) -> F64:
        if self.turn.axis != "mixed":
            return _turned(self.turn.axis, self.angle(t))
        pitch, roll = 0.5 * self.angle(0.7 * t), 0.5 * self.angle(0.45 * t)
        return _turned("yaw", self.angle(t)) @ _turned("pitch", pitch) @ _turned("roll", roll)

    def _skin(self, t: float) -> F64:
        """(V, 3) the mesh at time t, before the head turns, face frame, IOD."""
        vertices = self._vertices.copy()
        for injection, field in zip(self.turn.injections, self._fields, strict=True):
            if level := injection.level(t):
                vertices[:, :2] += field.scaled(level).at(self._vertices[:, :2])
        return vertices

    def _project(self, vertices: F64, t: float) -> tuple[F64, F64]:
        """(V, 2) pixels and (V,) distance from the camera, IOD."""
        c = self.turn
        turned = (vertices - PIVOT) @ self._rotation(t).T + PIVOT
        z = turned[:, 2] + c.distance
        centre = np.array([0.5 * c.width, 0.42 * c.height])
        return centre + c.iod_px * c.distance * turned[:, :2] / z[:, None], z

    def displacement(self, t: float) -> F64:
        """(14, 2) displacement of the nodes as the turned face shows it: in the picture, in units of the
        inter-ocular distance that a face looking into the camera would have there, IOD."""
        moved, _ = self._project(self._skin(t)[self._nodes], t)
        neutral, _ = self._project(self._vertices[self._nodes], t)
        _, eyes = self._project(np.zeros((1, 3)), t)
        return (moved - neutral) / (self.turn.iod_px * self.turn.distance / eyes[0])

    def visible(self, t: float) -> NDArray[np.bool_]:
        """(14,) which nodes the camera sees: no other part of the head lies before them."""
        c = self.turn
        pixels, depth = self._project(self._skin(t), t)
        near = np.full((c.height, c.width), np.inf, np.float32)
        nothing = np.zeros((c.height, c.width, 0), np.float32)
        values = np.zeros((len(pixels), 0))
        mesh.rasterise(self._triangles, self._sides, pixels, depth, values, 0, 0, nothing, near)
        column, row = np.rint(pixels[self._nodes]).astype(int).T
        inside = (column >= 0) & (column < c.width) & (row >= 0) & (row < c.height)
        before = near[np.clip(row, 0, c.height - 1), np.clip(column, 0, c.width - 1)]
        return inside & (depth[self._nodes] <= before + HIDDEN)

    def nodes_px(self, t: float) -> F64:
        """(14, 2) true node positions in the picture, pixels."""
        return self._project(self._skin(t)[self._nodes], t)[0]

    def _vertex_normals(self) -> F64:
        """(V, 3) unit normals, towards the camera."""
        a, b, c = (self._vertices[self._triangles[:, k]] for k in range(3))
        faces = np.cross(b - a, c - a)
        faces *= np.where(faces[:, 2:] > 0, -1.0, 1.0)
        normals = np.zeros_like(self._vertices)
        for k in range(3):
            np.add.at(normals, self._triangles[:, k], faces)
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)

    def frame(self, t: float) -> U8:
        """The picture at time t, (height, width, 3) uint8 BGR."""
        c = self.turn
        pixels, depth = self._project(self._skin(t), t)
        side = np.array([-1.0, 0.0, 0.0])
        gain = 1 + c.shading * ((self._normals @ self._rotation(t).T) @ side - self._normals @ side)
        values = np.column_stack([self._texture, gain])
        place = np.full((c.height, c.width, 3), np.nan, np.float32)
        near = np.full((c.height, c.width), np.inf, np.float32)
        mesh.rasterise(self._triangles, self._sides, pixels, depth, values, 0, 0, place, near)
        image = np.full((c.height, c.width, 3), 90, np.uint8)
        mesh.sample(self.portrait.image, np.ascontiguousarray(place[..., :2]), 0, 0, mesh.KERNEL, image)
        if not (c.shading or c.noise):
            return image
        light = image * np.nan_to_num(place[..., 2:], nan=1.0)
        light += c.noise * self._noise.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)

    def frames(self) -> Iterator[tuple[float, U8]]:
        """All frames in order: (time_s, image)."""
        for t in self.times:
            yield float(t), self.frame(float(t))


@dataclass(frozen=True)
class Errors:
    """Lengths of errors, over frames and nodes: median and 95th percentile, percent."""

    median: float
    p95: float

    @classmethod
    def of(cls, lengths: NDArray[np.floating]) -> Errors:
        """Of any number of lengths, as shares; NaN if there are none."""
        if not lengths.size:
            return cls(math.nan, math.nan)
        return cls(100 * float(np.median(lengths)), 100 * float(np.percentile(lengths, 95)))


@dataclass(frozen=True)
class HeadTurnError:
    """What the measuring of a turning head is worth. Nodes that the head's turn hides are not counted.

    measured: share of the frames that gave a motion. segments: stretches of tracking, 1 at best.
    events: micro-expressions reported, whether there were any or not.
    iod: distance of the measured displacement from the truth, since the segment began, % of the IOD.
    brief: the part of it that comes and goes within half a second, which a spotter can mistake, % of the IOD.
    region, angle: `brief` by part of the face and by how far the head is turned.
    peak: distance of the measured expression from the true one, from its onset on, over all its frames and
        the nodes that move at least a third of the peak, % of the peak. region_peak, angle_peak: likewise.
    """

    measured: float
    segments: int
    events: int
    iod: Errors
    brief: Errors
    region: dict[str, Errors]
    angle: dict[str, Errors]
    peak: Errors
    region_peak: dict[str, Errors]
    angle_peak: dict[str, Errors]


def measure_head_turn(
    portrait: Portrait, turn: HeadTurn, config: Config | None = None, landmarker: Path | None = None
) -> HeadTurnError:
    """Render a turning head, run the recogniser over it and compare its motion with the truth.

    Raises:
        EngineError: the engine or the landmark model cannot be had.
    """
    config = config or Config()
    head = TurningHead(portrait, turn)
    engine = load_engine(config.engine, config.device, node_set="gm14")
    tracker = MediaPipeTracker(find_landmarker(landmarker), config.tracking)
    motions: list[Motion] = []
    events = 0
    try:
        recogniser = Recogniser(config, tracker, engine)
        for index, (t, image) in enumerate(head.frames()):
            found, _, motion = recogniser.process(Frame(index, t, t, image))
            events += sum(isinstance(event, MicroExpression) for event in found)
            if motion is not None:
                motions.append(motion)
    finally:
        tracker.close()
        engine.close()
    return compare(head, motions, events)


def compare(head: TurningHead, motions: list[Motion], events: int = 0) -> HeadTurnError:
    """The measured motions of a clip against its truth."""
    times = np.array([motion.time_s for motion in motions])
    segments = np.array([motion.segment for motion in motions], int)
    measured = np.array([motion.displacement for motion in motions], np.float64).reshape(-1, len(NODES), 2)
    truth = np.array([head.displacement(t) for t in times]).reshape(measured.shape)
    turned = np.abs([head.angle(t) for t in times])
    error = np.zeros_like(measured)
    brief = np.full(measured.shape[:2], np.nan)
    lag = round(BRIEF_S * head.turn.fps)
    for segment in np.unique(segments):
        (where,) = np.nonzero(segments == segment)
        error[where] = measured[where] - truth[where] + truth[where[0]]
        e = error[where]
        if len(e) > 2 * lag:
            bump = e[lag:-lag] - (e[: -2 * lag] + e[2 * lag :]) / 2
            brief[where[lag:-lag]] = np.linalg.norm(bump, axis=2)
    visible = np.array([head.visible(t) for t in times]).reshape(measured.shape[:2])
    brief[~visible] = np.nan
    shares = np.full(measured.shape[:2], np.nan)
    for injection in head.turn.injections:
        (during,) = np.nonzero((times >= injection.onset_s - 1e-9) & (times <= injection.offset_s + 1e-9))
        if not len(during) or len(np.unique(segments[during])) > 1:
            continue
        apex = np.linalg.norm(truth[during], axis=2).max(0)
        moved = apex >= injection.peak / 3
        off = np.linalg.norm(error[during] - error[during[0]], axis=2) / injection.peak
        shares[np.ix_(during, moved)] = np.where(visible[during], off, np.nan)[:, moved]
    bins = {
        f"{low:.0f}-{high:.0f}": (turned >= low) & (turned < high) for low, high in itertools.pairwise(ANGLES)
    }

    def of(values: NDArray[np.floating]) -> Errors:
        return Errors.of(values[np.isfinite(values)])

    return HeadTurnError(
        measured=len(motions) / len(head.times),
        segments=len(np.unique(segments)),
        events=events,
        iod=of(np.linalg.norm(error, axis=2)[visible]),
        brief=of(brief),
        region={name: of(brief[:, list(nodes)]) for name, nodes in REGIONS.items()},
        angle={name: of(brief[rows]) for name, rows in bins.items()},
        peak=of(shares),
        region_peak={name: of(shares[:, list(nodes)]) for name, nodes in REGIONS.items()},
        angle_peak={name: of(shares[rows]) for name, rows in bins.items()},
    )
