"""Action-unit strings as coders write them, and the objective class of a set of action units."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

OBJECTIVE_SETS: dict[str, tuple[frozenset[int], ...]] = {
    name: tuple(frozenset(int(number) for number in units.split("+")) for units in sets.split())
    for name, sets in {
        "I": "6 12 6+12 6+7+12 7+12",
        "II": "1+2 5 25 1+2+25 25+26 5+24",
        "III": "23 4 4+7 4+5 4+5+7 17+24 4+6+7 4+38",
        "IV": "10 9 4+9 4+40 4+5+40 4+7+9 4+9+17 4+7+10 4+5+7+9 7+10",
        "V": "1 15 1+4 6+15 15+17",
        "VI": "1+2+4 20",
    }.items()
}
"""Exact sets of action units by objective class (Davison, Merghani and Yap, 2018, "Objective Classes for
Micro-Facial Expression Recognition"); every other set is class VII."""

OBJECTIVE_CLASSES = (*OBJECTIVE_SETS, "VII")

OBJECTIVE_NAMES = {
    "I": "happiness",
    "II": "surprise",
    "III": "anger",
    "IV": "disgust",
    "V": "sadness",
    "VI": "fear",
    "VII": "contempt or other",
}
"""Usual reading of the objective classes."""


def objective_class(numbers: Iterable[int]) -> str:
    """The objective class "I".."VII" of a set of action units, sides and intensities left out."""
    units = frozenset(numbers)
    return next((name for name, sets in OBJECTIVE_SETS.items() if units in sets), "VII")


@dataclass(frozen=True)
class ActionUnits:
    """A coder's string, read.

    units: as written but for intensity, such as "4", "L10", "T23"; each once, in the order written.
        A leading letter is FACS's own: L left, R right, U unilateral, A asymmetric, T top, B bottom.
    notes: what had to be decided, one line each. unknown: parts that are no action unit.
    """

    units: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def numbers(self) -> frozenset[int]:
        """The units' numbers alone."""
        return frozenset(unit_number(unit) for unit in self.units)


_UNIT = re.compile(
    r"(?:AU)?\s*(?P<side>[LRUATB]?)\s*(?:AU)?\s*(?P<number>\d{1,2})\s*"
    r"(?P<intensity>[A-E](?:\s*[/-]\s*[A-E])?)?\s*(?:\(k\))?",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"ref\s*\((.*)\)", re.IGNORECASE)
_REMARKS = ("soft focus",)
_MOST_CHARACTERS = 200


def unit_number(unit: str) -> int:
    """12 of "12" and of "L12"."""
    return int(unit.lstrip("LRUATB"))


def parse_action_units(text: str) -> ActionUnits:
    """Read a string such as "4+7+L10", "A1B+A2C", "10A/B", "ref(7B)+43C" or "(R6 or R12)+R15".

    Of alternatives the first counts. A unit of the reference face ("ref") counts like any other. Both are
    noted. Nothing is raised: what cannot be read is in `unknown`.
    """
    units: dict[str, None] = {}
    notes, unknown = [], []
    for part in _split(text[:_MOST_CHARACTERS]):
        word = part.strip()
        reference = _REFERENCE.fullmatch(word)
        if reference:
            notes.append(f"{word}: a unit of the reference face, counted as a unit")
            word = reference[1].strip()
        while word.startswith("(") and word.endswith(")"):
            word = word[1:-1].strip()
        choices = re.split(r"\s+or\s+", word, flags=re.IGNORECASE)
        if len(choices) > 1:
            notes.append(f"{word}: the coders left it open; the first is taken")
            word = choices[0].strip()
        match = _UNIT.fullmatch(word)
        if match and 0 < int(match["number"]) < 99:
            units[match["side"].upper() + str(int(match["number"]))] = None
        elif word.lower() in _REMARKS:
            notes.append(f"{word!r} is a remark, no action unit")
        else:
            unknown.append(word)
    return ActionUnits(tuple(units), tuple(notes), tuple(unknown))


def _split(text: str) -> list[str]:
    """Parts between "+", "," or ";" outside of brackets; none for an empty cell."""
    parts, depth, begun = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character in "+,;" and depth <= 0:
            parts.append(text[begun:position])
            begun = position + 1
    parts.append(text[begun:])
    return [part for part in parts if part.strip()]
