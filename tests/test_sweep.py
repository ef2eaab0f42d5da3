"""A sweep trains what is missing, and nothing that is done is lost, however it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from tests.run_data import SmallData, small_data, sweep_specs, write_program
from train.executors import LocalExecutor
from train.loso import LosoConfig, open_executor, report, spec_of
from train.results import RunSpec, SweepResults, load_run
from train.scales import at_scale
from train.sweep import _locked, run_sweep
from train.sweep_data import RunData

GCN = RunSpec(model="gcn", type="A", epochs=2, batch=16)


class Counting(LocalExecutor):
    """Says which folds are trained; breaks off before the `limit`-th."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__(1, "cpu")
        self.limit, self.trained = limit, []

    def run(self, jobs, data):
        for number, results in super().run(jobs, data):
            if len(self.trained) == self.limit:
                raise KeyboardInterrupt
            self.trained += [(jobs[number].folds[0][0], result.name) for result in results]
            yield number, results


def sweep(specs, out: Path, executor: LocalExecutor | None = None, seed: int = 0) -> SweepResults:
    return run_sweep(specs, SmallData(seed), out, executor or LocalExecutor(1, "cpu"), progress=False)


def same(a: SweepResults, b: SweepResults) -> bool:
    pairs = zip(a, b, strict=True)
    return all(x.header == y.header and np.array_equal(x.scores, y.scores) for x, y in pairs)


def test_equal_runs_are_trained_once_and_nothing_twice(tmp_path: Path):
    first = Counting()
    specs = sweep_specs(1)
    results = sweep(specs, tmp_path, first)
    assert [result.spec for result in results] == specs and results[specs[0]] is results.results[2]
    assert len(first.trained) == len(set(first.trained)) == 5 + 5 + 2
    again = Counting()
    assert same(results, sweep(specs, tmp_path, again)) and again.trained == []
    assert same(results, SweepResults(tmp_path, tuple(load_run(tmp_path, spec) for spec in specs)))
    lost = next((tmp_path / "runs" / results[specs[1]].header.key).glob("fold_*"))
    lost.write_bytes(lost.read_bytes()[:100])
    with pytest.raises(UsageError, match="1 of 5 folds"):
        load_run(tmp_path, specs[1])
    assert same(results, sweep(specs, tmp_path, again)) and len(again.trained) == 1


def test_an_interruption_costs_only_what_was_in_flight(tmp_path: Path):
    expected = sweep([GCN], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep([GCN], tmp_path / "out", Counting(limit=3))
    rest = Counting()
    assert same(expected, sweep([GCN], tmp_path / "out", rest))
    assert len(rest.trained) == 2


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="kills processes as Linux does")
def test_a_killed_program_goes_on_where_it_was(tmp_path: Path):
    """`kill -9` of a real program with two workers, in the middle of its sweep."""
    program, out = write_program(tmp_path), tmp_path / "out"
    command = [sys.executable, str(program), str(out), "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    given_up = time.monotonic() + 200
    while running.poll() is None and time.monotonic() < given_up:
        kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/fold_*.safetensors")}
        if len(kept) >= 2:
            break
        os.sched_yield()
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/fold_*.safetensors")}
    assert 2 <= len(kept) < 12  # it was in the middle
    assert subprocess.run(command, env=environment).returncode == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/fold_*.safetensors")}
    assert len(after) == 12 and all(after[path] == time_ns for path, time_ns in kept.items())
    results = SweepResults(out, tuple(load_run(out, spec) for spec in sweep_specs(2)))
    assert same(results, sweep(sweep_specs(2), tmp_path / "whole"))


def test_one_command_at_a_time_writes_into_a_folder(tmp_path: Path):
    with _locked(tmp_path), pytest.raises(UsageError, match="another command is at work"):
        sweep([GCN], tmp_path)
    assert len(sweep([GCN], tmp_path)) == 1


def test_folds_outlive_a_damaged_description(tmp_path: Path):
    sweep([GCN], tmp_path)
    (description,) = tmp_path.glob("runs/*/run.json")
    whole = description.read_text()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/fold_*")}
    description.write_text(whole[:50])
    sweep([GCN], tmp_path)
    assert description.read_text() == whole
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/fold_*")} == times


def test_other_data_are_another_run(tmp_path: Path):
    a, b = sweep([GCN], tmp_path), sweep([GCN], tmp_path, seed=1)
    assert a[GCN].header.key != b[GCN].header.key
    with pytest.raises(UsageError, match="holds 2 runs"):
        load_run(tmp_path, GCN)
    with pytest.raises(UsageError, match="holds 0 runs of casme2 objective gcn A seed7"):
        load_run(tmp_path, replace(GCN, seed=7))


def test_a_sample_under_two_names_is_refused(tmp_path: Path):
    class Twins(SmallData):
        def of(self, spec: RunSpec) -> RunData:
            data = small_data(spec)
            data.inputs[-1] = data.inputs[0]
            return data

    with pytest.raises(UsageError, match="under another name"):
        run_sweep([GCN], Twins(), tmp_path, LocalExecutor(1, "cpu"), progress=False)


def test_scalars_for_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    executor = LocalExecutor(1, "cpu")
    results = run_sweep([GCN], SmallData(), tmp_path, executor, progress=False, tensorboard=True)
    result = results[GCN]
    folders = sorted((tmp_path / "tensorboard" / result.header.key).iterdir())
    assert len(folders) == len(result.folds)
    events = EventAccumulator(str(folders[0])).Reload()
    values = [event.value for event in events.Scalars(f"{GCN.name}/loss")]
    np.testing.assert_allclose(values, result.folds[0].loss, rtol=1e-6)


# -- specs and the command -----------------------------------------------------------------------------


def test_specs_that_mean_the_same_are_equal():
    assert RunSpec(model="gcn", type="A", fusion_layer=3, beta=0.2) == RunSpec(model="gcn", type="A")
    assert RunSpec(fusion_layer=4, au_loss="aau") == RunSpec(fusion_layer=4, au_loss="au", au_layer=4)
    assert RunSpec(model="resnet18-s", lam=True, node_set="dlib68") == RunSpec(model="resnet18-s")
    different = [RunSpec(), RunSpec(lam=True), RunSpec(seed=1), RunSpec(protocol="paper"), RunSpec(groups=2)]
    assert len({spec.key("data") for spec in different}) == len({*different}) == 5
    assert RunSpec().key("data") != RunSpec().key("other data")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "A"}, "needs features of type B"),
        ({"model": "gcn", "au_loss": "aau"}, "no action-unit heads"),
        ({"fusion_layer": 5}, "layers are 1 to 4"),
        ({"groups": 1}, "groups must be 0 or at least 2"),
        ({"protocol": "paper", "validation_subjects": 1}, "has no validation subjects"),
        ({"tested": "samm"}, "tested samm"),
        ({"epochs": 0}, "too small"),
        ({"au_loss": "aau", "beta": float("inf")}, "not finite"),
        ({"seed": 10**20}, "seed too large"),
    ],
)
def test_specs_that_make_no_sense(values: dict, message: str):
    with pytest.raises(UsageError, match=message):
        RunSpec(**values)


def test_flags_of_the_command(tmp_path: Path):
    config = LosoConfig("casme2", tmp_path, tmp_path)
    spec = spec_of(config)
    assert (spec.model, spec.type, spec.lam, spec.au_loss, spec.groups) == ("gts-gn", "B", True, "aau", 0)
    spec = spec_of(replace(config, model="resnet18-st", scale="quick", epochs=3))
    assert (spec.au_loss, spec.epochs, spec.lam) == ("none", 3, False) and spec.groups and spec.picture < 224
    assert at_scale(spec, "full").picture == 224 and at_scale(spec, "full").epochs > 3
    with pytest.raises(UsageError, match="--workers must be at least 1"):
        open_executor(replace(config.run, workers=0))
    with pytest.raises(UsageError, match="belongs to --executor ray"):
        open_executor(replace(config.run, address="auto"))


def test_the_report_says_what_flatters_and_what_is_simulated(tmp_path: Path):
    result = sweep([replace(GCN, protocol="paper", groups=2)], tmp_path).results[0]
    text = report(result)
    assert "SIMULATED" in text and "WHICH FLATTERS" in text and "groups of subjects" in text
    metrics = result.metrics
    assert f"ACC      {metrics.accuracy:.4f}" in text and f"UAR      {metrics.uar:.4f}" in text
    assert [line.split()[1:] for line in text.splitlines()[-3:]] == [
        [str(count) for count in row] for row in metrics.confusion.tolist()
    ]
    honest = report(sweep([GCN], tmp_path).results[0])
    assert "nothing chosen on the test subjects" in honest and "FLATTERS" not in honest
