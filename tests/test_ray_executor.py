"""Folds on Ray give what they give here, also when a worker is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from tests.run_data import SmallData
from train import ray_executor
from train.executors import LocalExecutor
from train.ray_executor import RayExecutor
from train.results import RunSpec
from train.sweep import run_sweep

SPECS = [
    RunSpec(model="gcn", type="A", epochs=2, batch=16),
    RunSpec(lam=True, au_loss="aau", epochs=2, batch=16, groups=2),
]

with_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`, 80 MB)"
)


def test_without_ray_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the extra ray"):
        RayExecutor()


@with_ray
@pytest.mark.filterwarnings("default")
def test_ray_gives_the_same_also_when_a_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = run_sweep(SPECS, SmallData(), tmp_path / "a", LocalExecutor(1, "cpu"), progress=False)
    victim = tmp_path / "victim"
    monkeypatch.setattr(ray_executor, "_task", _killed_once(str(victim)))
    executor = RayExecutor(workers=1)
    try:
        results = run_sweep(SPECS, SmallData(), tmp_path / "b", executor, progress=False)
    finally:
        executor.close()
    assert victim.exists()  # a worker was killed
    for a, b in zip(expected, results, strict=True):
        assert np.array_equal(a.scores, b.scores)


def _killed_once(victim: str):
    task = ray_executor._task

    def killed_once(job, data, code):
        if not os.path.exists(victim):
            with open(victim, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return task(job, data, code)

    return killed_once


@with_ray
@pytest.mark.filterwarnings("default")
def test_other_code_on_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(ray_executor, "code_digest", lambda: "of another version")
    executor = RayExecutor(workers=1)
    try:
        with pytest.raises(UsageError, match="another version of this program"):
            run_sweep(SPECS[:1], SmallData(), tmp_path, executor, progress=False)
    finally:
        executor.close()
