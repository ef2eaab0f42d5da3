"""Simulated clips: one still portrait brought to life with head motion, blinks, speech, light, noise
and injected expressions, with exact truth beside it.

Every output pixel is traced back through expression, eyelid and head motion to one place in the
portrait, and read there once: one resampling, so the only blur is the interpolation's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.graph import NODES
from streamer.messages import F32, U8
from streamer.simulation import facs, held_out
from streamer.simulation.facs import ActionUnit, MotionField, draw_field

F64 = NDArray[np.float64]

UPPER_LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (362, 398, 384, 385, 386, 387, 388, 466, 263),
)
LOWER_LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (362, 382, 381, 380, 374, 373, 390, 249, 263),
)
"""MediaPipe-478 indices of the lid contours, right eye then left, from image left to image right."""

LID_SAMPLES = 33

LAMP_HZ = 100.0
"""A lamp on 50 Hz mains pulses twice a period."""
READOUT_S = 0.025
"""From the first row of a rolling shutter to the last: common webcams take most of a 30 fps frame."""


@dataclass(frozen=True)
class Portrait:
    """A still face.

    image: (H, W, 3) uint8 BGR. landmarks: (478, 3) float32 image frame, pixels.
    """

    image: U8
    landmarks: F32

    @cached_property
    def pose(self) -> F64:
        """(3, 3) similarity from the face frame (IOD) to the still's pixels."""
        return face_crop.eye_line_pose(self.landmarks)

    def face_points(self, indices: Sequence[int]) -> F64:
        """(N, 2) face-frame positions (IOD) of MediaPipe landmarks."""
        points = self.landmarks[list(indices), :2].astype(np.float64)
        return face_crop.move(face_crop.inverse(self.pose), points)

    @cached_property
    def nodes(self) -> F64:
        """(14, 2) nodes of the still, face frame, IOD."""
        return self.face_points([node.mediapipe for node in NODES])


TABLES: dict[str, Mapping[str, ActionUnit]] = {
    "tuning": facs.ACTION_UNITS,
    "held-out": held_out.HELD_OUT_UNITS,
}
"""Accounts of what action units do to the skin; nothing is tuned on the second."""

COURSES = {"cosine": facs.profile, "held-out": held_out.profile}
"""How an expression comes and goes; nothing is tuned on the second."""


@dataclass(frozen=True)
class Injection:
    """One expression to inject. `action_units` as `facs.draw_field` takes them; `peak` in IOD.

    label: objective class "I".."VII", or "macro" for a slow one. hold, residual: see `facs.profile`.
    variation: see `facs.draw_field`. table, course: names of `TABLES` and `COURSES`.
    asymmetry: see `facs.MotionField.uneven`.
    """

    action_units: dict[str, float]
    onset_s: float
    apex_s: float
    offset_s: float
    peak: float
    label: str = ""
    hold: float = 0.0
    residual: float = 0.0
    variation: float = 0.0
    table: str = "tuning"
    course: str = "cosine"
    asymmetry: float = 0.0

    def level(self, time_s: float) -> float:
        """Activation 0..1 at `time_s`."""
        times = (time_s, self.onset_s, self.apex_s, self.offset_s)
        return COURSES[self.course](*times, self.residual, self.hold)

    def field(self, nodes: NDArray[np.floating], rng: np.random.Generator) -> MotionField:
        """The motion at full activation of a face whose nodes rest at `nodes` (14, 2), face frame, IOD."""
        drawn = draw_field(self.action_units, rng, self.variation, TABLES[self.table])
        return drawn.uneven(self.asymmetry).adapted(nodes).with_peak(nodes, self.peak)


def truth_of(injections: Sequence[Injection], times: F64) -> list[dict[str, object]]:
    """One dict an injection: onset/apex/offset (frame and time_s), label, action_units, peak.

    times: (N,) of the frames, seconds.
    """

    def key(t: float) -> dict[str, float]:
        return {"frame": int(np.argmin(np.abs(times - t))), "time_s": round(t, 6)}

    return [
        {
            "onset": key(i.onset_s),
            "apex": key(i.apex_s),
            "offset": key(i.offset_s),
            "label": i.label,
            "action_units": sorted(i.action_units),
            "peak": i.peak,
        }
        for i in injections
    ]


@dataclass(frozen=True)
class Clip:
    """What to render. Lengths in IOD, angles in degrees, times in seconds, pixel values 0..255.

    sway_*: amplitude of the slow head motion (sum of two sines, about 0.3 and 0.7 Hz).
    noise: standard deviation of the sensor noise at mid-grey; it grows with the root of the light.
    flicker: relative amplitude of a 100 Hz light's alias at this frame rate (7 Hz here).
    banding: relative amplitude of a lamp's pulses in a rolling shutter's rows (`LAMP_HZ`, `READOUT_S`).
    talking: peak of the mouth's speech motion, IOD, between the times of `talk_s`.
    sway_rate: factor on the speed of the head motion.
    """

    fps: float = 30.0
    duration_s: float = 20.0
    width: int = 640
    height: int = 480
    iod_px: float = 110.0
    sway: float = 0.08
    sway_roll: float = 2.0
    sway_yaw: float = 4.0
    sway_pitch: float = 3.0
    sway_scale: float = 0.01
    sway_rate: float = 1.0
    noise: float = 2.0
    blur: float = 0.0
    flicker: float = 0.0
    banding: float = 0.0
    light_drift: float = 0.0
    blinks_s: tuple[float, ...] = ()
    blink_length_s: float = 0.2
    talking: float = 0.0
    talk_s: tuple[float, float] = (0.0, 0.0)
    injections: tuple[Injection, ...] = ()
    time_jitter: float = 0.0
    seed: int = 0
    centre: tuple[float, float] = (0.5, 0.42)


@numba.njit(cache=True, fastmath=True)
def _depth(x: float, y: float) -> float:
    """Depth of the skin towards the camera, IOD: an ellipsoidal head with a nose (rough anatomy)."""
    e = (x / 1.3) ** 2 + ((y - 0.35) / 1.9) ** 2
    head = math.sqrt(1.0 - e) if e < 0.98 else math.sqrt(0.02)
    near_nose = ((x / 0.20) ** 2 + ((y - 0.62) / 0.22) ** 2) / 2
    nose = 0.42 * math.exp(-near_nose) if near_nose < 12.0 else 0.0
    return 1.1 * head - 1.1 + nose


GRID = (-2.0, -1.6, 0.01, 401, 421)
"""Where the motion of the skin is tabulated: least x and y, step (IOD), columns, rows. Between the points it
is interpolated: with the narrowest bump of the action units that is wrong by 0.2 % of the peak at most."""


@numba.njit(cache=True, fastmath=True)
def _look_up(moved: F32, x: float, y: float) -> tuple[float, float]:
    """Displacement at (x, y) from its table `moved` (rows, columns, 2), IOD; none outside."""
    u, v = (x - GRID[0]) / GRID[2], (y - GRID[1]) / GRID[2]
    if not (0.0 <= u < GRID[3] - 1 and 0.0 <= v < GRID[4] - 1):
        return 0.0, 0.0
    left, top = int(u), int(v)
    a, b = u - left, v - top
    dx = (1 - b) * ((1 - a) * moved[top, left, 0] + a * moved[top, left + 1, 0]) + b * (
        (1 - a) * moved[top + 1, left, 0] + a * moved[top + 1, left + 1, 0]
    )
    dy = (1 - b) * ((1 - a) * moved[top, left, 1] + a * moved[top, left + 1, 1]) + b * (
        (1 - a) * moved[top + 1, left, 1] + a * moved[top + 1, left + 1, 1]
    )
    return dx, dy


@lru_cache(maxsize=64)
def _tabulate(bumps: bytes) -> F32:
    """(rows, columns, 2) displacement by the bumps (M, 5) on the `GRID`, IOD."""
    x0, y0, step, columns, rows = GRID
    x, y = np.meshgrid(x0 + step * np.arange(columns), y0 + step * np.arange(rows))
    field = MotionField(np.frombuffer(bytearray(bumps)).reshape(-1, 5))
    points = np.column_stack([x.ravel(), y.ravel()])
    return field.at(points).astype(np.float32).reshape(rows, columns, 2)


@numba.njit(cache=True, fastmath=True)
def _trace(
    to_face: F64,
    to_still: F64,
    turn: F64,
    moved: F32,
    closure: float,
    lid_x: F64,
    lid_up: F64,
    lid_low: F64,
    map_x: F32,
    map_y: F32,
) -> None:
    """Fill map_x, map_y (H, W): where in the still each output pixel comes from."""
    height, width = map_x.shape
    for row in range(height):
        for column in range(width):
            qx = to_face[0, 0] * column + to_face[0, 1] * row + to_face[0, 2]
            qy = to_face[1, 0] * column + to_face[1, 1] * row + to_face[1, 2]
            # The head's turn moves a point by depth x angle; undone by fixed-point steps.
            sx, sy = qx, qy
            for _ in range(2):
                z = _depth(sx, sy)
                sx, sy = qx - z * turn[0] - turn[2] * (sx), qy - z * turn[1] - turn[3] * (sy)
            if moved.shape[0]:
                px, py = sx, sy
                for _ in range(3):
                    dx, dy = _look_up(moved, sx, sy)
                    sx, sy = px - dx, py - dy
                    if abs(dx) + abs(dy) < 1e-5:  # a thousandth of a pixel
                        break
            if closure > 0.0:
                for eye in range(2):
                    step = (lid_x[eye, -1] - lid_x[eye, 0]) / (LID_SAMPLES - 1)
                    place = (sx - lid_x[eye, 0]) / step
                    if 0.0 < place < LID_SAMPLES - 1 and abs(sy) < 0.5:
                        left = int(place)
                        part = place - left
                        up = lid_up[eye, left] + part * (lid_up[eye, left + 1] - lid_up[eye, left])
                        low = lid_low[eye, left] + part * (lid_low[eye, left + 1] - lid_low[eye, left])
                        crease = up - 0.14
                        edge = up + closure * (low - up)
                        if crease < sy < edge:
                            sy = crease + (sy - crease) * (up - crease) / (edge - crease)
            map_x[row, column] = to_still[0, 0] * sx + to_still[0, 1] * sy + to_still[0, 2]
            map_y[row, column] = to_still[1, 0] * sx + to_still[1, 1] * sy + to_still[1, 2]


@numba.njit(cache=True, fastmath=True)
def _expose(image: U8, gain: F32, noise: float, samples: F32, first: int, out: U8) -> None:
    """out = image (H, W, 3), rows under the light gain (H,), plus noise: samples (N,) from `first` on."""
    height, width, channels = image.shape
    place = first
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                light = np.float32(image[row, column, channel]) * gain[row]
                if noise > 0.0:
                    light += (
                        np.float32(noise)
                        * np.sqrt((light + np.float32(16)) / np.float32(144))
                        * samples[place]
                    )
                    place += 1
                out[row, column, channel] = np.uint8(min(np.float32(255), max(np.float32(0), np.rint(light))))


NOISE_SAMPLES = 1 << 22
"""Further noise samples than a frame needs, so that frames begin at places of their own."""


class Renderer:
    """Renders `clip` of `portrait`; `frames()` gives (time_s, image), `truth()` what was injected."""

    def __init__(self, portrait: Portrait, clip: Clip) -> None:
        self.portrait, self.clip = portrait, clip
        rng = np.random.default_rng(clip.seed)
        self._phase = rng.uniform(0, 2 * math.pi, (12,))
        self._rate = rng.uniform(0.8, 1.25, (12,))
        self._fields: list[MotionField] = [i.field(portrait.nodes, rng) for i in clip.injections]
        self._speech = [draw_field({u: 1.0}).adapted(portrait.nodes) for u in ("AU26", "AU18", "AU25")]
        self._noise = np.random.default_rng((clip.seed, 1))
        upper = [portrait.face_points(lid) for lid in UPPER_LIDS]
        lower = [portrait.face_points(lid) for lid in LOWER_LIDS]
        self._lid_x = np.stack([np.linspace(u[0, 0], u[-1, 0], LID_SAMPLES) for u in upper])
        self._lid_up = np.stack(
            [np.interp(x, u[:, 0], u[:, 1]) for x, u in zip(self._lid_x, upper, strict=True)]
        )
        self._lid_low = np.stack(
            [np.interp(x, u[:, 0], u[:, 1]) for x, u in zip(self._lid_x, lower, strict=True)]
        )
        count = round(clip.duration_s * clip.fps)
        jitter = np.random.default_rng((clip.seed, 2)).uniform(-0.5, 0.5, count) * clip.time_jitter
        self.times = (np.arange(count) + jitter) / clip.fps
        self.times -= self.times[0]

    def _wave(self, t: float, k: int) -> float:
        """A slow motion between about -1 and 1: number k of the clip's independent waves."""
        a, b = 2 * k % 12, (2 * k + 1) % 12
        slow, fast = (2 * math.pi * rate * self.clip.sway_rate * t for rate in (0.30, 0.70))
        return 0.65 * math.sin(slow * self._rate[a] + self._phase[a]) + 0.35 * math.sin(
            fast * self._rate[b] + self._phase[b]
        )

    def pose(self, t: float) -> tuple[F64, F64]:
        """Head at time t: (2, 3) face frame -> output pixels, and (4,) turn terms."""
        c = self.clip
        angle = math.radians(c.sway_roll) * self._wave(t, 2)
        scale = c.iod_px * (1 + c.sway_scale * self._wave(t, 3))
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        x = c.centre[0] * c.width + c.iod_px * c.sway * self._wave(t, 0)
        y = c.centre[1] * c.height + c.iod_px * c.sway * self._wave(t, 1)
        yaw = math.radians(c.sway_yaw) * self._wave(t, 4)
        pitch = math.radians(c.sway_pitch) * self._wave(t, 5)
        turn = np.array([math.sin(yaw), -math.sin(pitch), math.cos(yaw) - 1, math.cos(pitch) - 1])
        return np.array([[cos, -sin, x], [sin, cos, y]]), turn

    def _active(self, t: float) -> list[tuple[MotionField, float]]:
        """The motions of the skin that act at time t, and how far."""
        active = [
            (motion, level)
            for injection, motion in zip(self.clip.injections, self._fields, strict=True)
            if (level := injection.level(t))
        ]
        start, end = self.clip.talk_s
        if self.clip.talking and start <= t < end:
            for k, motion in enumerate(self._speech):
                syllables = math.sin(2 * math.pi * (4.1 - k) * t + k) * math.sin(
                    2 * math.pi * 0.45 * t + 2 * k
                )
                active.append((motion, self.clip.talking * max(0.0, syllables)))
        return active

    def bumps(self, t: float) -> F64:
        """(M, 5) all skin motion at time t."""
        rows = [motion.scaled(level).bumps for motion, level in self._active(t)]
        return np.concatenate(rows) if rows else np.zeros((0, 5))

    def _moved(self, t: float) -> F32:
        """Table of the skin's displacement at time t, see `_look_up`; empty where nothing moves."""
        tables = [np.float32(level) * _tabulate(motion.bumps.tobytes()) for motion, level in self._active(t)]
        return sum(tables[1:], tables[0]) if tables else np.zeros((0, 0, 2), np.float32)

    def closure(self, t: float) -> float:
        """Eyelid closure 0..1 at time t: fast down, slower up."""
        for start in self.clip.blinks_s:
            u = (t - start) / self.clip.blink_length_s
            if 0 <= u < 1:
                return (
                    math.sin(math.pi * min(1.0, u / 0.8) / 2) ** 2
                    if u < 0.4
                    else math.cos(math.pi * (u - 0.4) / 1.2) ** 2
                )
        return 0.0

    def displacement(self, t: float) -> F64:
        """(14, 2) true displacement of the nodes at time t, face frame, IOD."""
        return MotionField(self.bumps(t)).at(self.portrait.nodes)

    def nodes_px(self, t: float) -> F64:
        """(14, 2) true node positions in the output picture, pixels."""
        pose, turn = self.pose(t)
        s = self.portrait.nodes + self.displacement(t)
        z = np.array([_depth(x, y) for x, y in s])
        q = s * (1 + turn[2:]) + z[:, None] * turn[:2]
        return q @ pose[:, :2].T + pose[:, 2]

    def frame(self, t: float) -> U8:
        """The picture at time t, (height, width, 3) uint8 BGR."""
        c = self.clip
        pose, turn = self.pose(t)
        to_face = np.asarray(cv2.invertAffineTransform(pose), np.float64)
        map_x = np.empty((c.height, c.width), np.float32)
        map_y = np.empty_like(map_x)
        closure = self.closure(t)
        _trace(
            to_face,
            self.portrait.pose[:2],
            turn,
            self._moved(t),
            closure,
            self._lid_x,
            self._lid_up,
            self._lid_low,
            map_x,
            map_y,
        )
        image = np.asarray(
            cv2.remap(self.portrait.image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101),
            np.uint8,
        )
        if c.blur:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), c.blur), np.uint8)
        out = np.empty_like(image)
        first = int(self._noise.integers(NOISE_SAMPLES)) if c.noise else 0
        _expose(image, self._gain(t), c.noise, self._noise_samples, first, out)
        return out

    @cached_property
    def _noise_samples(self) -> F32:
        """Standard normal noise, more than one frame's: drawing it anew for every pixel would take half
        of the time of a frame."""
        c = self.clip
        count = NOISE_SAMPLES + c.width * c.height * 3 if c.noise else 0
        return self._noise.standard_normal(count, np.float32)

    def _gain(self, t: float) -> F32:
        """(height,) light of each row at time t."""
        c = self.clip
        whole = 1 + c.flicker * math.sin(2 * math.pi * 7 * t) + c.light_drift * self._wave(t, 1)
        row_t = t + READOUT_S * np.arange(c.height) / c.height
        return (whole + c.banding * np.sin(2 * math.pi * LAMP_HZ * row_t)).astype(np.float32)

    def frames(self) -> Iterator[tuple[float, U8]]:
        """All frames in order: (time_s, image)."""
        for t in self.times:
            yield float(t), self.frame(float(t))

    def truth(self) -> list[dict[str, object]]:
        """What was injected: see `truth_of`."""
        return truth_of(self.clip.injections, self.times)
