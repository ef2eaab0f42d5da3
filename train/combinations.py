"""Which action units make up a simulated expression: by objective class, with rough frequencies."""

from __future__ import annotations

COMBINATIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "I": (("12", 5), ("6+12", 4), ("6+7+12", 1), ("7+12", 1), ("6", 0.5)),
    "II": (("1+2", 4), ("25", 2), ("1+2+25", 2), ("25+26", 2)),
    "III": (
        ("4", 4),
        ("4+7", 3),
        ("4+5", 1),
        ("4+5+7", 1),
        ("4+6+7", 1),
        ("4+38", 0.5),
        ("23", 1.5),
        ("17+24", 1.5),
    ),
    "IV": (
        ("9", 2),
        ("10", 2),
        ("4+9", 2),
        ("4+7+9", 1.5),
        ("4+9+17", 1),
        ("4+5+7+9", 0.5),
        ("7+10", 1),
        ("4+7+10", 1),
    ),
    "V": (("15", 3), ("1", 3), ("1+4", 2), ("15+17", 2), ("6+15", 1)),
    "VII": (
        ("14", 6),
        ("17", 3),
        ("14+17", 1.5),
        ("18", 1),
        ("24", 1),
        ("26", 0.5),
        ("4+12", 1),
        ("4+14", 1),
        ("4+15", 0.5),
        ("4+17", 0.5),
        ("1+2+4+15", 0.3),
        ("1+12", 0.5),
        ("1+2+12", 0.7),
        ("1+2+14", 0.5),
        ("1+2+17", 0.5),
        ("10+12", 0.7),
        ("10+17", 0.5),
        ("12+14", 0.7),
        ("12+15", 0.7),
        ("12+17", 0.7),
        ("12+24", 0.5),
        ("12+25", 0.5),
        ("14+24", 0.5),
        ("15+25", 0.3),
    ),
}
"""Action units and relative frequency by objective class.

Classes I to V are the exact sets of the objective classes (Davison, Merghani and Yap, 2018); VII is any
other set, here contempt (AU14), single units of the mouth and mixtures of two classes. Frequencies are
rough figures. Left out: AU2 alone, which is in no class I to V but looks to the nodes like a raised brow
(II); sets that differ from a set of another class only by what the 14 nodes cannot see (AU5 alone; 5+24,
which looks like 24; units of the head and gaze); and class VI, which has too few
samples in the databases (paper, Table I).
"""

CLASSES: tuple[str, ...] = tuple(COMBINATIONS)
"""Class ids in the order of a network's outputs."""

ACTION_UNIT_NAMES: tuple[str, ...] = tuple(
    f"AU{number}" for number in (1, 2, 4, 6, 9, 10, 12, 14, 15, 17, 18, 23, 24, 25, 26, 38)
)
"""Action units in the order of a network's outputs: those that move a node. AU5 and AU7 do not."""
