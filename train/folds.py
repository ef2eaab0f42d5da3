"""Who is trained on and who is tested: leave-one-subject-out, and from one database to another.

Two protocols. `honest` (the default) chooses nothing on the test subject: the number of epochs is fixed
beforehand, or chosen on inner validation subjects. `paper` lets the best epoch be chosen on the test fold, as
published figures of this field often were; it flatters by several percent, and every table made under it has
to say so (`Fold.selects_on_test`). Predictions are pooled over all folds before any
figure is taken (See et al. 2019, MEGC).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError

I64 = NDArray[np.int64]

Protocol = Literal["honest", "paper"]


class LeakError(RuntimeError):
    """A test subject's data reach what is trained or chosen: a fault of the program, never of its user."""


class SameDataError(LeakError, UsageError):
    """One sample's data are there under two names: for the user to mend."""


@dataclass(frozen=True)
class Fold:
    """One split. name: who or what is tested. train, validation, test: indices of samples, int64, ascending.

    validation is what epochs and the like are chosen on: inner subjects, or nobody (nothing is chosen); under
    the protocol `paper`, the test samples themselves.
    """

    name: str
    train: I64
    validation: I64
    test: I64
    protocol: Protocol = "honest"

    @property
    def selects_on_test(self) -> bool:
        """Whether figures made with this fold flatter."""
        return self.protocol == "paper"


def leave_one_subject_out(
    persons: Sequence[str],
    protocol: Protocol = "honest",
    validation_subjects: int = 0,
    seed: int = 0,
    groups: int = 0,
) -> list[Fold]:
    """One fold a person, in order of first appearance; or one fold a group of persons.

    Args:
        persons: (N,) whose sample each is, `Sample.person`.
        validation_subjects: with `honest`, how many of the other persons are held back to choose on, drawn
            anew for each fold; 0 = nothing is chosen.
        groups: 0 = one fold a person; else so many folds, of persons whose samples number about the same.

    Raises:
        UsageError: too few persons.
    """
    everybody = list(dict.fromkeys(persons))
    owner = np.array([everybody.index(person) for person in persons], np.int64)
    parts = _groups(np.bincount(owner), groups) if groups else [[k] for k in range(len(everybody))]
    left = len(everybody) - max(map(len, parts), default=0)
    if len(everybody) < max(2, groups) or left < 1 + validation_subjects:
        raise UsageError(
            f"{len(everybody)} subjects, {groups or len(everybody)} folds and {validation_subjects} subjects "
            f"to validate on: somebody to test on and somebody to train on is needed in each fold"
        )
    folds = []
    for number, part in enumerate(parts):
        name = f"group {number + 1} of {groups}" if groups else everybody[number]
        others = np.setdiff1d(np.arange(len(everybody)), part)
        draw = (seed, number)
        tested = np.isin(owner, part)
        folds.append(_fold(name, owner, tested, others, protocol, validation_subjects, draw))
    return folds


def _groups(samples: I64, groups: int) -> list[list[int]]:
    """Persons in groups: each in turn, those with most samples first, to the group with fewest.

    samples: (persons,) how many each has.
    """
    parts: list[list[int]] = [[] for _ in range(groups)]
    for person in np.argsort(-samples, kind="stable").tolist():
        min(parts, key=lambda part: int(samples[part].sum())).append(person)
    return parts


def across_databases(
    persons: Sequence[str],
    databases: Sequence[str],
    tested: str,
    protocol: Protocol = "honest",
    validation_subjects: int = 0,
    seed: int = 0,
) -> Fold:
    """Train on every other database, test on `tested`. databases: (N,) of each sample.

    Raises:
        UsageError: one side has no samples, or too few persons are left to train on.
    """
    test = np.array([database == tested for database in databases])
    if test.all() or not test.any():
        raise UsageError(
            f"{tested} has {int(test.sum())} of {len(test)} samples: name a database to test on, and have "
            f"another to train on"
        )
    everybody = list(dict.fromkeys(persons))
    owner = np.array([everybody.index(person) for person in persons], np.int64)
    others = np.unique(owner[~test])
    if len(others) < 1 + validation_subjects:
        raise UsageError(f"{len(others)} subjects to train on, {validation_subjects} of them to validate on")
    return _fold(tested, owner, test, others, protocol, validation_subjects, (seed, len(everybody)))


def _fold(
    name: str,
    owner: I64,
    test: NDArray[np.bool_],
    others: I64,
    protocol: Protocol,
    validation_subjects: int,
    seed: Sequence[int],
) -> Fold:
    """others: numbers of the persons that may be trained on."""
    tested = np.flatnonzero(test)
    if protocol == "paper":
        return Fold(name, np.flatnonzero(np.isin(owner, others)), tested, tested, "paper")
    inner = np.random.default_rng(seed).choice(others, validation_subjects, replace=False)
    validation = np.isin(owner, inner)
    return Fold(
        name, np.flatnonzero(np.isin(owner, others) & ~validation), np.flatnonzero(validation), tested
    )


def check_folds(folds: Sequence[Fold], persons: Sequence[str], features: NDArray[Any] | None = None) -> None:
    """Look for leaks in splits, before anything is trained.

    features: (N, ...), to find the same data under two names too.

    Raises:
        SameDataError: data equal to a tested person's are trained or validated on. LeakError: the person is
            (validated on is allowed to `paper`); a sample is in no fold's test, or in two.
    """
    owner = np.array(persons)
    digest = [sample.tobytes() for sample in np.asarray(features)] if features is not None else None
    for fold in folds:
        seen = fold.train if fold.selects_on_test else np.union1d(fold.train, fold.validation)
        both = set(owner[fold.test]) & set(owner[seen])
        if both:
            raise LeakError(f"fold {fold.name}: {', '.join(sorted(both))} is tested and trained on")
        if digest is not None:
            tested = {digest[k] for k in fold.test}
            twins = [k for k in seen.tolist() if digest[k] in tested]
            if twins:
                raise SameDataError(
                    f"fold {fold.name}: sample {twins[0]} has the data of a tested sample (under another "
                    f"name): remove one of them"
                )
    tested = np.concatenate([fold.test for fold in folds])
    if len(folds) > 1 and not np.array_equal(np.sort(tested), np.arange(len(persons))):
        raise LeakError("not every sample is tested exactly once")


def check_blind(
    run: Callable[[NDArray[Any], I64, Fold], NDArray[Any]],
    features: NDArray[Any],
    label: I64,
    fold: Fold,
    seed: int = 0,
) -> None:
    """Make sure that a whole training run cannot see the test subject, by changing what it must not see.

    With other labels of the test samples, every prediction has to stay as it was: nothing was trained or
    chosen on them. With other data in half of the test samples, the predictions of the other half have to
    stay: no statistic was taken over the test samples.

    Args:
        run: trains on a fold and returns scores, (len(fold.test), classes); the same for the same arguments.
        features: (N, ...) float. label: (N,).

    Raises:
        LeakError: a prediction has changed.
    """
    expected = np.asarray(run(features, label, fold))
    again = np.asarray(run(features, label, fold))
    if not np.array_equal(expected, again):
        raise LeakError(f"fold {fold.name}: two equal runs differ, so nothing can be told: fix its seeds")
    other_label = label.copy()
    other_label[fold.test] = (label[fold.test] + 1) % (int(label.max()) + 1)
    if not np.array_equal(expected, run(features, other_label, fold)):
        raise LeakError(f"fold {fold.name}: predictions depend on the labels of the test subject")
    half = np.arange(len(fold.test)) % 2 == 1
    if not half.any():
        return
    other = features.copy()
    rng = np.random.default_rng(seed)
    changed = fold.test[half]
    other[changed] += rng.normal(0.0, 3.0 * float(features.std()) + 1e-3, other[changed].shape)
    if not np.array_equal(expected[~half], np.asarray(run(other, label, fold))[~half]):
        raise LeakError(f"fold {fold.name}: predictions depend on other samples of the test subject")
