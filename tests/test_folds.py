"""Folds never mix a test subject into training, and a leak planted on purpose is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streamer.errors import UsageError
from train.folds import Fold, LeakError, across_databases, check_blind, check_folds, leave_one_subject_out

PERSONS = [f"casme2/sub{k % 5:02d}" for k in range(30)]


@given(
    st.lists(st.integers(0, 6), min_size=8, max_size=40),
    st.integers(0, 2),
    st.sampled_from(["honest", "paper"]),
)
def test_every_sample_is_tested_once_and_never_trained_on(numbers, validation, protocol):
    persons = [f"p{number}" for number in numbers]
    if len(set(persons)) < 2 + validation:
        with pytest.raises(UsageError, match="somebody to train on is needed"):
            leave_one_subject_out(persons, protocol, validation)
        return
    folds = leave_one_subject_out(persons, protocol, validation)
    check_folds(folds, persons)
    assert [fold.name for fold in folds] == list(dict.fromkeys(persons))
    for fold in folds:
        names = np.array(persons)
        assert set(names[fold.test]) == {fold.name}
        assert fold.name not in names[fold.train]
        if protocol == "paper":
            assert fold.selects_on_test and np.array_equal(fold.validation, fold.test)
            continue
        assert not fold.selects_on_test and fold.name not in names[fold.validation]
        assert len(set(names[fold.validation])) == validation
        assert len(fold.train) + len(fold.validation) + len(fold.test) == len(persons)


@given(
    st.lists(st.integers(0, 9), min_size=10, max_size=60),
    st.sampled_from([(2, 0), (3, 0), (3, 1), (4, 1)]),
)
def test_groups_keep_a_subject_on_one_side(numbers, scheme):
    groups, validation = scheme
    persons = [f"p{number}" for number in numbers]
    assume(len(set(persons)) >= groups)
    folds = leave_one_subject_out(persons, validation_subjects=validation, groups=groups)
    check_folds(folds, persons)
    assert [fold.name for fold in folds] == [f"group {k + 1} of {groups}" for k in range(groups)]
    most = max(numbers.count(number) for number in numbers)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= most


def test_a_subject_with_most_samples_may_leave_nobody_to_validate_on():
    persons = ["much"] * 7 + ["a", "b", "c"]
    assert len(leave_one_subject_out(persons, groups=2)) == 2
    with pytest.raises(UsageError, match="4 subjects, 2 folds and 1 subjects to validate on"):
        leave_one_subject_out(persons, groups=2, validation_subjects=1)


def test_too_few_subjects_for_the_groups():
    with pytest.raises(UsageError, match="5 subjects, 6 folds"):
        leave_one_subject_out(PERSONS, groups=6)


def test_validation_subjects_differ_between_folds_and_repeat_with_the_seed():
    folds = leave_one_subject_out(PERSONS, validation_subjects=1, seed=3)
    again = leave_one_subject_out(PERSONS, validation_subjects=1, seed=3)
    chosen = [PERSONS[fold.validation[0]] for fold in folds]
    assert len(set(chosen)) > 1
    assert chosen == [PERSONS[fold.validation[0]] for fold in again]


def test_from_one_database_to_another():
    databases = ["casme2"] * 18 + ["samm"] * 12
    persons = [f"{database}/{k % 4}" for k, database in enumerate(databases)]
    fold = across_databases(persons, databases, "samm", validation_subjects=1)
    assert np.array_equal(fold.test, np.arange(18, 30))
    assert len(set(np.array(persons)[fold.validation])) == 1 and fold.validation.max() < 18
    assert len(fold.train) + len(fold.validation) == 18
    check_folds([fold], persons)
    with pytest.raises(UsageError, match="mmew has 0 of 30"):
        across_databases(persons, databases, "mmew")


# -- leaks in splits -----------------------------------------------------------------------------------


def test_a_tested_person_in_training_is_caught():
    folds = leave_one_subject_out(PERSONS)
    for planted in ("train", "validation"):
        leaky = replace(folds[0], **{planted: np.append(getattr(folds[0], planted), folds[0].test[:1])})
        with pytest.raises(LeakError, match="sub00 is tested and trained on"):
            check_folds([leaky, *folds[1:]], PERSONS)


def test_the_same_data_under_another_name_is_caught():
    features = np.random.default_rng(0).normal(size=(30, 4))
    folds = leave_one_subject_out(PERSONS)
    check_folds(folds, PERSONS, features)
    features[7] = features[5]
    with pytest.raises(LeakError, match="has the data of a tested sample"):
        check_folds(folds, PERSONS, features)


def test_a_forgotten_sample_is_caught():
    folds = leave_one_subject_out(PERSONS)
    with pytest.raises(LeakError, match="exactly once"):
        check_folds(folds[:-1], PERSONS)


# -- leaks in what is done with them -------------------------------------------------------------------

RNG = np.random.default_rng(1)
LABEL = np.arange(30) % 3
FEATURES = RNG.normal(size=(30, 6)) + 0.5 * np.eye(6)[LABEL]


def centroids(features: np.ndarray, label: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.stack([features[chosen][label[chosen] == k].mean(0) for k in range(3)])


def scores(features: np.ndarray, centres: np.ndarray, sharpness: float) -> np.ndarray:
    return -sharpness * np.linalg.norm(features[:, None] - centres, axis=2)


def honest(features: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
    return scores(features[fold.test], centroids(features, label, fold.train), 1.0)


def selects(features: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
    """Chooses the one column of the features that is best on the fold's validation samples."""
    centres = centroids(features, label, fold.train)

    def said(column: int, samples: np.ndarray) -> np.ndarray:
        return scores(features[samples, column : column + 1], centres[:, column : column + 1], 1.0)

    right = [(said(k, fold.validation).argmax(1) == label[fold.validation]).mean() for k in range(6)]
    return said(int(np.argmax(right)), fold.test)


def normalises_over_everything(features: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
    return honest((features - features.mean(0)) / features.std(0), label, fold)


def trains_on_all(features: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
    return scores(features[fold.test], centroids(features, label, np.arange(len(label))), 1.0)


def test_the_honest_protocol_is_blind():
    for fold in leave_one_subject_out(PERSONS, validation_subjects=1):
        check_blind(honest, FEATURES, LABEL, fold)
        check_blind(selects, FEATURES, LABEL, fold)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (trains_on_all, "labels of the test subject"),
        (normalises_over_everything, "other samples of the test"),
    ],
)
def test_planted_leaks_are_caught(run, message: str):
    for fold in leave_one_subject_out(PERSONS):
        with pytest.raises(LeakError, match=message):
            check_blind(run, FEATURES, LABEL, fold)


def test_choosing_on_the_test_fold_is_seen():
    caught = 0
    for fold in leave_one_subject_out(PERSONS, "paper"):
        try:
            check_blind(selects, FEATURES, LABEL, fold)
        except LeakError:
            caught += 1
    assert caught >= 3, "the paper's protocol does look at the test subject"


def test_a_run_that_is_not_repeatable_cannot_be_checked():
    def noisy(features: np.ndarray, label: np.ndarray, fold: Fold) -> np.ndarray:
        return RNG.normal(size=(len(fold.test), 3))

    with pytest.raises(LeakError, match="fix its seeds"):
        check_blind(noisy, FEATURES, LABEL, leave_one_subject_out(PERSONS)[0])
