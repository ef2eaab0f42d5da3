"""How fast the recogniser is, beside a bare landmark loop on the same frames.

    python -m streamer.bench pipeline                       # the bundled sample
    python -m streamer.bench pipeline --source clip.mp4 --out docs/benchmarks/pipeline.json

Whole runs of both are taken in turn, so that a machine whose speed drifts slows both; the ratio is
taken within each pair. Nothing is estimated from parts.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import mediapipe as mp
import numpy as np

from streamer.bench.endurance import (
    high_speed_table,
    play,
    run_at_high_speed,
    soak_table,
    stream_repeatedly,
)
from streamer.config import Config
from streamer.engine import Engine, load_engine
from streamer.errors import StreamerError, UsageError
from streamer.graph import build_graph
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8, Frame
from streamer.pipeline import Recogniser, warm_up
from streamer.sources import open_source
from streamer.tracking import MediaPipeTracker

PACKAGES = ("mediapipe", "opencv-contrib-python", "numpy", "numba", "onnxruntime", "av")


@dataclass(frozen=True)
class PipelineConfig:
    """Measure throughput, stage times, start-up and memory."""

    source: str = "sample"
    """Video file or folder of images; 'sample' is the bundled clip."""
    repeats: int = 3
    """Pairs of runs: recogniser, then bare landmark loop."""
    max_frames: int = 600
    """Frames taken of the source."""
    engine: str = "gtsgn-simulated"
    """Engine name or path."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    high_speed: bool = True
    """Play the frames at 200 a second, too: as a file, as folders of images and as a live source."""
    soak_minutes: float = 0.0
    """Stream as many frames as so many minutes have at 30 a second, at full speed, through one recogniser."""
    out: Path | None = None
    """Write the figures here as JSON, and beside it the table as Markdown."""


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "processor": f"{model}, {os.cpu_count()} logical cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": versions,
        "date": date.today().isoformat(),
    }


FAST_FRAMES = 400
"""Pictures of the high-speed sources: each is written to three of them."""


ALONE_FRAMES = 300
"""Frames kept in memory to time stages without a reader beside them."""


def _frames(config: PipelineConfig) -> list[U8]:
    """The source's first frames, BGR, decoded beforehand for the landmark loop."""
    frames = []
    with open_source(Config(source=config.source)) as source:
        for message in source.frames():
            if isinstance(message, Frame):
                frames.append(message.image)
            if len(frames) >= config.max_frames:
                break
    return frames


def _bare_loop(frames: list[U8], model: Path) -> float:
    """Frames a second of FaceLandmarker in VIDEO mode with one face, as its documentation shows it."""
    vision = mp.tasks.vision
    options = vision.FaceLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        begun = time.perf_counter()
        for number, frame in enumerate(frames):
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=image)
            landmarker.detect_for_video(picture, number * 33)
        return len(frames) / (time.perf_counter() - begun)


def _alone_ms(source: str, tracker: MediaPipeTracker, engine: Engine) -> float:
    """Motion and spotting of a frame, p50 in milliseconds, with frames in memory and no other thread."""
    with open_source(Config(source=source)) as opened:
        messages = [message for message, _ in zip(opened.frames(), range(ALONE_FRAMES), strict=False)]
    recogniser = Recogniser(Config(), tracker, engine)
    for message in messages:
        if isinstance(message, Frame):
            recogniser.process(message)
    times = recogniser.clock.percentiles()
    return sum(times[name]["p50"] for name in ("motion", "spot") if name in times)


def _classifier_ms(engine: Engine, calls: int = 2000) -> dict[str, float]:
    """Graph and network at batch 1, milliseconds."""
    rng = np.random.default_rng(0)
    nodes = rng.normal(0, 0.5, (1, 14, 2)) + rng.normal(0, 0.01, (3, 14, 2))
    durations = []
    for _ in range(calls):
        begun = time.perf_counter()
        engine.classify(build_graph(nodes.astype(np.float32), engine.manifest.features))
        durations.append(time.perf_counter() - begun)
    return {f"p{q}": float(np.percentile(durations, q)) * 1e3 for q in (50, 95, 99)}


def _whole_command(config: PipelineConfig, max_frames: int | None) -> tuple[float, float]:
    """Seconds from the command to its end, and its peak memory in MB (0 where the system does not tell)."""
    command = [sys.executable, "-m", "streamer", "--source", config.source, "--engine", config.engine]
    command += ["--max-frames", str(max_frames)] if max_frames else []
    command += ["--landmarker", str(config.landmarker)] if config.landmarker else []
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        memory = 0.0
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        else:
            process.wait()
    if process.returncode:
        raise StreamerError(f"the command {' '.join(command[1:])} failed: run it by hand to see why")
    return time.perf_counter() - begun, memory


def measure(config: PipelineConfig) -> dict[str, Any]:
    """All figures as one dictionary; see `table` for their meaning."""
    model = find_landmarker(config.landmarker)
    with open_source(Config(source=config.source)):
        pass  # a source that cannot be read says so here
    # First, while this process is small: a child's peak memory counts its parent's at the fork.
    memory_mb = _whole_command(config, None)[1]
    starts = [_whole_command(config, 1)[0] for _ in range(config.repeats)]
    engine = load_engine(config.engine, "cpu")
    tracker = MediaPipeTracker(model, Config().tracking)
    try:
        warm_up(Config(), engine)
        # Before the frames of the bare loop are in memory: the table is to show the recogniser's.
        soak_frames = round(config.soak_minutes * 60 * 30)
        soaked = stream_repeatedly(config.source, soak_frames, tracker, engine) if soak_frames > 0 else []
        frames = _frames(config)
        pairs, stages = [], []
        for number in range(config.repeats):
            print(f"run {number + 1} of {config.repeats}", file=sys.stderr)
            with open_source(Config(source=config.source)) as source:
                seconds, recogniser, _ = play(source, tracker, engine, config.max_frames)
            pairs.append((recogniser.frames / seconds, _bare_loop(frames, model)))
            stages.append(recogniser.clock.percentiles())
        classifier = _classifier_ms(engine)
        alone_ms = median(_alone_ms(config.source, tracker, engine) for _ in range(config.repeats))
        fast = run_at_high_speed(frames[:FAST_FRAMES], tracker, engine) if config.high_speed else []
        size = f"{len(frames)} frames of {frames[0].shape[1]}x{frames[0].shape[0]}"
    finally:
        tracker.close()
        engine.close()
    names = stages[0].keys()
    per_stage = {
        name: {q: median(times[name][q] for times in stages if name in times) for q in ("p50", "p95", "p99")}
        for name in names
    }
    return {
        "machine": machine(),
        "source": f"{config.source}, {size}",
        "pipeline_fps": median(fps for fps, _ in pairs),
        "bare_landmarker_fps": median(fps for _, fps in pairs),
        "ratio": {
            "median": median(a / b for a, b in pairs),
            "lowest": min(a / b for a, b in pairs),
            "highest": max(a / b for a, b in pairs),
        },
        "stages_ms": per_stage,
        "besides_tracking_ms": per_stage["motion"]["p50"] + per_stage["spot"]["p50"],
        "besides_tracking_alone_ms": alone_ms,
        "graph_and_network_ms": classifier,
        "command_to_first_frame_s": median(starts),
        "peak_memory_mb": memory_mb,
        "high_speed": fast,
        "soak": soaked,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about, ratio = figures["machine"], figures["ratio"]
    rows = [
        ("pipeline, frames a second", f"{figures['pipeline_fps']:.0f}", ""),
        ("bare FaceLandmarker VIDEO loop, frames a second", f"{figures['bare_landmarker_fps']:.0f}", ""),
        (
            "pipeline / bare loop",
            f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
            ">= 2.2, aim 4.5",
        ),
        (
            "everything but tracking, p50 a frame",
            f"{figures['besides_tracking_ms']:.2f} ms",
            "<= 0.5 ms, aim 0.2",
        ),
        (
            "the same, frames in memory and no other thread",
            f"{figures['besides_tracking_alone_ms']:.2f} ms",
            "",
        ),
        (
            "graph + network, batch 1, p50 (p99)",
            "{p50:.3f} ms ({p99:.3f})".format(**figures["graph_and_network_ms"]),
            "<= 0.25 ms, aim 0.15",
        ),
        (
            "command to first frame, and to the exit after it",
            f"{figures['command_to_first_frame_s']:.1f} s",
            "<= 3 s, aim 2",
        ),
        ("peak memory of the whole command", f"{figures['peak_memory_mb']:.0f} MB", "<= 700 MB, aim 450"),
    ]
    lines = [
        f"Measured on {about['date']}: {about['processor']}; {about['system']}; {about['versions']}.",
        f"Source: {figures['source']}. Medians of whole runs taken in turn.",
        "",
        "| what | measured | budget |",
        "|---|---|---|",
        *(f"| {a} | {b} | {c} |" for a, b, c in rows),
        "",
        "| stage | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|",
        *(
            f"| {name} | {times['p50']:.3f} | {times['p95']:.3f} | {times['p99']:.3f} |"
            for name, times in figures["stages_ms"].items()
        ),
    ]
    text = "\n".join(lines) + "\n"
    if figures["high_speed"]:
        text += "\n" + high_speed_table(figures["high_speed"])
    if figures["soak"]:
        text += "\n" + soak_table(figures["soak"])
    return text


def bench_pipeline(config: PipelineConfig) -> str:
    """Measure, write the files of `config.out`; returns the table as Markdown."""
    if config.repeats < 1:
        raise UsageError(f"--repeats is {config.repeats}: give 1 or more")
    figures = measure(replace(config, max_frames=max(1, config.max_frames)))
    text = table(figures)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        config.out.with_suffix(".md").write_text("# Pipeline\n\n" + text, encoding="utf-8")
    return text
