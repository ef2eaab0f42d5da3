"""Tables III(b) and VIII: what a network costs, and the weights that the AAU loss learned."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from streamer.graph import FeatureSpec
from train.models import ModelConfig, ResNet18, build_model
from train.models.resnet18 import SIDE
from train.paper import AAU_MEAN, AAU_WEIGHTS, COSTS
from train.results import LAYERS, RunResult
from train.tables_cells import NAMES, Grid, Pooled

CLASSES = 6
"""As the paper's counts have."""

ROUNDS, CALLS = 15, 4


def _networks() -> dict[str, tuple[nn.Module, torch.Tensor, str]]:
    features = FeatureSpec(type="A")
    graph = torch.zeros(1, 3, 14, 4)
    return {
        "ResNet18 (ST)": (ResNet18(CLASSES), torch.zeros(1, 3, SIDE, SIDE), f"3 x {SIDE} x {SIDE}"),
        "GCN": (build_model(ModelConfig("gcn", lam=False), features, CLASSES, 0), graph, "42 x 2"),
        "SS-GN": (build_model(ModelConfig("ss-gn", lam=False), features, CLASSES, 0), graph, "14 x 3 x 2"),
    }


def seconds_a_sample(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that what else the machine does hits all alike."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            spent[name].append((time.perf_counter() - began) / CALLS)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def costs_grid() -> Grid:
    """Table III(b): input, time a sample in eager PyTorch on one thread, parameters; beside the paper's."""
    networks = _networks()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:

        def call_of(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
            model.eval()

            def call() -> object:
                with torch.inference_mode():
                    return model(x)

            return call

        times = seconds_a_sample({name: call_of(model, x) for name, (model, x, _) in networks.items()})
    finally:
        torch.set_num_threads(threads)
    rows, resnet = [], "ResNet18 (ST)"
    for name, (model, _, size) in networks.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        paper_time, paper_count = COSTS[name]
        rows.append(
            (
                name, size, f"{1000 * times[name]:.2f}", f"{1000 * paper_time:.1f}",
                f"{times[resnet] / times[name]:.1f}", f"{COSTS[resnet][0] / paper_time:.1f}",
                f"{count:,}", f"{paper_count:,}", f"{100 * (count / paper_count - 1):+.1f} %",
            )
        )  # fmt: skip
    header = (
        ("", ("", "input")),
        ("ms a sample", ("ours", "paper")),
        ("times as fast as ResNet18 (ST)", ("ours", "paper")),
        ("parameters", ("ours", "paper", "diff.")),
    )
    note = (
        "Ours: eager PyTorch, one CPU thread, batch of 1, medians of calls in turn, on whatever else this "
        "machine did then. The paper's: a GTX 1050. Six classes. docs/training.md says what differs in the "
        "parameters."
    )
    return Grid("Table III (b): costs", header, tuple(rows), (note,))


def fold_weights(result: RunResult) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the folds, and (folds, layers) W_r^2 / sum W_r^2."""
    names = [fold.name for fold in result.folds]
    return names, np.array([fold.aau_weights for fold in result.folds], np.float64)


def weights_grid(column: str, found: Pooled) -> Grid:
    """Table VIII of one database: the weights of each fold, and their mean, beside the paper's."""
    names, weights = fold_weights(found.first)
    printed = column == "casme2"
    by_fold = printed and len(names) == len(AAU_WEIGHTS) and found.first.spec.groups == 0
    layers = tuple(f"layer {n}" for n in range(1, LAYERS + 1))
    mark = " (simulated)" if found.first.simulated else ""
    header = [("", ("tested subjects",)), (f"{NAMES.get(column, column)}{mark}", layers)]
    if printed:
        header.append(("paper", layers))

    def line(name: str, ours: NDArray[np.float64], theirs: tuple[float, ...] | None) -> tuple[str, ...]:
        shown = [f"{value:.4f}" for value in ours]
        if printed:
            shown += [""] * LAYERS if theirs is None else [f"{value:.4f}" for value in theirs]
        return (name, *shown)

    rows = [
        line(name, row, AAU_WEIGHTS[k] if by_fold else None)
        for k, (name, row) in enumerate(zip(names, weights, strict=True))
    ]
    rows.append(line("mean", weights.mean(0), AAU_MEAN if printed else None))
    notes = (
        "W_r^2 / sum W_r^2 of GTS-GN (layer 1) with LAM and AAU loss."
        + (f" Seed 0 of {len(found.results)}." if len(found.results) > 1 else "")
        + (" The paper's subjects stand in its order, which need not be ours." if by_fold else ""),
    )
    return Grid("Table VIII: Learned weights of the AAU loss", tuple(header), tuple(rows), notes)
