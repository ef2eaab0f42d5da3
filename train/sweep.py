"""A sweep: many runs, each over all of its folds, in one queue; what is there already is not trained again.

    results = run_sweep(specs, SweepData([Source("casme2", root)]), out, LocalExecutor(workers=2))

After an interruption of any kind the same call goes on: a fold is kept the moment it is done. What takes
minutes (ResNet18) also keeps its state between epochs.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from streamer.errors import OutputError, UsageError
from train.datasets import Sample, select
from train.executors import Executor, FoldJob, LocalExecutor
from train.fold_files import FoldResult, fold_path, read_fold, write_fold
from train.fold_training import folds_of, steps_an_epoch
from train.folds import Fold, across_databases, check_folds, leave_one_subject_out
from train.results import RunHeader, RunResult, RunSpec, SweepResults
from train.sweep_data import LEAST_UNIT_SAMPLES, RunData

_MS = {"gcn": 0.2, "ss-gn": 0.5, "gts-gn": 0.8, "resnet18-s": 90.0, "resnet18-st": 90.0}
"""About what a sample costs in a training step, milliseconds; for the time left and the order alone."""


class DataOf(Protocol):
    """`SweepData`, or what gives data as it does."""

    def of(self, spec: RunSpec) -> RunData:
        """The data of a run."""
        ...


@dataclass
class _Run:
    header: RunHeader
    data: RunData
    folds: list[Fold]
    steps: int
    kept: dict[str, FoldResult]

    @property
    def spec(self) -> RunSpec:
        return self.header.spec

    @property
    def missing(self) -> list[Fold]:
        return [fold for fold in self.folds if fold.name not in self.kept]

    @property
    def cost(self) -> float:
        """Seconds that a fold takes, about."""
        spec = self.spec
        size = (spec.picture / 224) ** 2 if spec.reads_pictures else self.data.inputs.shape[3] / 14
        return _MS[spec.model] * size * spec.epochs * self.steps * spec.batch / 1000.0


def check_samples(spec: RunSpec, samples: Sequence[Sample]) -> None:
    """Whether a run can be had of the sheets' samples, before any is measured. samples: of its databases.

    Raises:
        UsageError: too few classes, subjects or action units.
    """
    selection = select(samples, spec.setting)
    units = Counter(number for sample in selection.samples for number in sample.numbers)
    if spec.au_loss != "none" and max(units.values(), default=0) < LEAST_UNIT_SAMPLES:
        raise UsageError(
            f"setting {spec.setting}: no action unit has {LEAST_UNIT_SAMPLES} samples, which the loss "
            f"{spec.au_loss} needs"
        )
    persons, protocol, inner = selection.persons, spec.protocol, spec.validation_subjects
    if spec.tested:
        across_databases(persons, selection.databases, spec.tested, protocol, inner)
    else:
        leave_one_subject_out(persons, protocol, inner, groups=spec.groups)


def run_sweep(
    specs: Sequence[RunSpec],
    data: DataOf,
    out: Path,
    executor: Executor | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> SweepResults:
    """Train the folds that are missing, and return the runs in the order of the specs.

    Args:
        specs: equal ones are run once.
        data: gives each run its data.
        out: folder that results are kept in; one command at a time writes there.
        executor: None: one process of this machine, or its GPU.
        tensorboard: write loss and accuracy of each fold to `out`/tensorboard.

    Raises:
        UsageError: settings that do not go together, data with which folds would leak, another command at
            work in `out`. OutputError: it cannot be written. Others as `train.landmarks.extract`.
    """
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard")
    executor = LocalExecutor() if executor is None else executor
    try:
        with _locked(out):
            runs = {spec: _open_run(spec, data.of(spec), out) for spec in dict.fromkeys(specs)}
            _train(list(runs.values()), out, executor, progress)
            results = [
                RunResult.of(run.header, [run.kept[f.name] for f in run.folds]) for run in runs.values()
            ]
            if tensorboard:
                for result in results:
                    write_scalars(out / "tensorboard" / result.header.key, result)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be written ({error.strerror}): free space there and give the same command "
            f"again, or name another --out"
        ) from error
    by_spec = dict(zip(runs, results, strict=True))
    return SweepResults(out, tuple(by_spec[spec] for spec in specs))


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Nobody else writes into `out`; a command that is killed leaves no lock behind."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another command is at work in {out}: wait for it, or give another --out"
            ) from None
        yield


def _open_run(spec: RunSpec, data: RunData, out: Path) -> _Run:
    """A run with the folds of it that are there. Writes run.json where there is none."""
    folds = folds_of(spec, data)
    check_folds(folds, data.persons, data.inputs)
    key = spec.key(data.digest)
    header = RunHeader(
        key,
        spec,
        data.digest,
        data.classes,
        data.unit_names,
        data.samples,
        data.persons,
        data.label,
        tuple(fold.name for fold in folds),
        data.simulated,
        {"torch": torch.__version__, "numpy": np.__version__},
    )
    folder = out / "runs" / key
    try:
        there = RunHeader.read(folder) == header
    except ValueError:
        there = False
    if not there:  # or damaged; folds that lie there are of these data, which the folder's name stands for
        header.write(folder)
    sizes = len(data.samples), len(data.classes)
    found = [read_fold(folder, fold.name, *sizes) for fold in folds]
    kept = {result.name: result for result in found if result is not None}
    return _Run(header, data, folds, steps_an_epoch(spec, folds), kept)


def _jobs(runs: Sequence[_Run], out: Path, batched: bool) -> list[tuple[FoldJob, list[_Run], float]]:
    """(job, the run of each of its folds, about how many seconds it takes), longest first."""
    jobs: list[tuple[FoldJob, list[_Run], float]] = []
    together: dict[tuple[RunSpec, str], list[tuple[_Run, Fold]]] = {}
    for run in runs:
        for fold in run.missing:
            if batched and not run.spec.reads_pictures:
                together.setdefault((replace(run.spec, seed=0), run.header.digest), []).append((run, fold))
                continue
            path = fold_path(out / "runs" / run.header.key, fold.name).with_suffix(".checkpoint")
            job = FoldJob(((run.spec, fold),), run.header.digest, run.steps, path)
            jobs.append((job, [run], run.cost))
    for (_, digest), members in together.items():
        folds = tuple((run.spec, fold) for run, fold in members)
        cost = sum(run.cost for run, _ in members)
        jobs.append((FoldJob(folds, digest, members[0][0].steps), [run for run, _ in members], cost))
    return sorted(jobs, key=lambda job: -job[2])


def _train(runs: Sequence[_Run], out: Path, executor: Executor, progress: bool) -> None:
    """Train what is missing; each fold is kept as soon as it is done."""
    jobs = _jobs(runs, out, executor.batched)
    if not jobs:
        return
    data = {run.header.digest: run.data for run in runs if run.missing}
    folds = sum(len(run.folds) for run in runs)
    done = sum(len(run.kept) for run in runs)
    total = sum(run.cost * len(run.folds) for run in runs)
    with tqdm(
        total=total,
        initial=sum(run.cost * len(run.kept) for run in runs),
        desc="training",
        bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed} passed, {remaining} left{postfix}",
        disable=not progress,
    ) as bar:
        bar.set_postfix_str(f"{done} of {folds} folds")
        for number, results in executor.run([job for job, _, _ in jobs], data):
            job, owners, cost = jobs[number]
            for result, owner in zip(results, owners, strict=True):
                write_fold(out / "runs" / owner.header.key, result)
                owner.kept[result.name] = result
                done += 1
            if job.checkpoint is not None:
                job.checkpoint.unlink(missing_ok=True)
            bar.set_postfix_str(f"{done} of {folds} folds", refresh=False)
            bar.update(cost)


def write_scalars(folder: Path, result: RunResult) -> None:
    """Loss and accuracy by epoch of each fold, for TensorBoard; folds that were written before are left."""
    from torch.utils.tensorboard.writer import SummaryWriter

    for fold in result.folds:
        place = folder / fold_path(folder, fold.name).stem
        if place.is_dir():
            continue
        with SummaryWriter(str(place)) as writer:
            for name in ("loss", "accuracy", "validation_accuracy"):
                for epoch, value in enumerate(getattr(fold, name).tolist()):
                    writer.add_scalar(f"{result.spec.name}/{name}", value, epoch + 1)
