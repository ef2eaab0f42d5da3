"""Action units as motion of the skin: what FACS describes, in numbers.

An action unit (AU) is a set of bumps: at `centre` the skin moves along `direction`, and the motion
falls off as a Gaussian of standard deviation `radius`. Centres, directions and radii follow the
appearance changes that the Facial Action Coding System describes (Ekman, Friesen and Hager, 2002);
the numbers are this project's reading of those descriptions, not measurements of people.

Frame of reference: the face frame of `streamer.messages` (origin between the eyes, x towards the
person's left, y down the face, unit = inter-ocular distance). Bumps are given for the person's left
half and mirrored; a bump with x = 0 lies on the midline and stands once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Bump:
    """One local displacement: x, y, dx, dy and radius in IOD; dx, dy relative to the AU's unit."""

    x: float
    y: float
    dx: float
    dy: float
    radius: float


@dataclass(frozen=True)
class ActionUnit:
    """An action unit's name and its bumps at unit activation (peak displacement about 1)."""

    name: str
    bumps: tuple[Bump, ...]


def _au(name: str, *bumps: tuple[float, float, float, float, float]) -> ActionUnit:
    return ActionUnit(name, tuple(Bump(*bump) for bump in bumps))


TEMPLATE_NODES: F64 = np.array(
    [
        (-0.95, -0.24),
        (-0.70, -0.36),
        (-0.26, -0.32),
        (0.26, -0.32),
        (0.70, -0.36),
        (0.95, -0.24),
        (0.0, -0.04),
        (0.0, 0.67),
        (-0.29, 0.69),
        (0.29, 0.69),
        (-0.44, 1.04),
        (0.0, 0.98),
        (0.44, 1.04),
        (0.0, 1.22),
    ]
)
"""(14, 2): a neutral face's nodes, face frame; the bumps below are placed on this face."""

ACTION_UNITS: dict[str, ActionUnit] = {
    "AU1": _au("inner brow raiser", (0.26, -0.34, 0.0, -1.0, 0.24)),
    "AU2": _au("outer brow raiser", (0.80, -0.33, 0.08, -1.0, 0.28)),
    "AU4": _au(
        "brow lowerer",
        (0.26, -0.33, -0.55, 0.75, 0.25),
        (0.62, -0.37, -0.25, 0.55, 0.25),
        (0.0, -0.28, 0.0, 0.35, 0.20),
    ),
    "AU5": _au("upper lid raiser", (0.50, -0.09, 0.0, -1.0, 0.10)),
    "AU6": _au("cheek raiser", (0.62, 0.42, -0.10, -1.0, 0.28), (0.82, 0.06, -0.45, 0.15, 0.16)),
    "AU7": _au("lid tightener", (0.50, 0.12, 0.0, -1.0, 0.12), (0.50, -0.08, 0.0, 0.4, 0.09)),
    "AU9": _au(
        "nose wrinkler",
        (0.24, 0.60, 0.03, -1.0, 0.15),
        (0.18, 0.94, 0.0, -0.45, 0.14),
        (0.20, -0.28, -0.10, 0.45, 0.22),
    ),
    "AU10": _au(
        "upper lip raiser",
        (0.17, 0.97, 0.03, -0.9, 0.15),
        (0.36, 0.74, 0.10, -0.60, 0.16),
    ),
    "AU12": _au("lip corner puller", (0.44, 1.04, 0.70, -0.75, 0.26), (0.62, 0.74, 0.25, -0.50, 0.28)),
    "AU14": _au("dimpler", (0.46, 1.04, 0.95, 0.05, 0.16)),
    "AU15": _au("lip corner depressor", (0.43, 1.06, 0.15, 1.0, 0.22), (0.36, 1.32, 0.05, 0.45, 0.22)),
    "AU17": _au("chin raiser", (0.0, 1.52, 0.0, -1.0, 0.26), (0.0, 1.23, 0.0, -0.6, 0.22)),
    "AU18": _au("lip pucker", (0.42, 1.05, -1.0, 0.0, 0.24)),
    "AU20": _au("lip stretcher", (0.44, 1.05, 1.0, 0.30, 0.26)),
    "AU23": _au(
        "lip tightener",
        (0.42, 1.05, -0.60, 0.0, 0.18),
        (0.0, 0.98, 0.0, 0.55, 0.13),
        (0.0, 1.22, 0.0, -0.55, 0.13),
    ),
    "AU24": _au(
        "lip pressor",
        (0.0, 0.98, 0.0, 0.90, 0.13),
        (0.0, 1.22, 0.0, -0.90, 0.13),
        (0.42, 1.05, -0.2, 0.0, 0.18),
    ),
    "AU25": _au("lips part", (0.0, 1.25, 0.0, 1.0, 0.16), (0.0, 0.96, 0.0, -0.45, 0.13)),
    "AU26": _au("jaw drop", (0.0, 1.42, 0.0, 1.0, 0.38)),
    "AU38": _au("nostril dilator", (0.22, 0.66, 0.9, -0.1, 0.12)),
}
"""Every action unit that the simulation knows, by its FACS name."""


def parse_unit(name: str, table: Mapping[str, ActionUnit] = ACTION_UNITS) -> tuple[str, int]:
    """Split "AU12", "L12", "R4" or "12" into (FACS name, side): side -1 right, +1 left, 0 both.

    Raises:
        KeyError: the action unit is not in `table`.
    """
    text = name.upper()
    side = {"L": 1, "R": -1}.get(text[:1], 0)
    number = text.lstrip("LR").removeprefix("AU")
    facs_name = f"AU{number}"
    if facs_name not in table:
        raise KeyError(f"unknown action unit {name!r}; known: {', '.join(table)}")
    return facs_name, side


@numba.njit(cache=True)
def displace(x: float, y: float, bumps: F64) -> tuple[float, float]:
    """Sum over bumps (M, 5) of (dx, dy) exp(-|p - c|^2 / (2 r^2)) at the point p = (x, y), IOD."""
    dx = 0.0
    dy = 0.0
    for k in range(bumps.shape[0]):
        u, v, r = x - bumps[k, 0], y - bumps[k, 1], bumps[k, 4]
        e = (u * u + v * v) / (2.0 * r * r)
        if e < 12.0:
            w = math.exp(-e)
            dx += w * bumps[k, 2]
            dy += w * bumps[k, 3]
    return dx, dy


@numba.njit(cache=True)
def _displace_all(points: F64, bumps: F64, out: F64) -> None:
    """out (N, 2) = `displace` at each of points (N, 2)."""
    for i in range(points.shape[0]):
        out[i, 0], out[i, 1] = displace(points[i, 0], points[i, 1], bumps)


@dataclass(frozen=True)
class MotionField:
    """A displacement of the whole face at full activation.

    bumps: (M, 5) float64: x, y, dx, dy, radius, all IOD in the face frame.
    """

    bumps: F64

    def at(self, points: NDArray[np.floating]) -> F64:
        """Displacement (N, 2) in IOD of the skin that rests at `points` (N, 2), face frame."""
        rest = np.ascontiguousarray(points, np.float64)
        out = np.empty_like(rest)
        _displace_all(rest, self.bumps, out)
        return out

    def scaled(self, factor: float) -> MotionField:
        """The same motion, `factor` times as large."""
        bumps = self.bumps.copy()
        bumps[:, 2:4] *= factor
        return MotionField(bumps)

    def uneven(self, asymmetry: float) -> MotionField:
        """The motion with `asymmetry` (0..1) of it lacking on the person's right; negative, on the left."""
        bumps = self.bumps.copy()
        weaker = bumps[:, 0] < 0 if asymmetry > 0 else bumps[:, 0] > 0
        bumps[weaker, 2:4] *= 1 - abs(asymmetry)
        return MotionField(bumps)

    def adapted(self, nodes: NDArray[np.floating]) -> MotionField:
        """The same motion on a face whose 14 nodes rest at `nodes` (14, 2): each bump moves with the
        nodes near it, by the mean of their offsets from `TEMPLATE_NODES` (Gaussian weights, 0.25 IOD).
        """
        offsets = np.asarray(nodes, np.float64) - TEMPLATE_NODES
        bumps = self.bumps.copy()
        distance2 = ((bumps[:, None, :2] - TEMPLATE_NODES) ** 2).sum(-1)
        weights = np.exp(-(distance2 - distance2.min(1, keepdims=True)) / (2 * 0.25**2))
        bumps[:, :2] += (weights @ offsets) / weights.sum(1, keepdims=True)
        return MotionField(bumps)

    def with_peak(self, points: NDArray[np.floating], peak: float) -> MotionField:
        """The same motion, scaled so that the most moved of `points` (N, 2) moves `peak` IOD.

        Raises:
            ValueError: the motion leaves all the points where they are.
        """
        largest = float(np.hypot(*self.at(points).T).max())
        if largest < 1e-3:
            raise ValueError("this motion moves none of the points: it cannot be scaled to a peak")
        return self.scaled(peak / largest)


def draw_field(
    activation: dict[str, float],
    rng: np.random.Generator | None = None,
    variation: float = 0.0,
    table: Mapping[str, ActionUnit] = ACTION_UNITS,
) -> MotionField:
    """A motion field of several action units.

    Args:
        activation: relative strength by unit: "AU12" or "12" both sides, "L12"/"R12" one side.
        rng: source of the variation; None is allowed when `variation` is 0.
        variation: 0 gives the table's bumps; 1 varies each bump between people: centre by 0.05 IOD,
            direction by 12 degrees, size by 25 %, radius by 20 % (standard deviations), and the two
            sides of a bilateral unit by 15 % against each other.
        table: what each unit does, by its FACS name.
    """
    rows: list[tuple[float, float, float, float, float]] = []
    for name, strength in activation.items():
        unit, side = parse_unit(name, table)
        noise = (rng or np.random.default_rng(0)).normal
        asymmetry = 0.15 * variation * float(noise()) if variation else 0.0
        for bump in table[unit].bumps:
            if variation:
                jitter = variation * noise(size=5)
                angle = math.radians(12.0) * jitter[2]
                size = math.exp(0.25 * jitter[3])
                cos, sin = math.cos(angle) * size, math.sin(angle) * size
                drawn = Bump(
                    bump.x + (0.05 * jitter[0] if bump.x else 0.02 * jitter[0]),
                    bump.y + 0.05 * jitter[1],
                    bump.dx * cos - bump.dy * sin,
                    bump.dx * sin + bump.dy * cos,
                    bump.radius * math.exp(0.2 * jitter[4]),
                )
            else:
                drawn = bump
            if bump.x == 0.0:
                shift = 0.15 * side  # a unit of one side pulls the midline a little to that side
                rows.append(
                    (drawn.x + shift, drawn.y, strength * drawn.dx, strength * drawn.dy, drawn.radius)
                )
                continue
            for half in (-1, 1):
                if side in (0, half):
                    s = strength * (1.0 + half * asymmetry)
                    rows.append((half * drawn.x, drawn.y, s * half * drawn.dx, s * drawn.dy, drawn.radius))
    return MotionField(np.array(rows, np.float64).reshape(-1, 5))


def motion(
    points: NDArray[np.floating],
    activation: dict[str, float],
    rng: np.random.Generator | None = None,
    variation: float = 0.0,
) -> F64:
    """Displacement (N, 2) in IOD of `points` (N, 2), face frame, under `activation`; see draw_field."""
    return draw_field(activation, rng, variation).at(points)


def profile(
    time_s: float, onset_s: float, apex_s: float, offset_s: float, residual: float = 0.0, hold: float = 0.0
) -> float:
    """Activation 0..1 at `time_s`: a raised cosine up to the apex and down to `residual` at the offset.

    hold: part (0..1) of the rise and of the fall that is spent at full activation around the apex.
    """
    if time_s <= onset_s:
        return 0.0
    if time_s >= offset_s:
        return residual
    if time_s < apex_s:
        u = (time_s - onset_s) / ((apex_s - onset_s) * (1.0 - hold))
        return 0.5 - 0.5 * math.cos(math.pi * min(1.0, u))
    u = (offset_s - time_s) / ((offset_s - apex_s) * (1.0 - hold))
    return residual + (1.0 - residual) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, u)))
