"""Which samples take part in which setting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.errors import UsageError
from train.datasets import Sample, select


def sample(database: str, subject: str, number: int, objective: str | None, emotion: str | None) -> Sample:
    return Sample(
        database, subject, f"c{number}", 200.0, 1, 2, 3, None, None, None, emotion, objective, (), "test"
    )


def samples(database: str, objective: dict[str, int], emotion: dict[str, int]) -> list[Sample]:
    classes = [name for name, count in objective.items() for _ in range(count)]
    words = [name for name, count in emotion.items() for _ in range(count)]
    assert len(classes) == len(words)
    return [
        sample(database, f"s{k % 5}", k, c, e) for k, (c, e) in enumerate(zip(classes, words, strict=True))
    ]


CASME2 = samples(
    "casme2",
    {"I": 25, "II": 15, "III": 99, "IV": 26, "V": 20, "VI": 1, "VII": 69},
    {"happiness": 32, "disgust": 64, "repression": 27, "surprise": 25, "others": 99, "sadness": 6, "fear": 2},
)
SAMM = samples(
    "samm",
    {"I": 24, "II": 13, "III": 20, "IV": 8, "V": 3, "VI": 7, "VII": 84},
    {"anger": 57, "contempt": 12, "disgust": 9, "fear": 8}
    | {"happiness": 26, "sadness": 6, "surprise": 15, "others": 26},
)


@pytest.mark.parametrize(
    ("database", "setting", "classes", "count"),
    [
        (CASME2, "objective", ("I", "II", "III", "IV", "V", "VII"), 254),
        (CASME2, "objective5", ("I", "II", "III", "IV", "V"), 185),
        (CASME2, "self-report", ("happiness", "disgust", "repression", "surprise", "others"), 247),
        (SAMM, "objective", ("I", "II", "III", "VII"), 141),
        (SAMM, "objective5", ("I", "II", "III", "IV", "V"), 68),
        (SAMM, "self-report", ("anger", "contempt", "happiness", "surprise", "others"), 136),
    ],
)
def test_counts_of_the_paper(database, setting, classes, count):
    chosen = select(database, setting)
    assert chosen.classes == classes and len(chosen.samples) == len(chosen.label) == count
    for s, label in zip(chosen.samples, chosen.label, strict=True):
        assert (s.emotion if setting == "self-report" else s.objective) == classes[label]


def test_classes_of_known_databases_do_not_depend_on_what_is_there():
    few = [s for s in CASME2 if s.objective != "II"][:200]
    assert select(few, "objective").classes == ("I", "II", "III", "IV", "V", "VII")


def test_rare_classes_of_other_databases_are_left_out():
    own = samples("manifest", {"I": 12, "III": 10, "IV": 9}, {"happiness": 31})
    assert select(own, "objective").counts == {"I": 12, "III": 10}


def test_composite_classes():
    chosen = select([*CASME2, *SAMM], "megc3")
    assert chosen.counts == {
        "negative": 64 + 27 + 6 + 2 + 57 + 12 + 9 + 8 + 6,  # repression counts in CASME II
        "positive": 32 + 26,
        "surprise": 25 + 15,
    }
    assert len(set(chosen.persons)) == 10, "subjects of two databases are never the same person"
    assert all(s.emotion != "others" for s in chosen.samples)


def test_databases_together_take_common_classes():
    assert select([*CASME2, *SAMM], "objective").classes == ("I", "II", "III", "VII")
    assert select([*CASME2, *SAMM], "self-report").classes == ("happiness", "surprise", "others")


def test_action_units_as_targets():
    own = [
        replace(sample("manifest", "s1", k, objective, None), units=units)
        for k, (objective, units) in enumerate([("I", ("L12", "6")), ("III", ("4",)), ("III", ())])
    ]
    chosen = select(own, "objective", classes=("I", "III"))
    targets = chosen.units(("AU4", "AU12", "AU14"))
    assert targets[:2].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert np.isnan(targets[2]).all(), "not coded is not the same as not active"


def test_what_cannot_be():
    with pytest.raises(UsageError, match="unknown setting 'six'"):
        select(CASME2, "six")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="0 samples of 0 classes.*another setting"):
        select([sample("smic", "s1", 1, None, "negative")], "objective")
