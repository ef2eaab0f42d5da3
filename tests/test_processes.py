"""Worker processes give every result, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamer.errors import StreamerError
from train.processes import run_jobs


def double(number: int) -> int:
    if number == 13:
        raise ValueError("13")
    return 2 * number


def test_one_worker_runs_here_and_in_order():
    started = []
    jobs = [(1,), (2,), (3,)]
    assert list(run_jobs(double, jobs, 1, started.append, ("begun",))) == [(0, 2), (1, 4), (2, 6)]
    assert started == ["begun"]


def test_more_workers_give_the_same():
    assert sorted(run_jobs(double, [(k,) for k in range(5)], 2)) == [(k, 2 * k) for k in range(5)]
    with pytest.raises(ValueError, match="13"):
        list(run_jobs(double, [(k,) for k in range(10, 20)], 2))


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_of_one_line():
    with pytest.raises(StreamerError, match="a worker process was killed.*the same command again"):
        list(run_jobs(die, [(1,), (2,)], 2))


def fail_or_sleep(mark: Path, fails: bool) -> None:
    if fails:
        raise ValueError("one of them")
    time.sleep(20)
    mark.touch()


def test_what_others_were_doing_is_not_waited_for(tmp_path: Path):
    jobs = [(tmp_path / str(k), k == 1) for k in range(4)]
    with pytest.raises(ValueError, match="one of them"):
        list(run_jobs(fail_or_sleep, jobs, 2))
    assert not list(tmp_path.iterdir())


PROGRAM = """
import os, sys, time
from train.processes import run_jobs

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(run_jobs(work, [(600,), (600,)], 2))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_of_a_killed_parent_end(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    # Python's own helper complains on stderr of what a killed program leaves.
    parent = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    given_up = time.monotonic() + 20
    while (left := [worker for worker in workers if _lives(worker)]) and time.monotonic() < given_up:
        os.sched_yield()
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"
