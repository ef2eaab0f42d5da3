"""Folds on a Ray cluster, or on Ray's own workers on this machine (extra `ray`).

Workers take tasks by unpickling them: whoever can reach a cluster can run code on it. That is Ray's own trust
model: keep it inside a network that you trust. Nothing is reported to Ray's makers, no dashboard is opened.
Every machine needs this package in the same version; a worker with other code refuses.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamer.errors import StreamerError, UsageError
from streamer.fetching import one_line
from train.executors import FoldJob, train_job
from train.fold_files import FoldResult
from train.sweep_data import RunData, code_digest

RETRIES = 5
"""How often a fold is begun anew after the death of its worker."""


def _task(job: FoldJob, data: RunData, code: str) -> list[FoldResult]:
    if code_digest() != code:
        raise UsageError("a Ray worker has another version of this program: install the same everywhere")
    return train_job(job, data)


class RayExecutor:
    """Each fold a task of one CPU; data are put into the object store once.

    Args:
        address: of a running cluster ("auto", "HOST:6379"); empty: workers on this machine, for this command.
        workers: without an address, how many.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """

    batched = False

    def __init__(self, address: str = "", workers: int = 1) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--executor ray needs the extra ray: pip install 'gtsgn-streamer[ray]'")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Ray otherwise warns of a coming change in how it treats GPUs, which no task asks for.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray: Any = importlib.import_module("ray")
        self._ray = ray
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                ray.init(address="local", num_cpus=workers, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"no Ray cluster at {address or 'this machine'} ({one_line(error)}): check that it runs, and "
                f"that its token is set up here, with RAY_AUTH_MODE=token, if it asks for one"
            ) from error

    def run(
        self, jobs: Sequence[FoldJob], data: Mapping[str, RunData]
    ) -> Iterator[tuple[int, list[FoldResult]]]:
        """See `Executor`. A task whose worker dies is begun anew, on another."""
        ray = self._ray
        task = ray.remote(_task).options(num_cpus=1, max_retries=RETRIES)
        stored = {name: ray.put(part) for name, part in data.items()}
        code = ray.put(code_digest())
        # A worker of another machine has no such folder to keep the state between epochs in.
        sent = [replace(job, checkpoint=None) for job in jobs]
        left = {task.remote(job, stored[job.data], code): number for number, job in enumerate(sent)}
        try:
            while left:
                done, _ = ray.wait(list(left), num_returns=1)
                yield left.pop(done[0]), self._result(done[0])
        finally:
            for reference in left:
                ray.cancel(reference, force=True)

    def _result(self, reference: object) -> list[FoldResult]:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, StreamerError):
                raise error.cause from error
            raise
        except errors.RayError as error:
            raise StreamerError(
                f"Ray workers died {RETRIES + 1} times over one fold ({type(error).__name__}); "
                f"the same command goes on from here"
            ) from error

    def close(self) -> None:
        """Leave the cluster; end the workers that were started for this command."""
        self._ray.shutdown()
