"""Simulated micro-expressions: key-frame nodes with their class and action units, drawn at random.

No recorded micro-expression is needed: `streamer.simulation.facs` says how action units move the skin,
and this file draws everything else that differs from one recorded expression to the next: the face, its
pose, which units act and how strongly, when the key frames are caught, and what the tracker makes of it.
Everything is in the face frame of `streamer.messages` (unit = one inter-ocular distance, IOD).
A network trained on this knows what FACS says and this file assumes, not how people really move.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import UsageError
from streamer.simulation.facs import TEMPLATE_NODES, draw_field

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

COMBINATIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "I": (("12", 5), ("6+12", 4), ("6+7+12", 1), ("7+12", 1), ("6", 0.5)),
    "II": (("1+2", 4), ("25", 2), ("1+2+25", 2), ("25+26", 2)),
    "III": (
        ("4", 4),
        ("4+7", 3),
        ("4+5", 1),
        ("4+5+7", 1),
        ("4+6+7", 1),
        ("4+38", 0.5),
        ("23", 1.5),
        ("17+24", 1.5),
    ),
    "IV": (
        ("9", 2),
        ("10", 2),
        ("4+9", 2),
        ("4+7+9", 1.5),
        ("4+9+17", 1),
        ("4+5+7+9", 0.5),
        ("7+10", 1),
        ("4+7+10", 1),
    ),
    "V": (("15", 3), ("1", 3), ("1+4", 2), ("15+17", 2), ("6+15", 1)),
    "VII": (
        ("14", 6),
        ("17", 3),
        ("14+17", 1.5),
        ("18", 1),
        ("24", 1),
        ("26", 0.5),
        ("4+12", 1),
        ("4+14", 1),
        ("4+15", 0.5),
        ("4+17", 0.5),
        ("1+2+4+15", 0.3),
        ("1+12", 0.5),
        ("1+2+12", 0.7),
        ("1+2+14", 0.5),
        ("1+2+17", 0.5),
        ("10+12", 0.7),
        ("10+17", 0.5),
        ("12+14", 0.7),
        ("12+15", 0.7),
        ("12+17", 0.7),
        ("12+24", 0.5),
        ("12+25", 0.5),
        ("14+24", 0.5),
        ("15+25", 0.3),
    ),
}
"""Action units and relative frequency by objective class.

Classes I to V are the exact sets of the objective classes (Davison, Merghani and Yap, 2018); VII is any
other set, here contempt (AU14), single units of the mouth and mixtures of two classes. Frequencies are
rough figures. Left out: AU2 alone, which is in no class I to V but looks to the nodes like a raised brow
(II); sets that differ from a set of another class only by what the 14 nodes cannot see (AU5 alone; 5+24,
which looks like 24; units of the head and gaze); and class VI, which has too few
samples in the databases (paper, Table I).
"""

CLASSES: tuple[str, ...] = tuple(COMBINATIONS)
"""Class ids in the order of a network's outputs."""

ACTION_UNIT_NAMES: tuple[str, ...] = tuple(
    f"AU{number}" for number in (1, 2, 4, 6, 9, 10, 12, 14, 15, 17, 18, 23, 24, 25, 26, 38)
)
"""Action units in the order of a network's outputs: those that move a node. AU5 and AU7 do not."""

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
class TrackerNoise:
    """What the tracker makes of a true displacement, as `train.measure` found it.

    attenuation_mean, attenuation_std: (14,): part of a node's own displacement that is read, and its
        spread between expressions.
    covariance: (28, 28): noise of (x0, y0, x1, ...) at `iod_px` pixels between the eyes, IOD squared;
        the noise is constant in pixels.
    crosstalk: (28, 28): covariance of what an expression of peak 1 adds to the reading besides: motion
        of the skin around a node, and what the alignment of the whole face takes for head motion.
    reference: where the figures come from.
    """

    attenuation_mean: F64
    attenuation_std: F64
    covariance: F64
    iod_px: float
    crosstalk: F64
    reference: str


TRACKER_NOISE_FILE = Path(__file__).with_name("tracker_noise.json")


def load_noise(path: Path = TRACKER_NOISE_FILE) -> TrackerNoise:
    """The measured noise of the tracker.

    Raises:
        UsageError: the file is missing, or not what `train.measure` writes.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        noise = TrackerNoise(
            attenuation_mean=np.array(data["attenuation"]["mean"], np.float64),
            attenuation_std=np.array(data["attenuation"]["std"], np.float64),
            covariance=np.array(data["noise_iod"]["cov"], np.float64),
            iod_px=float(data["noise_iod"]["iod_px"]),
            crosstalk=np.array(data["crosstalk"]["cov_per_peak"], np.float64),
            reference=str(data["noise_iod"]["reference"]),
        )
        shapes = [
            field.shape
            for field in (
                noise.attenuation_mean,
                noise.attenuation_std,
                noise.covariance,
                noise.crosstalk,
            )
        ]
        if shapes != [(14,), (14,), (28, 28), (28, 28)]:
            raise ValueError(f"shapes {shapes} instead of (14,), (14,), (28, 28), (28, 28)")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: no tracker noise file ({error!r}); restore it") from error
    return noise


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
