"""A fold gives the same whoever trains it, and never sees whom it is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamer.errors import UsageError
from tests.run_data import SMALL, SmallData, small_data
from train import fold_checkpoints, fold_training
from train.executors import LocalExecutor, train_job
from train.fold_files import FoldResult, fold_path, read_fold, write_fold
from train.fold_networks import FoldNetworks, ManyFolds, OneFold, build_learner
from train.fold_training import _Training, folds_of, sample_order, steps_an_epoch, train_folds
from train.folds import Fold, LeakError, check_blind, check_folds
from train.results import RunSpec
from train.sweep import run_sweep
from train.sweep_data import RunData

WHOLE = replace(SMALL, lam=True, au_loss="aau", fusion_layer=2)
SPECS = [
    WHOLE,
    replace(SMALL, model="gcn", type="A", validation_subjects=1),
    replace(SMALL, model="ss-gn", type="B", lam=True, protocol="paper"),
    replace(SMALL, au_loss="au", au_layer=3, beta=0.3, groups=2),
]


def alone(spec: RunSpec, data: RunData) -> list[FoldResult]:
    folds = folds_of(spec, data)
    steps = steps_an_epoch(spec, folds)
    return [train_folds([(spec, fold)], data, steps)[0] for fold in folds]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_batched_folds_give_what_folds_one_by_one_give(spec: RunSpec):
    """Trained in double precision: what rounding does to the last digits stays far below 1e-5."""
    data = small_data(spec)
    folds = folds_of(spec, data)
    assert len({len(fold.train) for fold in folds}) > 1  # of unequal size
    single = alone(spec, data)
    batched = train_folds([(spec, fold) for fold in folds], data, steps_an_epoch(spec, folds))
    for a, b in zip(single, batched, strict=True):
        assert a.name == b.name and a.epoch == b.epoch and a.parameters == b.parameters
        assert np.array_equal(a.scores.argmax(1), b.scores.argmax(1))
        for name in ("scores", "action_units", "loss", "accuracy", "validation_accuracy", "aau_weights"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-5, err_msg=name)
        for name in ("lam", "features"):
            assert getattr(a, name).keys() == getattr(b, name).keys()
            for layer, values in getattr(a, name).items():
                np.testing.assert_allclose(values, getattr(b, name)[layer], rtol=0, atol=1e-5)


def test_seeds_can_be_batched_with_folds():
    data = small_data(WHOLE)
    folds, other = folds_of(WHOLE, data)[:2], replace(WHOLE, seed=1)
    steps = steps_an_epoch(WHOLE, folds_of(WHOLE, data))
    jobs = [(spec, fold) for spec in (WHOLE, other) for fold in folds]
    batched = train_folds(jobs, data, steps)
    for (spec, fold), result in zip(jobs, batched, strict=True):
        expected = train_folds([(spec, fold)], data, steps)[0]
        np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-5)
    assert np.abs(batched[0].scores - batched[2].scores).max() > 1e-3  # the seeds do differ
    with pytest.raises(UsageError, match="different models"):
        train_folds([(WHOLE, folds[0]), (replace(WHOLE, lam=False), folds[0])], data, steps)


def test_processes_give_the_bits_of_one_process(tmp_path: Path):
    """And so does another number of threads in the process that asks."""
    specs = [WHOLE, SPECS[1]]
    here = run_sweep(specs, SmallData(), tmp_path / "a", LocalExecutor(1, "cpu"), progress=False)
    there = run_sweep(specs, SmallData(), tmp_path / "b", LocalExecutor(2, "cpu"), progress=False)
    for a, b in zip(here, there, strict=True):
        assert a.header == b.header and np.array_equal(a.scores, b.scores)
    assert torch.get_num_threads() >= 1


def test_the_batched_executor_gives_the_same_predictions(tmp_path: Path):
    class OnThisDevice(LocalExecutor):
        """The batched form, as on a GPU, on the CPU."""

        def __init__(self) -> None:
            super().__init__(1, "cpu")
            self.batched = True

    specs = [
        WHOLE,
        replace(WHOLE, seed=1),
        RunSpec(model="resnet18-st", picture=32, epochs=1, batch=8, groups=2),
    ]
    single = run_sweep(specs, SmallData(), tmp_path / "a", LocalExecutor(1, "cpu"), progress=False)
    batched = run_sweep(specs, SmallData(), tmp_path / "b", OnThisDevice(), progress=False)
    for a, b in zip(single, batched, strict=True):
        assert np.array_equal(a.predicted, b.predicted)
        np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1e-5)


def test_the_order_of_samples():
    data = small_data(WHOLE)
    fold = folds_of(WHOLE, data)[1]
    samples, views = sample_order(WHOLE, fold, 12, 2)
    assert samples.shape == views.shape == (12, WHOLE.batch)
    assert set(samples.ravel()) == set(fold.train)  # nothing else, and everything
    count = np.bincount(samples.ravel(), minlength=len(data.label))[fold.train]
    assert count.max() - count.min() <= 1 and set(views.ravel()) == {0, 1}
    assert not np.array_equal(samples, sample_order(replace(WHOLE, seed=1), fold, 12, 2)[0])


# -- honesty -------------------------------------------------------------------------------------------


def runner(spec: RunSpec, data: RunData):
    """The real training of a fold, in the form that `check_blind` takes."""
    steps = steps_an_epoch(spec, folds_of(spec, data))

    def run(inputs: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
        changed = replace(data, inputs=inputs.astype(np.float32), label=label)
        return train_folds([(spec, fold)], changed, steps)[0].scores

    return run


@pytest.mark.parametrize("spec", [WHOLE, SPECS[1]], ids=["fixed epochs", "inner validation"])
def test_the_honest_protocol_cannot_see_the_test_subject(spec: RunSpec):
    data = small_data(spec)
    folds = folds_of(spec, data)
    check_folds(folds, data.persons, data.inputs)
    check_blind(runner(spec, data), data.inputs, data.label, folds[0])


def test_a_leak_planted_on_purpose_is_caught():
    data = small_data(WHOLE)
    fold = folds_of(WHOLE, data)[0]
    planted = replace(fold, train=np.append(fold.train, fold.test[:1]))
    with pytest.raises(LeakError, match="labels of the test subject"):
        check_blind(runner(WHOLE, data), data.inputs, data.label, planted)
    with pytest.raises(LeakError, match="is tested and trained on"):
        check_folds([planted, *folds_of(WHOLE, data)[1:]], data.persons)


def test_statistics_over_the_test_subject_are_caught(monkeypatch: pytest.MonkeyPatch):
    """A network left in training mode normalises the tested samples by each other."""
    networks = fold_training.OneFold
    data = small_data(WHOLE)
    fold = folds_of(WHOLE, data)[0]

    class Careless(networks):
        def _answers(self, samples):
            self._learner.eval = self._learner.train
            return super()._answers(samples)

    monkeypatch.setattr(fold_training, "OneFold", Careless)
    with pytest.raises(LeakError, match="other samples of the test"):
        check_blind(runner(WHOLE, data), data.inputs, data.label, fold)


def test_the_paper_protocol_does_look_at_the_test_subject():
    spec = RunSpec(model="gcn", type="A", protocol="paper", epochs=8, batch=16)
    data = small_data(spec)
    caught = []
    for fold in folds_of(spec, data):
        try:
            check_blind(runner(spec, data), data.inputs, data.label, fold)
        except LeakError as error:
            caught.append(str(error))
    assert any("labels of the test subject" in text for text in caught)
    assert all("of the test subject" in text for text in caught)


def test_the_epoch_is_the_best_on_the_validation_samples():
    spec = replace(SPECS[1], epochs=8)
    for result in alone(spec, small_data(spec)):
        assert len(result.validation_accuracy) == 8
        assert result.validation_accuracy[result.epoch - 1] == result.validation_accuracy.max()
    fixed = alone(WHOLE, small_data(WHOLE))[0]
    assert fixed.epoch == WHOLE.epochs and len(fixed.validation_accuracy) == 0


@pytest.mark.parametrize("kind", [OneFold, ManyFolds])
def test_short_trainings_forget_the_variance_that_normalisation_begins_with(kind: type[FoldNetworks]):
    spec = replace(WHOLE, epochs=2)
    data = small_data(spec)
    fold = folds_of(spec, data)[0]
    scores = []
    for begin in (1.0, 1000.0):
        networks = kind([build_learner(spec, 3, 2)], data, torch.device("cpu"))
        variances = [v for name, v in networks.state().items() if name.endswith("running_var")]
        for variance in variances:
            variance.fill_(begin)
        samples, views = sample_order(spec, fold, 2, data.inputs.shape[1])
        _Training(spec, networks, [fold], data, 1).run(samples[:, None], views[:, None], None)
        scores.append(networks.answers(fold.test[None]).classes.numpy())
    assert len(variances) > 5 and np.array_equal(*scores)


# -- what is kept --------------------------------------------------------------------------------------


def test_a_fold_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = small_data(WHOLE)
    result = alone(WHOLE, data)[0]
    assert sorted(result.lam) == ["fused.3", "fused.4", "high.1", "high.2", "low.1", "low.2"]
    assert {layer: f.shape[1] for layer, f in result.features.items()} == {"2": 64, "3": 128, "4": 128}
    assert result.aau_weights.shape == (3,) and result.aau_weights.sum() == pytest.approx(1.0)
    write_fold(tmp_path, result)
    sizes = len(data.samples), len(data.classes)
    again = read_fold(tmp_path, result.name, *sizes)
    assert again is not None and again.name == result.name and again.seconds == result.seconds
    assert np.array_equal(again.scores, result.scores)
    assert all(np.array_equal(again.lam[layer], result.lam[layer]) for layer in result.lam)
    assert read_fold(tmp_path, "another", *sizes) is None
    assert read_fold(tmp_path, result.name, sizes[0], 5) is None and "of another run" in caplog.text
    assert read_fold(tmp_path, result.name, int(result.test.max()), sizes[1]) is None
    caplog.clear()
    path = fold_path(tmp_path, result.name)
    path.write_bytes(path.read_bytes()[:-10])
    assert read_fold(tmp_path, result.name, *sizes) is None and "trained again" in caplog.text


def test_an_interrupted_fold_goes_on_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = replace(SPECS[1], epochs=4, lam=True)
    data = small_data(spec)
    folds = folds_of(spec, data)
    steps = steps_an_epoch(spec, folds)
    expected = train_folds([(spec, folds[0])], data, steps)[0]
    path = tmp_path / "fold.checkpoint"
    monkeypatch.setattr(fold_checkpoints, "EVERY_S", 0.0)
    losses = fold_training.OneFold.losses
    calls = []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2 * steps + 2:  # in the third epoch
            raise KeyboardInterrupt
        return losses(self, *arguments)

    monkeypatch.setattr(fold_training.OneFold, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_folds([(spec, folds[0])], data, steps, checkpoint=path)
    calls.clear()
    result = train_folds([(spec, folds[0])], data, steps, checkpoint=path)[0]
    assert len(calls) == 2 * steps  # the first two epochs were not repeated
    assert np.array_equal(result.scores, expected.scores) and result.epoch == expected.epoch
    assert np.array_equal(result.loss, expected.loss)


def test_threads_are_left_as_they_were():
    data = small_data(WHOLE)
    folds = folds_of(WHOLE, data)
    from train.executors import FoldJob

    before = torch.get_num_threads()
    train_job(FoldJob(((WHOLE, folds[0]),), "", 1), data)
    assert torch.get_num_threads() == before
