"""How well expressions are spotted and named, beside what a user would build without this project.

    python -m streamer.bench spotting                                   # some minutes
    python -m streamer.bench spotting --scale full --out docs/benchmarks/spotting.json
    python -m streamer.bench spotting --axes displacement noise --no-peers
    python -m streamer.bench spotting --axes real --source my_clips/    # your own footage

Expressions are simulated: action units move the skin of still faces and of real footage, so the truth is
exact. Every clip is an encoded file that goes through the program as a user's file would. Clips, and each
detector's events of each clip, are kept in the cache: a second run, or one that goes on after an
interruption, makes only what is missing or has changed.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import hashlib
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from streamer.bench import report
from streamer.bench.clips import (
    ROOT,
    Description,
    Encoding,
    RenderedClip,
    code_digest,
    file_digest,
    make_clip,
    read_json,
    write_json,
)
from streamer.config import Config
from streamer.engine import Engine, load_engine
from streamer.errors import StreamerError, UsageError
from streamer.events import to_dict
from streamer.fetching import cache_folder
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8, Frame
from streamer.pipeline import Recogniser, warm_up
from streamer.simulation.expressions import ExpressionStyle, draw_blinks, draw_sequence
from streamer.simulation.render import Clip
from streamer.simulation.scoring import Comparison, compare, figures
from streamer.sources import open_source
from streamer.tracking import MediaPipeTracker

log = logging.getLogger(__name__)

PACKAGES = ("av", "mediapipe", "numba", "numpy", "onnxruntime", "opencv-contrib-python")

STYLES: dict[str, ExpressionStyle] = {"tuning": ExpressionStyle()}
"""How each set's expressions are drawn."""

PORTRAITS: dict[str, tuple[str, ...]] = {"tuning": ("astronaut", "hopper")}


@dataclass(frozen=True)
class Conditions:
    """Under what a point of an axis is filmed: one thing differs from the base.

    peak: displacement of the most moved node at the apex, IOD; 0 injects nothing. iod_px: pixels between
    the eyes, None draws 80 to 150 for each clip. noise ... talking: see `Clip`.
    """

    peak: float = 0.01
    iod_px: float | None = None
    fps: float = 30.0
    noise: float = 2.0
    blur: float = 0.0
    codec: Literal["libx264", "mjpeg"] = "libx264"
    quality: int = 20
    flicker: float = 0.0
    banding: float = 0.0
    yaw: float = 4.0
    pitch: float = 3.0
    rate: float = 1.0
    talking: float = 0.0
    length_s: tuple[float, float] = (0.2, 0.5)


BASE = Conditions()


@dataclass(frozen=True)
class Point:
    """One point of an axis: what it is called, where it lies on the axis, and its conditions."""

    name: str
    value: float
    conditions: Conditions


@dataclass(frozen=True)
class Axis:
    """What is varied. quick: names of the points of the quick scale. kind: what is counted.

    seconds, clips: of the quick and of the full scale.
    """

    title: str
    unit: str
    points: tuple[Point, ...]
    quick: tuple[str, ...]
    kind: Literal["micro", "slow", "uninjected"] = "micro"
    seconds: tuple[float, float] = (16.0, 30.0)
    clips: tuple[int, int] = (2, 2)


def _points(name: str, values: Sequence[float], scale: float = 1.0, **others: Any) -> tuple[Point, ...]:
    """The base with the condition `name` at each of `values`, times `scale`."""
    return tuple(
        Point(f"{value:g}", value, replace(BASE, **{name: round(value * scale, 9)}, **others))
        for value in values
    )


AXES: dict[str, Axis] = {
    "displacement": Axis(
        "peak displacement",
        "% of the inter-ocular distance",
        _points("peak", (0.25, 0.5, 0.75, 1, 1.5, 2, 3), 0.01),
        quick=("0.5", "1", "2"),
        seconds=(30.0, 30.0),
        clips=(2, 4),
    ),
}


@dataclass(frozen=True)
class SpottingBenchConfig:
    """Measure spotting and naming on simulated expressions."""

    scale: Literal["quick", "full"] = "quick"
    """quick: some minutes, few expressions a point. full: what docs/benchmarks shows."""
    axes: tuple[str, ...] = ()
    """Only these axes, by name; none means all."""
    source: tuple[Path, ...] = ()
    """Clips, or folders of clips, that get expressions injected like the real footage."""
    sets: Literal["tuning", "held-out", "all"] = "all"
    """Faces, footage and action units: those that tuning may look at, those it may not, or both."""
    peers: bool = True
    """Run other detectors on the same frames."""
    cache: Path | None = None
    """Where clips and results are kept (default: in the user's cache folder)."""
    workers: int = 2
    """Processes."""
    engine: str = "gtsgn-simulated"
    """Engine name or path."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    out: Path | None = None
    """Write the figures here as JSON, and beside it the report (.md) and plots (.png)."""
    seed: int = 0
    """Seed of all that is drawn."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.axes if name not in AXES]
        if unknown:
            raise UsageError(f"--axes: {', '.join(unknown)} is unknown; known: {', '.join(AXES)}")
        if self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; must be at least 1")


@dataclass(frozen=True)
class Job:
    """One clip of one point, and who is to be run on it."""

    axis: str
    point: str
    value: float
    set_name: str
    number: int
    description: Description
    peers: bool

    @property
    def cost(self) -> float:
        """Frames: what the time left is reckoned with."""
        if isinstance(self.description, RenderedClip):
            clip = self.description.clip
            return clip.duration_s * clip.fps * (1 + 1.5 * self.peers)
        return 100.0 * (3 + 1.5 * self.peers)


def rendered(
    conditions: Conditions, portrait: str, style: ExpressionStyle, seconds: float, seed: Sequence[int]
) -> RenderedClip:
    """A clip of `seconds` of a still face; equal arguments describe equal clips.

    Motion, blinks, times and kinds of the expressions depend on the seed alone, so that the points of an axis
    differ in their conditions and in nothing else.
    """
    rng = np.random.default_rng(list(seed))
    iod_px = float(rng.uniform(80, 150))
    blinks = draw_blinks(rng, seconds)
    injections = ()
    if conditions.peak:
        style = replace(style, length_s=conditions.length_s)
        apart_s = (2.5, 4.0) if conditions.length_s[1] <= 0.5 else (4.5, 6.0)
        injections = draw_sequence(rng, seconds, conditions.peak, style, apart_s)
    iod_px = round(conditions.iod_px or iod_px, 1)
    grow = max(1.0, iod_px / 150.0)  # a larger face in a larger picture, so that all of it is seen
    clip = Clip(
        fps=conditions.fps,
        duration_s=seconds,
        width=round(640 * grow / 2) * 2,
        height=round(480 * grow / 2) * 2,
        iod_px=iod_px,
        sway_yaw=conditions.yaw,
        sway_pitch=conditions.pitch,
        sway_rate=conditions.rate,
        noise=conditions.noise,
        blur=conditions.blur,
        flicker=conditions.flicker,
        banding=conditions.banding,
        blinks_s=blinks,
        talking=conditions.talking,
        talk_s=(round(seconds / 3, 3), round(seconds * 2 / 3, 3)),
        injections=injections,
        seed=int(rng.integers(2**31)),
    )
    return RenderedClip(portrait, clip, Encoding(conditions.codec, conditions.quality))


def plan(config: SpottingBenchConfig) -> list[Job]:
    """Every clip of the run."""
    full = config.scale == "full"
    jobs: list[Job] = []
    for name, axis in AXES.items():
        if config.axes and name not in config.axes:
            continue
        for set_name in ("tuning", "held-out"):
            if config.sets not in ("all", set_name) or set_name not in STYLES:
                continue
            for point in axis.points:
                if not full and point.name not in axis.quick:
                    continue
                for number in range(axis.clips[full]):
                    seed = (config.seed, zlib.crc32(f"{set_name} {name}".encode()), number)
                    faces = PORTRAITS[set_name]
                    clip = rendered(
                        point.conditions,
                        faces[number % len(faces)],
                        STYLES[set_name],
                        axis.seconds[full],
                        seed,
                    )
                    jobs.append(Job(name, point.name, point.value, set_name, number, clip, config.peers))
    return jobs


# --- Running -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know. digests: of what each detector is made of, by its name."""

    cache: Path
    engine: str
    landmarker: Path
    digests: dict[str, str]


def recognise(path: Path, config: Config, tracker: MediaPipeTracker, engine: Engine) -> list[dict[str, Any]]:
    """The events of `python -m streamer --source path`, all but the first (stream_started) and the last."""
    recogniser = Recogniser(config, tracker, engine)
    events: list[dict[str, Any]] = []
    with open_source(replace(config, source=str(path))) as source:
        for message in source.frames():
            if isinstance(message, Frame):
                events += [to_dict(event) for event in recogniser.process(message)[0]]
    return events


def frames_of(path: Path) -> Iterator[tuple[float, U8]]:
    """(time_s, BGR image) of a clip, as the recogniser gets them."""
    with open_source(Config(source=str(path))) as source:
        for message in source.frames():
            if isinstance(message, Frame):
                yield message.time_s, message.image


class _Worker:
    """The models of a worker process, loaded once."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.engine = load_engine(setup.engine, "cpu")
        self.tracker = MediaPipeTracker(setup.landmarker, Config().tracking)
        warm_up(Config(), self.engine)
        # What this process has loaded must be what the results are filed under.
        self.stale = digests(setup.engine, setup.landmarker, "peers" in setup.digests) != setup.digests

    def work(self, job: Job) -> dict[str, Any]:
        """The clip's truth, and the events of each detector by its name."""
        if self.stale:
            raise UsageError("the program was changed while the benchmark started: start it again")
        path = make_clip(job.description, self.setup.cache, self.setup.landmarker)
        result = {"truth": read_json(path.with_suffix(".json")), "events": {}}
        result["events"]["streamer"] = self._kept(path, "streamer", lambda: self._ours(path))
        if job.peers:
            result["events"] |= self._kept(path, "peers", lambda: self._peers(path))
        return result

    def _kept(self, path: Path, name: str, make: Any) -> Any:
        kept = path.with_name(f"{path.stem}.{name}.{self.setup.digests[name][:16]}.json")
        value = read_json(kept)
        if value is None:
            value = make()
            write_json(kept, value)
        return value

    def _ours(self, path: Path) -> list[dict[str, Any]]:
        return recognise(path, Config(), self.tracker, self.engine)

    def _peers(self, path: Path) -> dict[str, list[dict[str, Any]]]:
        from streamer.bench.peers import run_peers

        return {
            name: [
                {
                    "type": "micro_expression",
                    "onset": {"time_s": event.onset_s},
                    "apex": {"time_s": event.apex_s},
                    "offset": {"time_s": event.offset_s},
                    "label": event.label,
                }
                for event in events
            ]
            for name, events in run_peers(frames_of(path), self.setup.landmarker).items()
        }


_worker: _Worker | None = None


def _start(setup: Setup) -> None:
    """Set a worker process up."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _worker = _Worker(setup)


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended, however that came."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work(job: Job) -> dict[str, Any]:
    assert _worker is not None
    return _worker.work(job)


def digests(engine: str, landmarker: Path, peers: bool) -> dict[str, str]:
    """Hash of everything that determines a detector's events: code, models, settings, libraries."""
    apart = ("bench", "simulation")
    live = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in apart]
    loaded = load_engine(engine, "cpu")
    try:
        model = repr(loaded.manifest)  # it holds the hash of each of the engine's files
    finally:
        loaded.close()
    versions = [version(name) for name in PACKAGES]
    common = [file_digest(landmarker), *versions]
    parts = {"streamer": [code_digest(live), model, repr(Config()), *common]}
    if peers:
        parts["peers"] = [code_digest([ROOT / "bench" / "peers.py"]), *common]
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}


def run_jobs(jobs: Sequence[Job], setup: Setup, workers: int) -> list[dict[str, Any]]:
    """Results in the order of the jobs; progress on standard error.

    Raises:
        StreamerError: a clip could not be made or a detector could not run.
    """
    results: list[dict[str, Any]] = [{} for _ in jobs]
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start, (setup,)
    )
    bar = tqdm(total=round(sum(job.cost for job in jobs)), unit="frame", unit_scale=True, smoothing=0.1)
    try:
        # The longest first: the end is then even.
        order = sorted(range(len(jobs)), key=lambda k: -jobs[k].cost)
        futures = {executor.submit(_work, jobs[k]): k for k in order}
        for future in concurrent.futures.as_completed(futures):
            k = futures[future]
            results[k] = future.result()
            bar.set_postfix_str(f"{jobs[k].axis} {jobs[k].point}")
            bar.update(round(jobs[k].cost))
    except concurrent.futures.process.BrokenProcessPool as error:
        raise StreamerError(
            "a worker of the benchmark ended unexpectedly (out of memory?): start it again with --workers 1; "
            "what is finished is kept"
        ) from error
    finally:
        bar.close()
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
    return results


def results_by_point(jobs: Sequence[Job], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of each detector at each point of each axis and set, in the order of the jobs."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for k, job in enumerate(jobs):
        groups.setdefault((job.axis, job.set_name, job.point), []).append(k)
    rows = []
    for (axis, set_name, point), members in groups.items():
        detectors: dict[str, list[Comparison]] = {}
        for k in members:
            truth = results[k]["truth"]
            for name, events in results[k]["events"].items():
                comparison = compare(
                    events,
                    truth["expressions"],
                    truth["duration_s"],
                    truth["blinks"],
                    truth["blink_length_s"],
                )
                detectors.setdefault(name, []).append(comparison)
        rows.append(
            {
                "axis": axis,
                "set": set_name,
                "point": point,
                "value": jobs[members[0]].value,
                "clips": len(members),
                "detectors": {name: figures(comparisons) for name, comparisons in detectors.items()},
            }
        )
    return rows


def bench_spotting(config: SpottingBenchConfig) -> str:
    """Measure, write the files of `config.out`; returns the report as Markdown."""
    landmarker = find_landmarker(config.landmarker)
    cache = config.cache or cache_folder() / "spotting"
    jobs = plan(config)
    setup = Setup(cache, config.engine, landmarker, digests(config.engine, landmarker, config.peers))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_jobs(jobs, setup, config.workers)
    finally:
        signal.signal(signal.SIGTERM, previous)
    rows = results_by_point(jobs, results)
    return report.tables(rows)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the benchmark as Ctrl-C does."""
    raise KeyboardInterrupt
