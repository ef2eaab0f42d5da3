"""Who trains the folds of a sweep: processes of this machine, its GPU, or a Ray cluster (`ray_executor`).

An executor is handed jobs and hands back their results, in whatever order they are done. What a fold gives
does not depend on the executor: `fold_training` draws everything from the seed and the fold, and each job
computes on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from streamer.errors import UsageError
from train.fold_files import FoldResult
from train.fold_training import train_folds
from train.folds import Fold
from train.processes import run_jobs
from train.results import RunSpec
from train.sweep_data import RunData

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class FoldJob:
    """What is trained as one computation: one fold, or several of a run and its seeds.

    data: name of the run's data. steps: an epoch. checkpoint: see `train_folds`.
    """

    folds: tuple[tuple[RunSpec, Fold], ...]
    data: str
    steps: int
    checkpoint: Path | None = None


class Executor(Protocol):
    """Trains jobs. batched: whether it wants all folds of a run in one job."""

    batched: bool

    def run(
        self, jobs: Sequence[FoldJob], data: Mapping[str, RunData]
    ) -> Iterator[tuple[int, list[FoldResult]]]:
        """(number of the job, its results) as they are done."""
        ...


def train_job(job: FoldJob, data: RunData, device: str = "cpu") -> list[FoldResult]:
    """Train one job on one thread, so that it gives the same on every machine of a kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_folds(job.folds, data, job.steps, device, job.checkpoint)
    finally:
        torch.set_num_threads(threads)


_data: Mapping[str, RunData] = {}  # of this worker process


def _start(data: Mapping[str, RunData]) -> None:
    global _data
    _data = data


def _work(job: FoldJob, device: str) -> list[FoldResult]:
    return train_job(job, _data[job.data], device)


class LocalExecutor:
    """Worker processes of this machine, one thread each; or its GPU, which takes all folds of a run at once.

    Args:
        workers: processes, at least 1; on a GPU there is one.
        device: auto takes CUDA where there is one.

    Raises:
        UsageError: there is no CUDA device, or no worker.
    """

    def __init__(self, workers: int = 1, device: Device = "auto") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA device: use --device auto or cpu")
        if workers < 1:
            raise UsageError("--workers must be at least 1")
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.batched = self._device == "cuda"
        self._workers = 1 if self.batched else workers

    def run(
        self, jobs: Sequence[FoldJob], data: Mapping[str, RunData]
    ) -> Iterator[tuple[int, list[FoldResult]]]:
        """See `Executor`."""
        workers = min(self._workers, len(jobs))
        yield from run_jobs(_work, [(job, self._device) for job in jobs], workers, _start, (data,))
