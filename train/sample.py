"""The bundled sample clip: a simulated person, made from a public-domain portrait.

    python -m train sample                       # streamer/data/sample.mp4 and sample.json, as shipped
    python -m train sample --fps 200 --out x.mp4 # the same person and expressions at another frame rate

Twenty seconds with head sway, sensor noise, blinks and seven injected micro-expressions over the five
classes I to V. The truth lies beside the clip. Nothing in it was performed by a person.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from streamer.errors import UsageError
from streamer.simulation.portraits import IMAGES, portrait
from streamer.simulation.render import Clip, Injection, Renderer

SHIPPED = Path(__file__).parent.parent / "streamer" / "data" / "sample.mp4"

INJECTIONS = (
    Injection({"AU6": 0.5, "AU12": 1.0}, 2.00, 2.20, 2.42, 0.020, "I"),
    Injection({"AU4": 1.0, "AU7": 0.5}, 4.60, 4.78, 4.98, 0.018, "III"),
    Injection({"AU1": 1.0, "AU2": 0.9}, 7.30, 7.47, 7.66, 0.018, "II", residual=0.10),
    Injection({"AU9": 1.0}, 10.00, 10.20, 10.44, 0.015, "IV"),
    Injection({"AU15": 1.0}, 12.50, 12.72, 12.92, 0.015, "V", residual=0.15),
    Injection({"AU12": 1.0}, 15.10, 15.24, 15.42, 0.014, "I"),
    Injection({"AU10": 1.0}, 17.60, 17.80, 18.02, 0.020, "IV", residual=0.05),
)
BLINKS_S = (1.10, 3.60, 5.90, 8.60, 11.40, 13.90, 16.40, 19.00)


@dataclass(frozen=True)
class SampleConfig:
    """Make the sample clip, or a variant of it."""

    out: Path = SHIPPED
    """The clip; its truth goes beside it with the ending .json."""
    portrait: str = "astronaut"
    """Whose face: astronaut or hopper."""
    fps: float = 30.0
    """Frame rate."""
    iod_px: float = 110.0
    """Inter-ocular distance, pixels; the frame grows with it beyond 130."""
    noise: float = 2.0
    """Standard deviation of the sensor noise at mid-grey, of 255."""
    crf: int = 17
    """Quality of the H.264 encoding (lower is better)."""
    seed: int = 2026
    """Seed of head motion and noise."""


def sample_renderer(config: SampleConfig) -> Renderer:
    """The simulated person of a sample clip.

    Raises:
        KeyError: unknown portrait.
    """
    grow = max(1.0, config.iod_px / 130.0)
    clip = Clip(
        fps=config.fps,
        duration_s=20.0,
        width=round(640 * grow / 2) * 2,
        height=round(480 * grow / 2) * 2,
        iod_px=config.iod_px,
        noise=config.noise,
        blinks_s=BLINKS_S,
        injections=INJECTIONS,
        seed=config.seed,
    )
    return Renderer(portrait(config.portrait), clip)


def write_clip(renderer: Renderer, out: Path, crf: int) -> None:
    """Encode a rendered clip as H.264 with exact time stamps, and its truth beside it."""
    clip = renderer.clip
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "slow", "threads": "1"}
        stream.time_base = Fraction(1, 90000)
        for time_s, image in tqdm(renderer.frames(), total=len(renderer.times), desc=out.name, unit="frame"):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            frame.pts, frame.time_base = round(time_s * 90000), stream.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    truth = {
        "simulated": True,
        "iod_px": clip.iod_px,
        "expressions": renderer.truth(),
        "blinks": [round(t, 6) for t in clip.blinks_s],
    }
    out.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def make_sample(config: SampleConfig) -> Path:
    """Render and write one sample clip; returns its path.

    Raises:
        UsageError: unknown portrait.
    """
    if config.portrait not in IMAGES:
        raise UsageError(f"--portrait: {config.portrait!r} is unknown; known: {', '.join(IMAGES)}")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_clip(sample_renderer(config), config.out, config.crf)
    return config.out
