"""Simulated micro-expressions: key-frame nodes with their class and action units, drawn at random.

No recorded micro-expression is needed: `streamer.simulation.facs` says how action units move the skin,
and this file draws everything else that differs from one recorded expression to the next: the face, its
pose, which units act and how strongly, when the key frames are caught, and what the tracker makes of it.
Everything is in the face frame of `streamer.messages` (unit = one inter-ocular distance, IOD).
A network trained on this knows what FACS says and this file assumes, not how people really move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.simulation.facs import TEMPLATE_NODES, draw_field
from train.combinations import ACTION_UNIT_NAMES, CLASSES, COMBINATIONS
from train.tracker_noise import TrackerNoise, load_noise

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_ONE_SIDED = frozenset({"1", "2", "6", "10", "12", "14", "15"})
"""Units that also occur on one half of the face alone."""

_EXTRAS = ("1", "2", "4", "6", "7", "10", "12", "14", "15", "17", "24", "25")
"""Units of which a trace may accompany an expression without being coded."""

NODE_DEPTH: F64 = np.array(
    [
        0.10,
        -0.16,
        -0.29,
        -0.29,
        -0.16,
        0.10,
        -0.28,
        -0.64,
        -0.28,
        -0.28,
        -0.13,
        -0.40,
        -0.13,
        -0.33,
    ]
)
"""(14,): depth of the nodes relative to the eyes' corners, IOD, towards the camera negative; from
MediaPipe's canonical face (geometry metadata of face_landmarker.task, Apache-2.0)."""

_BROWS, _MOUTH = [0, 1, 2, 3, 4, 5], [10, 11, 12, 13]
_LOWER = [7, 8, 9, *_MOUTH]


def _shape_modes() -> F64:
    """(modes, 14, 2): how faces differ, each scaled to one standard deviation between people, IOD."""
    x, y = TEMPLATE_NODES[:, 0], TEMPLATE_NODES[:, 1]
    modes = np.zeros((14, 14, 2))
    modes[0, _LOWER, 1] = 0.07 * y[_LOWER]  # length of the lower face
    modes[1, :, 0] = 0.04 * x  # width of the face against the distance of the eyes
    modes[2, _BROWS, 1] = 0.05  # height of the brows
    modes[3, [2, 3], 0] = (-0.03, 0.03)  # distance of the brows
    modes[4, _BROWS, 1] = 0.04 * (np.abs(x[_BROWS]) - 0.64)  # slope of the brows
    modes[5, [7, 8, 9], 1] = 0.04  # length of the nose
    modes[6, [8, 9], 0] = (-0.035, 0.035)  # width of the nose
    modes[7, [10, 12], 0] = (-0.05, 0.05)  # width of the mouth
    modes[8, _MOUTH, 1] = 0.05  # height of the mouth
    modes[9, [11, 13], 1] = (-0.025, 0.03)  # thickness of the lips
    modes[10, [10, 12], 1] = 0.025  # corners of the mouth up or down
    modes[11, _MOUTH, 0] = 0.015  # mouth to one side
    modes[12, _BROWS, 1] = 0.015 * np.sign(x[_BROWS])  # one brow higher
    modes[13, [10, 12], 1] = (-0.012, 0.012)  # one corner of the mouth higher
    return modes


@dataclass(frozen=True)
class Expressions:
    """Simulated expressions as the tracker would see them.

    nodes: (N, 3, 14, 2) float32, face frame, IOD: the nodes at onset, apex and offset.
    label: (N,) int64, index into `CLASSES`.
    units: (N, action units) float32, 1 where `ACTION_UNIT_NAMES` is active.
    amplitude: (N,) float32: true peak displacement of the most moved node, IOD.
    """

    nodes: F32
    label: NDArray[np.int64]
    units: F32
    amplitude: F32

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class SimulationConfig:
    """What is drawn. Ranges are (lowest, highest)."""

    amplitude: tuple[float, float] = (0.003, 0.03)
    """Peak displacement of the most moved node, IOD; drawn log-uniformly."""
    pose_deg: tuple[float, float, float] = (12.0, 9.0, 6.0)
    """Standard deviation of yaw, pitch and roll; cut off at 25 degrees."""
    pose_change_deg: float = 1.0
    """Standard deviation of the head's rotation between two key frames."""
    pose_leak: float = 0.1
    """Standard deviation of the part of that rotation's parallax that the tracker leaves in."""
    variation: tuple[float, float] = (0.5, 1.5)
    """How far the action units differ from the table of `streamer.simulation.facs`; 1 = as between people."""
    apex_reached: tuple[float, float] = (0.8, 1.0)
    """Part of the peak present in the frame taken for the apex (caught early or late)."""
    offset_residual: tuple[float, float] = (0.0, 0.5)
    """Part of the peak still present in the frame taken for the offset; small parts are likelier."""
    live_offset: float = 0.7
    """Probability that the offset is given as the live spotter does: the apex's reading times the part
    still present. Else it is a reading of its own, with its own noise."""
    one_sided: float = 0.15
    """Probability that the units that can are active on one half of the face alone (AU14: three times)."""
    extra_units: float = 0.15
    """Probability of a trace (5 to 25 %) of a further, uncoded unit."""
    iod_px: tuple[float, float] = (60.0, 190.0)
    """Inter-ocular distance in the picture, pixels; drawn log-uniformly."""
    noise_spread: float = 2.0
    """The tracker's noise is multiplied by a factor drawn log-uniformly from 1/spread .. spread."""
    crosstalk: tuple[float, float] = (0.3, 1.2)
    """Factor of the measured cross-talk, which contains the attenuation's spread in part."""
    lost_node: float = 0.03
    """Probability that one node could not be measured and stays where it was."""

    def __post_init__(self) -> None:
        for name in ("amplitude", "variation", "apex_reached", "offset_residual", "iod_px", "crosstalk"):
            low, high = getattr(self, name)
            least = 1e-6 if name in ("amplitude", "iod_px") else 0.0
            if not least <= low <= high:
                raise ValueError(f"{name} is {low:g} .. {high:g}; must be at least {least:g}, lowest first")
        for name in ("one_sided", "extra_units", "lost_node", "live_offset"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name):g}; must be a probability, 0 to 1")
        pose = (*self.pose_deg, self.pose_change_deg, self.pose_leak)
        if not (all(value >= 0.0 for value in pose) and self.noise_spread >= 1.0):
            raise ValueError("pose_deg, pose_change_deg and pose_leak must be at least 0, noise_spread 1")


def simulate(
    count: int,
    seed: int | Sequence[int],
    config: SimulationConfig = SimulationConfig(),
    noise: TrackerNoise | None = None,
    progress: bool = False,
) -> Expressions:
    """Draw `count` expressions, classes equally likely. Equal arguments give equal expressions."""
    rng = np.random.default_rng(seed)
    noise = noise or load_noise()
    faces = _draw_faces(rng, count)
    motion = np.empty((count, 14, 2))
    label = rng.integers(len(CLASSES), size=count)
    units = np.zeros((count, len(ACTION_UNIT_NAMES)), np.float32)
    amplitude = _log_uniform(rng, config.amplitude, count)
    for i in tqdm(range(count), desc="simulating", unit="expr", disable=not progress):
        numbers = _draw_combination(rng, CLASSES[label[i]])
        motion[i] = _draw_motion(rng, config, numbers, faces[i, :, :2], amplitude[i])
        units[i] = [name.removeprefix("AU") in numbers for name in ACTION_UNIT_NAMES]

    rest, moved, parallax = _seen_under_pose(rng, config, faces, motion)
    nodes = np.repeat(rest[:, None], 3, axis=1)
    nodes[:, 1:] += _read(rng, config, noise, moved, parallax)
    return Expressions(nodes.astype(np.float32), label, units, amplitude.astype(np.float32))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> F64:
    return np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), count))


def _draw_faces(rng: np.random.Generator, count: int) -> F64:
    """(count, 14, 3): frontal faces at rest, IOD."""
    faces = np.empty((count, 14, 3))
    modes = _shape_modes()
    faces[..., :2] = TEMPLATE_NODES + np.tensordot(rng.normal(size=(count, len(modes))), modes, 1)
    faces[..., :2] += rng.normal(scale=0.012, size=(count, 14, 2))  # placement by the landmark model
    faces[..., 2] = NODE_DEPTH * rng.normal(1.0, 0.12, (count, 1)) + rng.normal(scale=0.03, size=(count, 14))
    gap = np.where(rng.random(count) < 0.25, rng.uniform(0.0, 0.15, count), 0.0)  # an open mouth
    faces[:, 13, 1] += gap
    faces[:, [10, 12], 1] += 0.4 * gap[:, None]
    return faces


def _draw_combination(rng: np.random.Generator, label: str) -> list[str]:
    names, weights = zip(*COMBINATIONS[label], strict=True)
    p = np.array(weights, np.float64)
    return names[rng.choice(len(names), p=p / p.sum())].split("+")


_VISIBLE = 0.15
"""A motion that moves no node by this part of a unit activation cannot be seen; another is drawn."""


def _draw_motion(
    rng: np.random.Generator,
    config: SimulationConfig,
    numbers: list[str],
    face: F64,
    peak: float,
) -> F64:
    """(14, 2): displacement of the nodes at the true apex, frontal, IOD; the largest is `peak` long."""
    for _ in range(100):
        field = draw_field(
            _draw_activation(rng, config, numbers),
            rng,
            float(rng.uniform(*config.variation)),
        )
        motion = field.adapted(face).at(face)
        largest = float(np.hypot(motion[:, 0], motion[:, 1]).max())
        if largest > _VISIBLE:
            return motion * (peak / largest)
    raise ValueError(f"the action units {'+'.join(numbers)} move none of the nodes")


def _draw_activation(
    rng: np.random.Generator, config: SimulationConfig, numbers: list[str]
) -> dict[str, float]:
    """Relative strength by unit, as `streamer.simulation.facs.draw_field` takes it."""
    chance = config.one_sided * (3.0 if "14" in numbers else 1.0)
    side = str(rng.choice(["L", "R"])) if rng.random() < chance else ""
    activation = {
        (side if number in _ONE_SIDED else "") + number: float(rng.uniform(0.4, 1.0)) for number in numbers
    }
    if rng.random() < config.extra_units:
        extra = str(rng.choice(_EXTRAS))
        if extra not in numbers:
            activation[extra] = float(rng.uniform(0.05, 0.25))
    return activation


def _rotation(angles: F64) -> F64:
    """(N, 3) yaw, pitch, roll in radians -> (N, 3, 3) rotation matrices."""
    cos, sin = np.cos(angles), np.sin(angles)
    one, zero = np.ones(len(angles)), np.zeros(len(angles))
    yaw = np.stack([cos[:, 0], zero, sin[:, 0], zero, one, zero, -sin[:, 0], zero, cos[:, 0]], 1)
    pitch = np.stack([one, zero, zero, zero, cos[:, 1], -sin[:, 1], zero, sin[:, 1], cos[:, 1]], 1)
    roll = np.stack([cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one], 1)
    return roll.reshape(-1, 3, 3) @ pitch.reshape(-1, 3, 3) @ yaw.reshape(-1, 3, 3)


_CAMERA_IOD = 10.0
"""Distance of the camera: about 60 cm."""


def _project(points: F64, rotation: F64) -> F64:
    """(N, 14, 3) turned by `rotation` and seen by the camera -> (N, 14, 2) in the face frame."""
    eyes = np.broadcast_to([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]], (len(points), 2, 3))
    turned = np.concatenate((points, eyes), 1) @ rotation.transpose(0, 2, 1)
    seen = turned[..., :2] / (1.0 + turned[..., 2:] / _CAMERA_IOD)
    right, left = seen[:, -2], seen[:, -1]
    axis = left - right
    scale2 = (axis**2).sum(1)[:, None]
    offset = seen[:, :-2] - (0.5 * (left + right))[:, None]
    along = (offset * axis[:, None]).sum(2) / scale2
    across = (offset[..., 1] * axis[:, None, 0] - offset[..., 0] * axis[:, None, 1]) / scale2
    return np.stack((along, across), 2)


def _seen_under_pose(
    rng: np.random.Generator, config: SimulationConfig, faces: F64, motion: F64
) -> tuple[F64, F64, F64]:
    """Faces at rest and their motion as the camera sees them.

    Returns:
        nodes at rest (N, 14, 2); their displacement at the apex (N, 14, 2); displacement at apex and
        offset (N, 2, 14, 2) that a turning head leaves in the measurement. Face frame, IOD.
    """
    count = len(faces)
    angles = np.clip(rng.normal(scale=config.pose_deg, size=(count, 3)), -25.0, 25.0)
    rotation = _rotation(np.radians(angles))
    rest = _project(faces, rotation)
    # Skin moves along the surface, so partly in depth; the surface's slope is not modelled, but drawn.
    depth = rng.normal(scale=0.2, size=(count, 14, 1)) * np.hypot(motion[..., :1], motion[..., 1:])
    moved = _project(faces + np.concatenate((motion, depth), 2), rotation) - rest
    parallax = np.empty((count, 2, 14, 2))
    for frame in range(2):
        turn = _rotation(np.radians(rng.normal(scale=config.pose_change_deg, size=(count, 3))))
        leak = rng.normal(scale=config.pose_leak, size=(count, 1, 1))
        parallax[:, frame] = leak * (_project(faces, turn @ rotation) - rest)
    return rest, moved, parallax


def _draw_normal(rng: np.random.Generator, covariance: F64, count: int) -> F64:
    """(count, 14, 2) from a zero-mean normal of covariance (28, 28), which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return (rng.normal(size=(count, 28)) @ root.T).reshape(count, 14, 2)


def _read(
    rng: np.random.Generator, config: SimulationConfig, noise: TrackerNoise, moved: F64, parallax: F64
) -> F64:
    """The tracker's reading of the displacement at apex and offset: (N, 2, 14, 2), IOD.

    moved: (N, 14, 2) true displacement at full activation; parallax: (N, 2, 14, 2), see _seen_under_pose.
    """
    count = len(moved)
    attenuation = rng.normal(noise.attenuation_mean, noise.attenuation_std, (count, 14)).clip(0.0, 1.3)
    lost = np.flatnonzero(rng.random(count) < config.lost_node)
    attenuation[lost, rng.integers(14, size=len(lost))] = 0.0
    peak = np.hypot(moved[..., 0], moved[..., 1]).max(1) * rng.uniform(*config.crosstalk, count)
    crosstalk = peak[:, None, None] * _draw_normal(rng, noise.crosstalk, count)
    reading = attenuation[..., None] * moved + crosstalk

    spread = (1.0 / config.noise_spread, config.noise_spread)
    scale = _log_uniform(rng, spread, count) * noise.iod_px / _log_uniform(rng, config.iod_px, count)
    reached = rng.uniform(*config.apex_reached, count)
    residual = rng.uniform(*config.offset_residual, count) * rng.uniform(0.0, 1.0, count)
    apex, offset = (
        part[:, None, None] * reading
        + scale[:, None, None] * _draw_normal(rng, noise.covariance, count)
        + parallax[:, frame]
        for frame, part in enumerate((reached, residual))
    )
    live = rng.random(count) < config.live_offset
    offset[live] = residual[live, None, None] * apex[live]
    return np.stack((apex, offset), 1)
