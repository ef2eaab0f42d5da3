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
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from streamer.bench import report
from streamer.bench.clips import (
    ROOT,
    FootageClip,
    clips_folder,
    code_digest,
    file_digest,
    make_clip,
    read_json,
    write_json,
)
from streamer.bench.pipeline import machine
from streamer.bench.plan import AXES, FOOTAGE, Job, Scope, plan
from streamer.config import Config
from streamer.engine import Engine, load_engine
from streamer.errors import SourceError, StreamerError, UsageError
from streamer.events import to_dict
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8, Frame
from streamer.pipeline import Recogniser, warm_up
from streamer.simulation.footage import fetch_ravdess
from streamer.simulation.scoring import (
    Comparison,
    compare,
    figures,
    reliability,
    slow_figures,
    tradeoff,
)
from streamer.sources import open_source
from streamer.tracking import MediaPipeTracker

log = logging.getLogger(__name__)

PACKAGES = ("av", "mediapipe", "numba", "numpy", "onnxruntime", "opencv-contrib-python")

OURS = "streamer"
"""The recogniser's name among the detectors."""
WIDE = "streamer, all candidates"
"""The recogniser with its sensitivity at its most: what its confidence is judged by."""


@dataclass(frozen=True)
class SpottingBenchConfig:
    """Measure spotting and naming on simulated expressions."""

    scale: Literal["quick", "full"] = "quick"
    """quick: some minutes, few expressions a point. full: every point, for docs/benchmarks."""
    axes: tuple[str, ...] = ()
    """Only these axes, by name; none means all."""
    source: tuple[Path, ...] = ()
    """Clips, or folders of clips, that get expressions injected like the real footage."""
    sets: Literal["tuning", "held-out", "all"] = "all"
    """Faces, footage and action units: those that tuning may look at, those it may not, or both."""
    peers: bool = True
    """Run other detectors on the same frames (axes: displacement and those of real footage)."""
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
    """Seed of all that is drawn, 0 or more."""


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


def all_candidates(config: Config) -> Config:
    """The settings at which every candidate is reported, with its confidence."""
    return replace(config, sensitivity=1.0)


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
        try:
            path = make_clip(job.description, self.setup.cache, self.setup.landmarker)
        except (SourceError, UsageError) as error:
            if not isinstance(job.description, FootageClip):
                raise
            return {"left_out": str(error)}  # a clip that cannot be used does not end the whole run
        result = {"truth": read_json(path.with_suffix(".json")), "events": {}}
        result["events"][OURS] = self._kept(path, OURS, lambda: self._ours(path, Config()))
        wide = all_candidates(Config())
        if wide is not None and job.axis in ("displacement", "uninjected", "real", "real-uninjected"):
            result["events"][WIDE] = self._kept(path, "wide", lambda: self._ours(path, wide))
        if job.peers:
            result["events"] |= self._kept(path, "peers", lambda: self._peers(path))
        return result

    def _kept(self, path: Path, name: str, make: Callable[[], Any]) -> Any:
        digest = self.setup.digests["peers" if name == "peers" else OURS]
        kept = path.with_name(f"{path.stem}.{name}.{digest[:16]}.json")
        value = read_json(kept)
        if value is None:
            value = make()
            write_json(kept, value)
        return value

    def _ours(self, path: Path, config: Config) -> list[dict[str, Any]]:
        return recognise(path, config, self.tracker, self.engine)

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
    live = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in apart]
    loaded = load_engine(engine, "cpu")
    try:
        model = repr(loaded.manifest)  # it holds the hash of each of the engine's files
    finally:
        loaded.close()
    common = [file_digest(landmarker), *(version(name) for name in PACKAGES)]
    parts = {OURS: [_code(live), model, repr(Config()), *common]}
    if peers:
        parts["peers"] = [_code([ROOT / "bench" / "peers.py"]), *common]
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}


def _code(paths: Sequence[Path]) -> str:
    return code_digest(path.read_text(encoding="utf-8") for path in paths)


def run_jobs(jobs: Sequence[Job], setup: Setup, workers: int) -> list[dict[str, Any]]:
    """Results in the order of the jobs; progress on standard error.

    Raises:
        StreamerError: a clip could not be made or a detector could not run.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise StreamerError(f"{error.name} is missing: pip install -e '.[bench]'") from error
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


# --- Figures -------------------------------------------------------------------------------------------


def compared(result: dict[str, Any], name: str) -> Comparison:
    """One detector's events of one clip against the clip's truth."""
    truth = result["truth"]
    return compare(
        result["events"][name],
        truth["expressions"],
        truth["duration_s"],
        truth["blinks"],
        truth["blink_length_s"],
    )


def rows_of(jobs: Sequence[Job], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of each detector at each point of each axis and set, in the order of the jobs."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for k, job in enumerate(jobs):
        if "left_out" not in results[k]:
            groups.setdefault((job.axis, job.set_name, job.point), []).append(k)
    rows = []
    for (axis, set_name, point), members in groups.items():
        job, clips = jobs[members[0]], [results[k] for k in members]
        row: dict[str, Any] = {
            "axis": axis,
            "set": set_name,
            "point": point,
            "value": job.value,
            "kind": job.kind,
            "clips": len(members),
            "detectors": {},
        }
        for name in clips[0]["events"]:
            if name == WIDE:
                continue
            comparisons = [compared(clip, name) for clip in clips]
            if job.kind == "slow":
                truths = [clip["truth"]["expressions"] for clip in clips]
                row["detectors"][name] = slow_figures([clip["events"][name] for clip in clips], truths)
                continue
            row["detectors"][name] = figures(comparisons)
            activities = sorted({activity for clip in clips for activity in clip["truth"]["activity"]})
            if activities and any(clip["truth"]["activity"][a] for clip in clips for a in activities):
                row["detectors"][name]["during"] = {
                    activity: figures(
                        [
                            comparison.within(clip["truth"]["activity"][activity])
                            for comparison, clip in zip(comparisons, clips, strict=True)
                        ]
                    )
                    for activity in activities
                }
        rows.append(row)
    return rows


def confidence_of(jobs: Sequence[Job], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the confidence of events is to be believed, and what a least confidence trades, by set; empty
    where events carry none."""
    figures_by_set: dict[str, Any] = {}
    for set_name in dict.fromkeys(job.set_name for job in jobs):
        chosen = [
            (job, compared(result, WIDE))
            for job, result in zip(jobs, results, strict=True)
            if job.set_name == set_name and WIDE in result.get("events", {})
        ]
        agreed = reliability([comparison for _, comparison in chosen])
        if agreed is None:
            continue
        curves = {}
        for kind, injected_axis, quiet_axis in (
            ("portraits", "displacement", "uninjected"),
            ("real", "real", "real-uninjected"),
        ):
            quiet = [comparison for job, comparison in chosen if job.axis == quiet_axis]
            points = dict.fromkeys(job.point for job, _ in chosen if job.axis == injected_axis)
            for point in points:
                moved = [c for job, c in chosen if (job.axis, job.point) == (injected_axis, point)]
                if rows := tradeoff(moved, quiet):
                    curves[f"{kind}, {point} %"] = rows
        figures_by_set[set_name] = {"bins": agreed.bins, "error": agreed.error, "tradeoff": curves}
    return figures_by_set


# --- The command ---------------------------------------------------------------------------------------


def footage_of(config: SpottingBenchConfig) -> dict[str, list[Path]]:
    """The clips of each set. Without the fetched ones the benchmark goes on, and says so."""
    by_set: dict[str, list[Path]] = {}
    if config.source:
        by_set["own"] = own_clips(config.source)
    try:
        fetched = {path.name: path for path in fetch_ravdess()}
    except StreamerError as error:
        log.warning("without the fetched real footage: %s", error)
        return by_set
    return by_set | {name: [fetched[clip] for clip in clips] for name, clips in FOOTAGE.items()}


VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg")


def own_clips(paths: Sequence[Path]) -> list[Path]:
    """The clips that the user names, and those in folders that the user names.

    Raises:
        UsageError: a path does not exist, or a folder holds no video.
    """
    clips: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(clip for clip in path.iterdir() if clip.suffix.lower() in VIDEO_SUFFIXES)
            if not found:
                raise UsageError(f"--source {path} holds no video ({', '.join(VIDEO_SUFFIXES)})")
            clips += found
        elif path.is_file():
            clips.append(path)
        else:
            raise UsageError(f"--source {path} does not exist: check the path")
    return clips


def command_of(config: SpottingBenchConfig) -> str:
    """The command as anyone would type it: without what depends on this machine."""
    words = ["python", "-m", "streamer.bench", "spotting", "--scale", config.scale]
    words += ["--axes", *config.axes] if config.axes else []
    words += ["--sets", config.sets] if config.sets != "all" else []
    words += [] if config.peers else ["--no-peers"]
    words += ["--seed", str(config.seed)] if config.seed else []
    words += ["--source", *(path.name for path in config.source)] if config.source else []
    return shlex.join(words)


def bench_spotting(config: SpottingBenchConfig) -> str:
    """Measure, write the files of `config.out`; returns the report as Markdown.

    Raises:
        UsageError: a flag makes no sense. StreamerError: something cannot be had or made.
    """
    if config.workers < 1:
        raise UsageError(f"--workers is {config.workers}: give 1 or more")
    if config.seed < 0:
        raise UsageError(f"--seed is {config.seed}: give 0 or more")
    footage = footage_of(config)
    jobs = plan(
        Scope(
            scale=config.scale,
            axes=config.axes,
            sets=(*(("tuning", "held-out") if config.sets == "all" else (config.sets,)), "own"),
            footage=footage,
            peers=config.peers,
            seed=config.seed,
        )
    )
    if not jobs:
        raise UsageError("nothing to measure: other --axes or --sets, or connect once for the footage")
    landmarker = find_landmarker(config.landmarker)
    cache = clips_folder(config.cache)
    setup = Setup(cache, config.engine, landmarker, digests(config.engine, landmarker, config.peers))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_jobs(jobs, setup, config.workers)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return report.write(assemble(config, jobs, results, setup), config.out)


def assemble(
    config: SpottingBenchConfig, jobs: Sequence[Job], results: Sequence[dict[str, Any]], setup: Setup
) -> dict[str, Any]:
    """All figures of a run, and what they were measured on."""
    return {
        "simulated": True,
        "machine": machine(),
        "command": command_of(config),
        "engine": config.engine,
        "code": setup.digests[OURS][:12],
        "axes": {name: {"title": axis.title, "unit": axis.unit} for name, axis in AXES.items()},
        "left_out": sorted({result["left_out"] for result in results if "left_out" in result}),
        "rows": rows_of(jobs, results),
        "confidence": confidence_of(jobs, results),
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the benchmark as Ctrl-C does."""
    raise KeyboardInterrupt
