"""The process that measures latencies: one thread, one core.

    python -m streamer.bench.latency_process CONFIG.json FIGURES.json

`latency.py` starts it, or, where PyTorch is installed, `train/latency.py`, which adds its peers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import mediapipe as mp
import numpy as np

from streamer.bench.interleaved import Contender, measure_interleaved, ratio
from streamer.bench.pipeline import machine
from streamer.config import Config
from streamer.engine import Engine, find_engine, load_engine
from streamer.engines.cuda import first_gpu
from streamer.engines.numpy_reference import NumpyEngine
from streamer.engines.onnx_runtime import OnnxEngine
from streamer.errors import EngineError
from streamer.graph import NODE_SETS, build_graph
from streamer.landmarker_model import find_landmarker
from streamer.messages import F32, U8, Frame
from streamer.pipeline import Recogniser, warm_up
from streamer.sources import open_source
from streamer.tracking import MediaPipeTracker

BASE = "GTS-GN, CPU engine"
"""What ratios are taken to."""
IN_NUMPY = "GTS-GN, NumPy engine"
ON_GPU = "GTS-GN, TensorRT engine"


def key_nodes() -> F32:
    """(3, 14, 2) float32: a face at rest whose mouth corner rises and falls."""
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).astype(np.float32)
    nodes[1, 10] += np.float32(-0.02)
    return nodes


def engine_contenders(cpu: Engine, numpy: Engine, gpu: Engine | None) -> list[Contender]:
    """Every engine on one expression, and the whole way from key frames to an answer."""
    nodes, spec = key_nodes(), cpu.manifest.features
    sample = build_graph(nodes, spec)
    contenders = [
        Contender(
            "graph + GTS-GN, CPU engine", lambda: cpu.classify(build_graph(nodes, spec)), "key frames in"
        ),
        Contender("graph alone", lambda: build_graph(nodes, spec)),
        Contender(BASE, lambda: cpu.classify(sample), "ONNX Runtime, one thread"),
        Contender(IN_NUMPY, lambda: numpy.classify(sample), "folded weights"),
    ]
    if gpu is not None:
        contenders.append(Contender(ON_GPU, lambda: gpu.classify(sample), "CUDA graph"))
    return contenders


def landmarker_contender(frame: U8, model: Path) -> tuple[Contender, Any]:
    """FaceLandmarker on one picture, and what has to be closed afterwards."""
    vision = mp.tasks.vision
    options = vision.FaceLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=1,
    )
    landmarker = vision.FaceLandmarker.create_from_options(options)
    picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    about = "one 640x480 picture, MediaPipe"
    return Contender("FaceLandmarker alone", lambda: landmarker.detect(picture), about), landmarker


def stages_ms(frames: list[Frame], tracker: MediaPipeTracker, engine: Engine, runs: int) -> dict[str, Any]:
    """Stage -> p50, p95, p99 a frame, medians over runs of the sample clip with all frames in memory."""
    found = []
    for _ in range(runs):
        recogniser = Recogniser(Config(), tracker, engine)
        for frame in frames:
            recogniser.process(frame)
        found.append(recogniser.clock.percentiles())
        recogniser.close()
    return {
        stage: {q: median(run[stage][q] for run in found if stage in run) for q in ("p50", "p95", "p99")}
        for stage in found[0]
    }


def cold_start(command: Sequence[str], times: int) -> dict[str, float]:
    """Figures of a process that loads an engine and answers once, see `cold_start.py`: medians.

    command: of Python; the last line that it prints is a JSON object of numbers.
    """
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - begun
        found.append(json.loads(done.stdout.splitlines()[-1]) | {"process_s": seconds})
    return {key: median(figures[key] for figures in found) for key in found[0]}


def first_frame_s(times: int) -> float:
    """Seconds from the command to the end of a run of one frame; median."""
    command = [sys.executable, "-m", "streamer", "--source", "sample", "--max-frames", "1"]
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - begun)
    return median(found)


def measure(
    config: dict[str, Any],
    peers: Callable[[], Sequence[Contender]] = tuple,
    cold_peers: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """All figures; `latency_report.py` says what they are.

    config: engine, rounds, block_s, frames, cold_starts, core (or None). peers: makes further contenders.
    cold_peers: name -> command of Python for `cold_start`.
    """

    def progress(text: str) -> None:
        print(text, file=sys.stderr)

    # Cold starts first, while this process keeps no core busy and holds no memory.
    commands = {
        name: ("-m", "streamer.bench.cold_start", kind, config["engine"])
        for name, kind in ((BASE, "cpu"), (IN_NUMPY, "numpy"))
    }
    gpu, on_gpu = first_gpu(), None
    gpu_text = "none on this machine, so TensorRT was not measured"
    if gpu is not None:
        gpu_text = f"{gpu.name}, compute capability {gpu.capability_text}"
        try:
            on_gpu = load_engine(config["engine"], "cuda")
        except EngineError as error:
            gpu_text += f"; TensorRT was not measured ({error})"
        else:
            commands[ON_GPU] = ("-m", "streamer.bench.cold_start", "cuda", config["engine"])
    load = [_load_average()]
    progress("cold starts")
    times = config["cold_starts"]
    commands = {**commands, **(cold_peers or {})} if times else {}
    cold = {name: cold_start(command, times) for name, command in commands.items()}
    first_frame = first_frame_s(times) if times else None

    if config["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {config["core"]})
    folder = find_engine(config["engine"])
    cpu, numpy = OnnxEngine(folder), NumpyEngine(folder)
    model = find_landmarker(None)
    tracker = MediaPipeTracker(model, Config().tracking)
    warm_up(Config(), cpu)
    with open_source(Config(source="sample")) as source:
        frames = [message for message in source.frames() if isinstance(message, Frame)][: config["frames"]]
    landmarker, open_landmarker = landmarker_contender(frames[0].image, model)
    try:
        progress("stages")
        stages = stages_ms(frames, tracker, cpu, 3)
        contenders = [*engine_contenders(cpu, numpy, on_gpu), *peers(), landmarker]
        found = measure_interleaved(contenders, config["rounds"], config["block_s"], progress)
    finally:
        open_landmarker.close()
        tracker.close()
    load.append(_load_average())
    # Of processor time: on a busy machine every long call is interrupted and hardly a short one, so the ratio
    # by the clock would flatter the short.
    base = found[BASE]["rounds_processor_p50"]
    for figures in found.values():
        figures["ratio"] = ratio(figures["rounds_processor_p50"], base)
    return {
        "machine": machine(),
        "gpu": gpu_text,
        "load_average": load,
        "threads": 1,
        "core": config["core"],
        "rounds": config["rounds"],
        "base": BASE,
        "contenders": found,
        "stages_ms": stages,
        "cold": cold,
        "command_to_first_frame_s": first_frame,
    }


def _load_average() -> float:
    """Of the last minute, 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def main(arguments: list[str]) -> None:
    """Measure without peers."""
    config, out = arguments
    figures = measure(json.loads(Path(config).read_text(encoding="utf-8")))
    Path(out).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
