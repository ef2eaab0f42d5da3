"""Simulated clips: one still portrait brought to life with head motion, blinks, speech, light, noise
and injected expressions, with exact truth beside it.

Every output pixel is traced back through expression, eyelid and head motion to one place in the
portrait, and read there once: one resampling, so the only blur is the interpolation's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.graph import NODES
from streamer.messages import F32, U8
from streamer.simulation.facs import MotionField, displace, draw_field, profile

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


@dataclass(frozen=True)
class Injection:
    """One expression to inject. `action_units` as `facs.draw_field` takes them; `peak` in IOD.

    label: objective class "I".."VII", or "macro" for a slow one. hold, residual: see `facs.profile`.
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


@dataclass(frozen=True)
class Clip:
    """What to render. Lengths in IOD, angles in degrees, times in seconds, pixel values 0..255.

    sway_*: amplitude of the slow head motion (sum of two sines, about 0.3 and 0.7 Hz).
    noise: standard deviation of the sensor noise at mid-grey; it grows with the root of the light.
    flicker: relative amplitude of a 100 Hz light's alias at this frame rate (7 Hz here).
    talking: peak of the mouth's speech motion, IOD, between the times of `talk_s`.
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
    noise: float = 2.0
    blur: float = 0.0
    flicker: float = 0.0
    light_drift: float = 0.0
    blinks_s: tuple[float, ...] = ()
    blink_length_s: float = 0.2
    talking: float = 0.0
    talk_s: tuple[float, float] = (0.0, 0.0)
    injections: tuple[Injection, ...] = ()
    time_jitter: float = 0.0
    seed: int = 0
    centre: tuple[float, float] = (0.5, 0.42)


@numba.njit(cache=True)
def _depth(x: float, y: float) -> float:
    """Depth of the skin towards the camera, IOD: an ellipsoidal head with a nose (rough anatomy)."""
    e = (x / 1.3) ** 2 + ((y - 0.35) / 1.9) ** 2
    head = math.sqrt(1.0 - e) if e < 0.98 else math.sqrt(0.02)
    near_nose = ((x / 0.20) ** 2 + ((y - 0.62) / 0.22) ** 2) / 2
    nose = 0.42 * math.exp(-near_nose) if near_nose < 12.0 else 0.0
    return 1.1 * head - 1.1 + nose


@numba.njit(cache=True)
def _trace(
    to_face: F64,
    to_still: F64,
    turn: F64,
    bumps: F64,
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
            if bumps.shape[0]:
                px, py = sx, sy
                for _ in range(3):
                    dx, dy = displace(sx, sy, bumps)
                    sx, sy = px - dx, py - dy
            if closure > 0.0:
                for eye in range(2):
                    if lid_x[eye, 0] < sx < lid_x[eye, -1]:
                        up = np.interp(sx, lid_x[eye], lid_up[eye])
                        low = np.interp(sx, lid_x[eye], lid_low[eye])
                        crease = up - 0.14
                        edge = up + closure * (low - up)
                        if crease < sy < edge:
                            sy = crease + (sy - crease) * (up - crease) / (edge - crease)
            map_x[row, column] = to_still[0, 0] * sx + to_still[0, 1] * sy + to_still[0, 2]
            map_y[row, column] = to_still[1, 0] * sx + to_still[1, 1] * sy + to_still[1, 2]


class Renderer:
    """Renders `clip` of `portrait`; `frames()` gives (time_s, image), `truth()` what was injected."""

    def __init__(self, portrait: Portrait, clip: Clip) -> None:
        self.portrait, self.clip = portrait, clip
        rng = np.random.default_rng(clip.seed)
        self._phase = rng.uniform(0, 2 * math.pi, (12,))
        self._rate = rng.uniform(0.8, 1.25, (12,))
        self._fields: list[MotionField] = [
            draw_field(i.action_units, rng, i.variation)
            .adapted(portrait.nodes)
            .with_peak(portrait.nodes, i.peak)
            for i in clip.injections
        ]
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
        return 0.65 * math.sin(2 * math.pi * 0.30 * self._rate[a] * t + self._phase[a]) + 0.35 * math.sin(
            2 * math.pi * 0.70 * self._rate[b] * t + self._phase[b]
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

    def bumps(self, t: float) -> F64:
        """(M, 5) all skin motion at time t."""
        rows = []
        for injection, motion in zip(self.clip.injections, self._fields, strict=True):
            level = profile(
                t, injection.onset_s, injection.apex_s, injection.offset_s, injection.residual, injection.hold
            )
            if level:
                rows.append(motion.scaled(level).bumps)
        start, end = self.clip.talk_s
        if self.clip.talking and start <= t < end:
            for k, motion in enumerate(self._speech):
                syllables = math.sin(2 * math.pi * (4.1 - k) * t + k) * math.sin(
                    2 * math.pi * 0.45 * t + 2 * k
                )
                rows.append(motion.scaled(self.clip.talking * max(0.0, syllables)).bumps)
        return np.concatenate(rows) if rows else np.zeros((0, 5))

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
            self.bumps(t),
            closure,
            self._lid_x,
            self._lid_up,
            self._lid_low,
            map_x,
            map_y,
        )
        image = cv2.remap(
            self.portrait.image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        if c.blur:
            image = cv2.GaussianBlur(image, (0, 0), c.blur)
        gain = 1 + c.flicker * math.sin(2 * math.pi * 7 * t) + c.light_drift * self._wave(t, 1)
        light = image.astype(np.float32) * gain
        if c.noise:
            sigma = c.noise * np.sqrt((light + 16) / 144)
            light += sigma * self._noise.standard_normal(light.shape, np.float32)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)

    def frames(self) -> Iterator[tuple[float, U8]]:
        """All frames in order: (time_s, image)."""
        for t in self.times:
            yield float(t), self.frame(float(t))

    def truth(self) -> list[dict[str, object]]:
        """One dict an injection: onset/apex/offset (frame and time_s), label, action_units, peak."""

        def key(t: float) -> dict[str, float]:
            return {"frame": int(np.argmin(np.abs(self.times - t))), "time_s": round(t, 6)}

        return [
            {
                "onset": key(i.onset_s),
                "apex": key(i.apex_s),
                "offset": key(i.offset_s),
                "label": i.label,
                "action_units": sorted(i.action_units),
                "peak": i.peak,
            }
            for i in self.clip.injections
        ]
