"""What training costs: leave-one-subject-out in processes against fold by fold; and Table III(b).

    python -m train bench --dataset casme2 --root DIR

Both figures of each comparison come from one run, taken in turn, on the same machine. Written to
docs/benchmarks/training.json and training.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.bench.interleaved import Contender, measure_interleaved, ratio
from streamer.bench.pipeline import machine
from streamer.errors import OutputError, UsageError
from streamer.fetching import write_whole
from streamer.graph import FeatureSpec
from train.datasets.check import DatabaseName
from train.executors import FoldJob, LocalExecutor, train_job
from train.fold_files import FoldResult
from train.fold_training import folds_of, steps_an_epoch, train_folds
from train.landmarks import LandmarkConfig
from train.latency import in_torch
from train.models import ModelConfig, ResNet18, build_model
from train.models.resnet18 import SIDE
from train.results import RunSpec
from train.sweep_data import RunData, Source, SweepData

CLASSES = 6
UNITS = 16

PAPER = {
    "ResNet18 (ST)": (30.9, 11_179_590),
    "GCN": (3.8, 39_760),
    "SS-GN": (5.0, 163_710),
}
"""Table III(b): milliseconds a sample on a GTX 1050, parameters."""

BATCHES = (1, 8)


@dataclass(frozen=True)
class BenchConfig:
    """Measure what leave-one-subject-out gains by worker processes, and time and size of the networks."""

    dataset: DatabaseName
    """Which database."""
    root: Path
    """Folder that it was unpacked into."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""
    cache: Path = Path("out/landmarks")
    """Folder for landmarks."""
    out: Path = Path("docs/benchmarks/training.json")
    """JSON; a table is written beside it as .md."""
    workers: int = 2
    """Processes."""
    epochs: int = 10
    """Of the folds that are timed."""
    rounds: int = 2
    """How often both ways are timed, in turn."""
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)


def networks() -> dict[str, tuple[torch.nn.Module, np.ndarray, str]]:
    """Name -> (network for six classes, input of one sample, what it is). Random weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    graph = rng.random((1, 3, 14, 4), np.float32)
    pictures = rng.random((1, 3, SIDE, SIDE), np.float32)
    type_a, type_b = FeatureSpec(type="A"), FeatureSpec(type="B")
    built: dict[str, tuple[torch.nn.Module, np.ndarray, str]] = {
        "ResNet18 (ST)": (ResNet18(CLASSES), pictures, "onset, apex, offset in grey, 3x224x224"),
        "ResNet18 (S)": (ResNet18(CLASSES), pictures, "apex in colour, 3x224x224"),
        "GCN": (build_model(ModelConfig("gcn", lam=False), type_a, CLASSES, 0), graph, "42 nodes, type A"),
        "SS-GN": (
            build_model(ModelConfig("ss-gn", lam=False), type_a, CLASSES, 0),
            graph,
            "14x3 nodes, type A",
        ),
        "GTS-GN": (
            build_model(ModelConfig("gts-gn", 2, True), type_b, CLASSES, UNITS),
            graph,
            "fusion layer 2, LAM, AAU heads, type B",
        ),
    }
    for network, _, _ in built.values():
        network.eval()
    return built


def measure_networks(
    rounds: int, block_s: float, progress: Callable[[str], None], batches: tuple[int, ...] = BATCHES
) -> list[dict[str, Any]]:
    """Table III(b): milliseconds a sample in eager PyTorch on one thread, by batch size, and parameters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        built = networks()
        contenders = [
            Contender(f"{name} {batch}", in_torch(network, np.repeat(inputs, batch, 0)))
            for name, (network, inputs, _) in built.items()
            for batch in batches
        ]
        measured = measure_interleaved(contenders, rounds, block_s, progress)
    finally:
        torch.set_num_threads(threads)
    rows = []
    slow = {batch: measured[f"ResNet18 (ST) {batch}"]["rounds_processor_p50"] for batch in batches}
    for name, (network, _, about) in built.items():
        row: dict[str, Any] = {
            "network": name,
            "about": about,
            "parameters": sum(p.numel() for p in network.parameters()),
            "paper_ms": PAPER.get(name, (None, None))[0],
            "paper_parameters": PAPER.get(name, (None, None))[1],
        }
        for batch in batches:
            figures = measured[f"{name} {batch}"]
            row[f"ms_{batch}"] = figures["p50"] / batch
            row[f"resnet18_st_over_{batch}"] = ratio(slow[batch], figures["rounds_processor_p50"])
        rows.append(row)
    return rows


def measure_loso(
    data: RunData, spec: RunSpec, workers: int, rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Fold by fold in this process, with as many threads as PyTorch takes and with one (as `--workers 1`
    does), against worker processes of one thread.

    Starting the processes counts.
    """
    folds = folds_of(spec, data)
    steps = steps_an_epoch(spec, folds)
    jobs = [FoldJob(((spec, fold),), "data", steps) for fold in folds]

    def one_by_one() -> list[FoldResult]:
        return [train_folds(job.folds, data, steps)[0] for job in jobs]

    def one_thread() -> list[FoldResult]:
        return [train_job(job, data)[0] for job in jobs]

    def processes() -> list[FoldResult]:
        results = dict(LocalExecutor(workers, "cpu").run(jobs, {"data": data}))
        return [results[number][0] for number in range(len(jobs))]

    ways = {"one_by_one": one_by_one, "one_thread": one_thread, "processes": processes}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, np.ndarray] = {}
    for number in range(rounds):
        for name, work in list(ways.items())[:: 1 - 2 * (number % 2)]:
            progress(f"round {number + 1} of {rounds}: {name}")
            began = time.perf_counter()
            results = work()
            seconds[name].append(time.perf_counter() - began)
            scores[name] = np.concatenate([result.scores for result in results])
    a = scores["processes"]
    others = [scores[name] for name in ways if name != "processes"]
    return {
        "spec": spec.name,
        "folds": len(folds),
        "epochs": spec.epochs,
        "samples": len(data.label),
        "threads_one_by_one": torch.get_num_threads(),
        "workers": workers,
        "seconds": seconds,
        "speed_up": ratio(seconds["one_by_one"], seconds["processes"]),
        "speed_up_over_one_thread": ratio(seconds["one_thread"], seconds["processes"]),
        "same_predictions": all(np.array_equal(a.argmax(1), b.argmax(1)) for b in others),
        "largest_difference_of_logits": max(float(np.abs(a - b).max()) for b in others),
        "simulated": data.simulated,
    }


def bench(config: BenchConfig) -> str:
    """Measure both, write both files, return the text.

    Raises:
        UsageError: a setting is wrong. OutputError: a file cannot be written. Others as `extract`.
    """
    if min(config.workers, config.epochs, config.rounds) < 1:
        raise UsageError("--workers, --epochs and --rounds must be at least 1")

    def progress(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    source = Source(config.dataset, config.root, config.sheet)
    data = SweepData([source], config.landmarks, config.cache, config.workers)
    spec = RunSpec((config.dataset,), lam=True, au_loss="aau", fusion_layer=2)
    load = [os.getloadavg()[0]]
    figures: dict[str, Any] = {"machine": machine() | {"torch": torch.__version__}}
    figures["networks"] = measure_networks(5 * config.rounds, 0.3, progress)
    run_data = data.of(spec)
    spec = replace(spec, epochs=config.epochs)
    figures["loso"] = measure_loso(run_data, spec, config.workers, config.rounds, progress)
    load.append(os.getloadavg()[0])
    figures |= {"load": load, "config": {k: str(v) for k, v in asdict(config).items() if k not in PATHS}}
    text = report(figures)
    try:
        write_whole(config.out, (json.dumps(figures, indent=1) + "\n").encode())
        write_whole(config.out.with_suffix(".md"), text.encode())
    except OSError as error:
        raise OutputError(f"{config.out} cannot be written ({error.strerror}): give another --out") from error
    return text


PATHS = ("root", "sheet", "cache", "out")
"""Settings that say where files lie on one machine: no part of what is published."""

PAGE = """# Training

Measured on {date}: {processor}; {system}; torch {torch}. No GPU was used.
Load average before and after: {load}.

## Leave-one-subject-out

{spec}, {folds} folds of {epochs} epochs, {samples} samples{simulated}.
In turn; the start of the processes counts.

| way | seconds, by round | processes are faster by |
|---|---|---|
| fold by fold, one thread (`--workers 1`) | {one_thread} | {over_one_thread} |
| fold by fold, {threads} threads | {one_by_one} | {gain} |
| {workers} processes of one thread | {processes} | |

Pooled predictions {same}; logits differ by at most {difference}.

## Time a sample and parameters (Table III b)

Eager PyTorch, one thread, six classes, medians of interleaved rounds. The paper says neither how it timed nor
in what batches; its times are of a GTX 1050. Ratios are of processor time, median of the rounds.
[../training.md](../training.md) explains how the parameter counts differ.

| network | input | ms, batch 1 | ms a sample, batch 8 | ResNet18 (ST) ÷ it, batch 1 | the same, batch 8 \
| parameters | paper: ms | paper: parameters | difference |
|---|---|---|---|---|---|---|---|---|---|
"""


def report(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    loso = figures["loso"]
    seconds = loso["seconds"]
    gains = {
        name: f"{loso[key]['median']:.2f} ({loso[key]['lowest']:.2f} to {loso[key]['highest']:.2f})"
        for name, key in (("gain", "speed_up"), ("over_one_thread", "speed_up_over_one_thread"))
    }
    text = PAGE.format(
        **figures["machine"],
        load=", ".join(f"{load:.1f}" for load in figures["load"]),
        **{name: loso[name] for name in ("spec", "folds", "epochs", "samples", "workers")},
        simulated=" (SIMULATED)" if loso["simulated"] else "",
        threads=loso["threads_one_by_one"],
        **{name: ", ".join(f"{value:.1f}" for value in values) for name, values in seconds.items()},
        **gains,
        same="are the same" if loso["same_predictions"] else "DIFFER",
        difference=f"{loso['largest_difference_of_logits']:.1e}",
    )
    for row in figures["networks"]:
        theirs = row["paper_parameters"]
        paper = ["", "", ""]
        if theirs:
            paper = [f"{row['paper_ms']:.1f}", f"{theirs:,}", f"{row['parameters'] / theirs - 1:+.1%}"]
        ratios = [f"{row[f'resnet18_st_over_{batch}']['median']:.1f}" for batch in BATCHES]
        times = [f"{row[f'ms_{batch}']:.2f}" for batch in BATCHES]
        cells = [row["network"], row["about"], *times, *ratios, f"{row['parameters']:,}", *paper]
        text += f"| {' | '.join(cells)} |\n"
    return text
