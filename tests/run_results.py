"""Results of runs with known predictions, for tests of tables and figures; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from streamer.graph import NODE_SETS
from train.datasets.settings import MEGC3, PAPER_CLASSES
from train.fold_files import FoldResult, write_fold
from train.results import LAYERS, RunHeader, RunResult, RunSpec, SweepResults
from train.tables import Plan, runs_of

PEOPLE, EACH = 6, 6


def classes_of(spec: RunSpec) -> tuple[str, ...]:
    if spec.setting == "megc3":
        return MEGC3
    if spec.setting == "objective5":
        return ("I", "II", "III", "IV", "V")
    return PAPER_CLASSES[spec.setting, spec.databases[0]]


def drawn_run(spec: RunSpec, right: float = 0.7, simulated: bool = True) -> RunResult:
    """A run of `PEOPLE` persons a database with `EACH` samples each, of which the part `right` is right."""
    classes = classes_of(spec)
    persons = tuple(f"{name}/{k}" for name in spec.databases for k in range(PEOPLE) for _ in range(EACH))
    count = len(persons)
    label = np.arange(count) % len(classes)
    rng = np.random.default_rng(sum(spec.name.encode()) + spec.seed)
    said = np.where(np.arange(count) % 10 < 10 * right, label, (label + 1) % len(classes))
    scores = rng.uniform(0.0, 0.5, (count, len(classes))).astype(np.float32)
    scores[np.arange(count), said] += 1.0
    names = list(dict.fromkeys(p for p in persons if not spec.tested or p.startswith(f"{spec.tested}/")))
    parts = [names[k :: spec.groups] for k in range(spec.groups)] if spec.groups else [[n] for n in names]
    if spec.tested:
        parts = [names]
    nodes = len(NODE_SETS[spec.node_set]) * (3 if spec.model == "gcn" else 1)
    folds = []
    for number, part in enumerate(parts):
        test = np.flatnonzero([person in part for person in persons])
        weights = np.arange(LAYERS, 0, -1, dtype=np.float32)[spec.fusion_layer - 1 :]
        streams = [("low", "high") if n <= spec.fusion_layer else ("fused",) for n in range(1, LAYERS + 1)]
        lam: dict[str, np.ndarray] = {
            f"{stream}.{n}": rng.normal(size=(nodes, nodes)).astype(np.float32) / n
            for n, kinds in enumerate(streams, 1)
            for stream in kinds
        }
        features = {
            str(n): (rng.normal(size=(len(test), 8)) + n * label[test][:, None]).astype(np.float32)
            for n in range(spec.fusion_layer, LAYERS + 1)
        }
        folds.append(
            FoldResult(
                name=part[0] if len(part) == 1 else f"group {number + 1} of {len(parts)}",
                test=test,
                scores=scores[test],
                action_units=np.zeros((len(test), 0), np.float32),
                loss=np.ones(2, np.float32),
                accuracy=np.ones(2, np.float32),
                validation_accuracy=np.zeros(0, np.float32),
                epoch=2,
                parameters=1000,
                seconds=1.5,
                aau_weights=weights / weights.sum() if spec.au_loss == "aau" else np.zeros(0, np.float32),
                lam=lam if spec.lam else {},
                features=features if spec.model == "gts-gn" else {},
            )
        )
    header = RunHeader(
        spec.key("data"),
        spec,
        "data",
        classes,
        (),
        tuple(f"{person}-{k}" for k, person in enumerate(persons)),
        persons,
        label,
        tuple(fold.name for fold in folds),
        simulated,
        {"torch": "2", "numpy": "2"},
    )
    return RunResult.of(header, folds)


def drawn_results(plan: Plan, simulated: bool = True) -> SweepResults:
    """All runs of a plan; networks with LAM are a little better."""
    runs = [drawn_run(spec, 0.8 if spec.lam else 0.7, simulated) for spec in runs_of(plan)]
    return SweepResults(Path(), tuple(runs))


def write_results(results: SweepResults, out: Path) -> None:
    """Into an output folder, as `train.sweep` writes them."""
    for result in results:
        folder = out / "runs" / result.header.key
        replace(result.header).write(folder)
        for fold in result.folds:
            write_fold(folder, fold)
