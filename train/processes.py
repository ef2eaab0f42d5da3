"""Worker processes: fresh interpreters that end with the one that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from streamer.errors import StreamerError

Result = TypeVar("Result")


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with(parent: Any) -> None:
    # A killed parent closes nothing, and its workers would wait for work for ever.
    parent.join()
    os._exit(1)


def run_jobs(
    work: Callable[..., Result],
    jobs: Iterable[tuple[Any, ...]],
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[tuple[int, Result]]:
    """(number of the job, `work(*job)`) for every job, in the order in which they are done.

    With one worker everything runs here, in order. With more, in as many processes; these are started
    afresh, because what the landmark model has running does not survive a fork.

    Args:
        start, arguments: called once in each process, before its first job.

    Raises:
        What `work` raises, for the first job that fails; the others are ended. StreamerError: a process
        was killed.
    """
    if workers == 1:
        if start is not None:
            start(*arguments)
        for number, job in enumerate(jobs):
            yield number, work(*job)
        return
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _begin, (start, arguments)) as pool:
        numbers = {pool.submit(work, *job): number for number, job in enumerate(jobs)}
        try:
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        except BrokenProcessPool as error:
            raise StreamerError(
                "a worker process was killed, for want of memory perhaps: give the same command again, with "
                "fewer --workers; what is done is kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A job that a process has, or will be handed next, cannot be cancelled, and may take an hour.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
