"""A simulated CASME II or SAMM: the original's folders, names, sheet, subjects, class counts and frame rate.

    python -m train simulate --like casme2 --out out/casme2-simulated

Whoever has no licence for a database can run everything that needs one on this. The faces are still
portraits of two people in the public domain, each warped, mirrored, lit and textured into several
"subjects"; their skin is moved by the action units of `streamer.simulation.facs`. Nobody performed any of
it, and the tree says so: README.md, and `simulated.json`, by which everything made from it is marked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from streamer.config import TrackingConfig
from streamer.errors import OutputError, UsageError
from streamer.fetching import write_whole
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8
from streamer.simulation.facs import MotionField
from streamer.simulation.portraits import IMAGES, portrait
from streamer.simulation.render import Clip, Injection, Portrait, Renderer
from streamer.tracking import MediaPipeTracker
from train.datasets.sample import SIMULATED_MARK
from train.processes import run_jobs
from train.simulated_plan import LIKES, Performance, plan, write_sheets

JPEG_QUALITY = 95

README = """# Simulated {like}

**Simulated: nobody performed what these images show.** They were rendered from two portraits in the
public domain (Eileen Collins, NASA; Grace Hopper, US Navy), warped into {subjects} "subjects", whose skin is
moved as the Facial Action Coding System describes. Folders, names, sheets, counts and frame rate are those
of {like}; no image, no annotation and no person of it is in here. {frames}

What a method scores on this says nothing about people. Made with

    python -m train simulate {flags}
"""


@dataclass(frozen=True)
class SimulateDatabaseConfig:
    """Write a simulated database in the original's format. Goes on where an interrupted run stopped."""

    out: Path
    """Folder for the tree; new, or of an interrupted run."""
    like: Literal["casme2", "samm"] = "casme2"
    """Which database's format, subjects, class counts and frame rate."""
    seed: int = 0
    """Of everything drawn."""
    peak: tuple[float, float] = (0.006, 0.025)
    """Peak displacement of the most moved node, inter-ocular distances; drawn log-uniformly."""
    variation: float = 1.0
    """How far action units differ between expressions; 1 = as between people (streamer.simulation.facs)."""
    key_frames_only: bool = False
    """Write onset, apex and offset alone: ten times faster, but no apex can be found, no motion followed."""
    clips: int | None = None
    """Only so many clips, the first of the sheet."""
    workers: int = 2
    """Processes."""


@dataclass(frozen=True)
class Subject:
    """One simulated person: a face, and the camera in front of it. Lengths as in `render.Clip`."""

    portrait: Portrait
    iod_px: float
    noise: float
    light_drift: float


PORTRAIT_IOD_PX = 120.0
_SPAN, _ORIGIN = (4.4, 5.0), (2.2, 1.7)  # of a subject's portrait, IOD: size, and where the eyes' middle is

_SHAPE = ((0.26, -0.32), (0.80, -0.30), (0.50, 0.0), (0.25, 0.68), (0.44, 1.04), (0.62, 0.45), (0.90, 1.20))
_MIDDLE = ((0.0, -0.04), (0.0, 0.67), (0.0, 0.98), (0.0, 1.22), (0.0, 1.70))
"""Places (face frame, IOD) by whose shifts faces differ; the first are mirrored."""


def draw_subject(rng: np.random.Generator, stills: Sequence[Portrait], tracker: MediaPipeTracker) -> Subject:
    """A subject made from one of the `stills`: other proportions, side, skin, tone and light.

    Raises:
        UsageError: the landmark model sees no face in it.
    """
    still = stills[int(rng.integers(len(stills)))]
    image = _warped(still, _draw_shape(rng), mirrored=bool(rng.random() < 0.5))
    image = _skin(rng, image)
    faces = tracker.detect(image)
    if not faces:
        raise UsageError("a simulated subject shows the landmark model no face: take another --seed")
    return Subject(
        Portrait(image, faces[0]),
        iod_px=float(rng.uniform(100.0, 120.0)),
        noise=float(rng.uniform(1.0, 3.0)),
        light_drift=float(rng.uniform(0.0, 0.02)),
    )


def _draw_shape(rng: np.random.Generator) -> MotionField:
    """How a face differs from the portrait: a smooth shift of about 0.04 IOD, nearly symmetric."""
    rows = []
    for x, y in _SHAPE:
        dx, dy = rng.normal(0.0, 0.04, 2)
        for half in (-1, 1):
            a, b = rng.normal(0.0, 0.008, 2)
            rows.append((half * x, y, half * dx + a, dy + b, rng.uniform(0.25, 0.4)))
    for x, y in _MIDDLE:
        rows.append((x, y, rng.normal(0.0, 0.01), rng.normal(0.0, 0.04), rng.uniform(0.25, 0.4)))
    return MotionField(np.array(rows, np.float64))


def _warped(still: Portrait, shape: MotionField, mirrored: bool) -> U8:
    """The still at `PORTRAIT_IOD_PX`, its face in the middle, warped by `shape`."""
    width, height = (round(span * PORTRAIT_IOD_PX) for span in _SPAN)
    x, y = np.meshgrid(
        np.arange(width) / PORTRAIT_IOD_PX - _ORIGIN[0], np.arange(height) / PORTRAIT_IOD_PX - _ORIGIN[1]
    )
    places = np.column_stack([x.ravel(), y.ravel()])
    sources = places - shape.at(places)
    if mirrored:
        sources[:, 0] *= -1
    pixels = sources @ still.pose[:2, :2].T + still.pose[:2, 2]
    maps = pixels.astype(np.float32).reshape(height, width, 2)
    image = cv2.remap(still.image, maps, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return np.asarray(image, np.uint8)


def _skin(rng: np.random.Generator, image: U8) -> U8:
    """Another tone, light from one side, and fine texture that the enlarged still lacks."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = 1 + rng.uniform(-0.15, 0.15) * (x / width - 0.5) + rng.uniform(-0.1, 0.1) * (y / height - 0.5)
    texture = cv2.GaussianBlur(
        rng.normal(size=(height, width)).astype(np.float32), (0, 0), rng.uniform(0.7, 1.3)
    )
    texture *= rng.uniform(2.0, 5.0) / texture.std()
    tone = 255 * (image.astype(np.float32) / 255) ** rng.uniform(0.75, 1.3)
    tone *= rng.uniform(0.93, 1.07, 3).astype(np.float32)
    return np.clip(tone * light[..., None] + texture[..., None], 0, 255).astype(np.uint8)


def render_clip(
    subject: Subject, performance: Performance, config: SimulateDatabaseConfig
) -> Iterator[tuple[int, U8]]:
    """(number, image) of a clip's frames, from its onset to its offset; (H, W, 3) BGR."""
    like = LIKES[config.like]
    start = performance.onset - 1  # image 1 is at time 0
    onset, apex, offset = (
        (number - 1) / like.fps for number in (performance.onset, performance.apex, performance.offset)
    )
    rng = np.random.default_rng(performance.seed)
    blinks = (float(rng.uniform(onset, offset)),) if rng.random() < 0.1 else ()
    injection = Injection(
        performance.activation,
        onset,
        apex,
        offset,
        performance.peak,
        performance.objective,
        hold=performance.hold,
        residual=performance.residual,
        variation=config.variation,
        asymmetry=performance.asymmetry,
    )
    clip = Clip(
        fps=like.fps,
        duration_s=offset + 2 / like.fps,
        width=like.width,
        height=like.height,
        iod_px=subject.iod_px * like.iod,
        sway=0.03,
        sway_roll=1.0,
        sway_yaw=2.0,
        sway_pitch=1.5,
        noise=subject.noise,
        light_drift=subject.light_drift,
        blinks_s=blinks,
        injections=(injection,),
        seed=performance.seed,
        centre=like.centre,
    )
    renderer = Renderer(subject.portrait, clip)
    wanted: Sequence[int] = range(start, performance.offset)
    if config.key_frames_only:
        wanted = sorted({start, performance.apex - 1, performance.offset - 1})
    for index in wanted:
        yield index + 1, renderer.frame(index / like.fps)


def write_clip(subject: Subject, performance: Performance, config: SimulateDatabaseConfig) -> str:
    """Render a clip into its folder, whole or not at all; returns the clip's name."""
    cv2.setNumThreads(1)
    like = LIKES[config.like]
    folder = config.out / performance.folder
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, image in render_clip(subject, performance, config):
        picture = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if like.grey else image
        done, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert done
        (partial / performance.image_name.format(number)).write_bytes(coded.tobytes())
    partial.replace(folder)
    return performance.clip


def _begin(config: SimulateDatabaseConfig, performances: Sequence[Performance]) -> None:
    """Write sheets, README and the mark, or check that they are this very database's.

    Raises:
        UsageError: the folder holds something else.
    """
    mark = {
        "simulated": True,
        "like": config.like,
        "settings": {k: v for k, v in asdict(config).items() if k not in ("out", "workers", "like")},
        "truth": [performance.truth() for performance in performances],
    }
    text = json.dumps(mark, indent=1) + "\n"
    path = config.out / SIMULATED_MARK
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{config.out} holds a simulated database made with other settings: give the same, or "
                f"another --out"
            )
        if (config.out / "README.md").is_file():
            return
    elif config.out.exists() and any(config.out.iterdir()):
        raise UsageError(f"{config.out} is not empty and no simulated database: give another --out")
    like = LIKES[config.like]
    flags = f"--like {config.like} --seed {config.seed} --peak {config.peak[0]:g} {config.peak[1]:g}"
    flags += f" --variation {config.variation:g}" + (" --key-frames-only" if config.key_frames_only else "")
    flags += f" --clips {config.clips}" if config.clips is not None else ""
    readme = README.format(
        like=like.name,
        subjects=len({performance.subject for performance in performances}),
        frames=(
            "Each clip is its three key frames alone."
            if config.key_frames_only
            else "Each clip is whole, from onset to offset."
        ),
        flags=f"{flags} --out DIR",
    )
    config.out.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())  # first: from here on it counts as begun, and simulated
    write_sheets(config.like, config.out, performances)
    write_whole(config.out / "README.md", readme.encode())  # last: the sheets are there


def simulate_database(config: SimulateDatabaseConfig) -> int:
    """Write the database, or what of it is not there yet; returns the number of clips.

    Raises:
        UsageError: a setting is wrong, or `out` holds something else. OutputError: it cannot be written.
    """
    if not 0 < config.peak[0] <= config.peak[1] <= 0.1:
        raise UsageError(f"--peak is {config.peak[0]:g} {config.peak[1]:g}: must be above 0, at most 0.1")
    if config.workers < 1 or (config.clips is not None and config.clips < 1):
        raise UsageError("--workers and --clips must be at least 1")
    if config.seed < 0:
        raise UsageError("--seed must be at least 0")
    performances = plan(config.like, config.seed, config.peak)[: config.clips]
    try:
        _begin(config, performances)
        left = [p for p in performances if not (config.out / p.folder).is_dir()]
        if left:
            _write(config, left, len(performances))
    except OSError as error:
        raise OutputError(
            f"{config.out} cannot be written ({error.strerror}): free space, then give the same command again"
        ) from error
    return len(performances)


def _write(config: SimulateDatabaseConfig, left: Sequence[Performance], total: int) -> None:
    """Render the clips that are left; a subject's look depends on the seed and the subject alone."""
    names = sorted({performance.subject for performance in left})
    tracker = MediaPipeTracker(find_landmarker(None), TrackingConfig())
    try:
        stills = [portrait(name) for name in IMAGES]
        subjects = {
            name: draw_subject(np.random.default_rng((config.seed, 1, int(name))), stills, tracker)
            for name in names
        }
    finally:
        tracker.close()
    with tqdm(total=total, initial=total - len(left), desc="simulating", unit="clip") as bar:
        jobs = [(subjects[performance.subject], performance, config) for performance in left]
        for _ in run_jobs(write_clip, jobs, config.workers):
            bar.update()
