"""Action-unit strings of the databases, and the objective classes."""

from __future__ import annotations

import pytest

from train.combinations import COMBINATIONS
from train.datasets.action_units import OBJECTIVE_SETS, objective_class, parse_action_units


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("4+7+L10", ("4", "7", "L10")),
        ("1+L2", ("1", "L2")),
        ("R1+R2", ("R1", "R2")),
        ("12", ("12",)),
        ("12A", ("12",)),
        ("A1B+A2C", ("A1", "A2")),
        ("10A/B", ("10",)),
        ("ref(7B)+43C", ("7", "43")),
        ("T23", ("T23",)),
        ("(R6 or R12)+R15", ("R6", "R15")),
        ("L12 or L14", ("L12",)),
        ("R14+17+soft focus", ("R14", "17")),
        ("AU4+AU7(k)", ("4", "7")),
        ("12+12", ("12",)),
        (" ", ()),
    ],
)
def test_strings_of_the_databases(text: str, units: tuple[str, ...]):
    read = parse_action_units(text)
    assert read.units == units and not read.unknown
    assert bool(read.notes) == any(word in text for word in ("ref", "or ", "focus"))


@pytest.mark.parametrize("text", ["4+smile", "4+100", "4+", "4+0", "4+x12y"])
def test_unknown_parts_are_told(text: str):
    read = parse_action_units(text)
    assert read.units == ("4",)
    assert read.unknown == tuple(part for part in (text[2:],) if part)


def test_sides_and_intensities_do_not_change_the_class():
    assert objective_class(parse_action_units("L6B+R12A/B").numbers) == "I"
    assert objective_class({1, 2}) == "II"
    assert objective_class({1, 2, 4}) == "VI"
    assert objective_class({14}) == "VII"


def test_no_set_is_in_two_classes_and_the_simulation_agrees():
    sets = [units for several in OBJECTIVE_SETS.values() for units in several]
    assert len(sets) == len(set(sets)) == 36
    for name, combinations in COMBINATIONS.items():
        for text, _ in combinations:
            assert objective_class(parse_action_units(text).numbers) == name
