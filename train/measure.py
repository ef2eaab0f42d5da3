"""What the tracker makes of a known motion: attenuation, noise and cross-talk of every node.

Portraits are animated with known action units, measured by the live program's own registration, and
compared with the truth. The result, `train/tracker_noise.json`, makes the simulated training data look
the way the live program will see real expressions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from streamer.config import MotionConfig, TrackingConfig
from streamer.kernels.windows import amplitudes
from streamer.landmarker_model import find_landmarker
from streamer.messages import Face, Frame
from streamer.motion import MotionMeter
from streamer.simulation.facs import profile
from streamer.simulation.portraits import portrait
from streamer.simulation.render import Clip, Injection, Renderer
from streamer.tracking import MediaPipeTracker
from train.combinations import COMBINATIONS

NOISE_FILE = Path(__file__).with_name("tracker_noise.json")
REFERENCE_IOD_PX = 110.0
FPS = 30.0
EVENTS = 9
"""Expressions a clip: one every two seconds, each with its quiet second beside it."""


@dataclass(frozen=True)
class Setting:
    """One clip to measure: whose portrait, how large, how noisy."""

    portrait: str
    iod_px: float
    noise: float


SETTINGS = tuple(
    Setting(name, iod_px, noise)
    for name in ("astronaut", "hopper")
    for iod_px, noise in ((60.0, 2.0), (110.0, 2.0), (110.0, 4.0), (160.0, 2.0))
)


def _injections(rng: np.random.Generator) -> tuple[Injection, ...]:
    combinations = [units for rows in COMBINATIONS.values() for units, _ in rows]
    chosen = []
    for k in range(EVENTS):
        units = {
            f"AU{u.lstrip('LR')}" if u[0] not in "LR" else u: float(rng.uniform(0.6, 1.0))
            for u in str(rng.choice(combinations)).split("+")
        }
        length, start = rng.uniform(0.25, 0.5), 1.5 + 2.0 * k
        peak = float(rng.choice([0.01, 0.02, 0.03]))
        chosen.append(
            Injection(units, start, start + 0.5 * length, start + length, peak, variation=1.0, hold=0.1)
        )
    return tuple(chosen)


def measure_clip(setting: Setting, seed: int, tracker: MediaPipeTracker) -> dict[str, np.ndarray]:
    """Measure one clip.

    Returns:
        true, measured: (E, 28) displacement at the apex, IOD; quiet: (E, 28) what the same estimate
        gives where nothing moves.
    """
    rng = np.random.default_rng(seed)
    size = (640, 480) if setting.iod_px < 130 else (960, 720)
    clip = Clip(
        fps=FPS, duration_s=2.0 * EVENTS + 2.0, width=size[0], height=size[1], iod_px=setting.iod_px,
        noise=setting.noise, injections=_injections(rng), seed=seed,
    )  # fmt: skip
    renderer = Renderer(portrait(setting.portrait), clip)
    meter, config = MotionMeter(MotionConfig()), TrackingConfig()
    displacement, anchored_s = [], float("-inf")
    for index, (time_s, image) in enumerate(renderer.frames()):
        face = None
        if time_s - anchored_s >= config.anchor_interval_s or meter.needs_anchor:
            faces = tracker.detect(image)
            if faces:
                face, anchored_s = Face(index, time_s, faces[0]), time_s
        motion = meter.update(Frame(index, time_s, 0.0, image), face)
        displacement.append(np.full(28, np.nan) if motion is None else motion.displacement.ravel())
    values, times = np.array(displacement, np.float64), renderer.times
    rows: dict[str, list[np.ndarray]] = {"true": [], "measured": [], "quiet": []}
    for injection in clip.injections:
        for shift, key in ((0.0, "measured"), (-1.0, "quiet")):
            onset, apex, offset = (
                t + shift for t in (injection.onset_s, injection.apex_s, injection.offset_s)
            )
            span = (times > onset - 0.15) & (times < offset + 0.15)
            curve = np.array([profile(t, onset, apex, offset, hold=injection.hold) for t in times[span]])
            shares = np.empty(28)
            if np.isfinite(values[span]).all() and amplitudes(times[span], values[span], curve, shares):
                rows[key].append(shares)
                if key == "measured":
                    rows["true"].append(renderer.displacement(injection.apex_s).ravel())
    return {key: np.array(value).reshape(-1, 28) for key, value in rows.items()}


@dataclass(frozen=True)
class MeasureConfig:
    """Measure what the tracker makes of known motion; the simulator reads the result."""

    out: Path = NOISE_FILE
    """Where the figures go."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    repeats: int = 1
    """Clips a setting, each with other expressions."""


def measure(config: MeasureConfig) -> dict[str, object]:
    """Measure every setting `repeats` times and write the figures to `out`."""
    tracker = MediaPipeTracker(find_landmarker(config.landmarker), TrackingConfig())
    true, measured, quiet = [], [], []
    try:
        jobs = [(setting, repeat) for repeat in range(config.repeats) for setting in SETTINGS]
        for number, (setting, _) in enumerate(tqdm(jobs, desc="measuring the tracker", unit="clip")):
            rows = measure_clip(setting, number, tracker)
            true.append(rows["true"])
            measured.append(rows["measured"])
            # A picture twice as large has half the noise in inter-ocular distances.
            quiet.append(rows["quiet"] * setting.iod_px / REFERENCE_IOD_PX)
    finally:
        tracker.close()
    t, m = np.concatenate(true).reshape(-1, 14, 2), np.concatenate(measured).reshape(-1, 14, 2)
    peak = np.hypot(t[..., 0], t[..., 1]).max(1)
    gains = np.full(t.shape[:2], np.nan)
    moving = np.hypot(t[..., 0], t[..., 1]) > 0.4 * peak[:, None]
    gains[moving] = ((t * m).sum(2) / np.maximum((t * t).sum(2), 1e-12))[moving]
    overall = float(np.nanmean(gains))
    seen = np.isfinite(gains).sum(0) >= 5
    mean = np.where(seen, np.nanmean(np.where(seen, gains, overall), 0), overall)
    std = np.where(seen, np.nanstd(np.where(seen, gains, overall), 0), float(np.nanstd(gains)))
    crosstalk = ((m - mean[:, None] * t) / peak[:, None, None]).reshape(-1, 28)
    noise = np.concatenate(quiet)
    result = {
        "samples": len(t),
        "attenuation": {"mean": mean.round(4).tolist(), "std": std.round(4).tolist()},
        "noise_iod": {
            "iod_px": REFERENCE_IOD_PX,
            "reference": "measured on animated portraits (simulated motion, real tracker), train/measure.py:"
            " " + "; ".join(f"{s.portrait} {s.iod_px:.0f} px noise {s.noise:.0f}" for s in SETTINGS),
            "cov": (noise.T @ noise / len(noise)).round(10).tolist(),
        },
        "crosstalk": {"cov_per_peak": (crosstalk.T @ crosstalk / len(crosstalk)).round(8).tolist()},
    }
    config.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
