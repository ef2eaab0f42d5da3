"""Which action units make up an expression of a class, and expressions drawn at random from them.

The classes are the objective classes of Davison, Merghani and Yap (2018), "Objective Classes for Micro-Facial
Expression Recognition". Relative frequencies are rough figures. Left out are sets that differ from one of
another class only by what the 14 nodes cannot see (the lids), and the classes VI and VII.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.simulation import held_out
from streamer.simulation.render import Injection

UNIT_SETS: dict[str, tuple[tuple[str, float], ...]] = {
    "I": (("12", 5), ("6+12", 4), ("7+12", 1), ("6+7+12", 1)),
    "II": (("1+2", 4), ("25", 2), ("1+2+25", 2), ("25+26", 2)),
    "III": (("4", 4), ("4+7", 3), ("4+5", 1), ("4+5+7", 1), ("23", 1.5), ("17+24", 1.5)),
    "IV": (("9", 2), ("10", 2), ("4+9", 2), ("4+7+9", 1.5), ("4+9+17", 1), ("7+10", 1), ("4+7+10", 1)),
    "V": (("15", 3), ("1", 3), ("1+4", 2), ("15+17", 2), ("6+15", 1)),
}
"""Sets of action units and their relative frequency, by class."""

ONE_SIDED = frozenset({"1", "2", "6", "10", "12", "15"})
"""Units that also occur on one half of the face alone."""


@dataclass(frozen=True)
class ExpressionStyle:
    """How expressions are drawn. Ranges are (lowest, highest), drawn uniformly.

    length_s: from onset to offset. apex: where the apex lies, as a share of the length.
    hold, residual, course: how it comes and goes, see `facs.profile` and `render.COURSES`.
    strength: activation of each unit of a set, relative to the others.
    variation: how far the action units differ from the table, see `facs.draw_field`.
    one_sided: probability that the units that can are active on one half of the face alone.
    asymmetry: part of the motion that one side, drawn at random, lacks.
    table: the table of action units, a name of `render.TABLES`.
    """

    length_s: tuple[float, float] = (0.2, 0.5)
    apex: tuple[float, float] = (0.35, 0.6)
    hold: tuple[float, float] = (0.0, 0.3)
    residual: tuple[float, float] = (0.0, 0.2)
    strength: tuple[float, float] = (0.4, 1.0)
    variation: float = 1.0
    one_sided: float = 0.15
    asymmetry: tuple[float, float] = (0.0, 0.0)
    table: str = "tuning"
    course: str = "cosine"


HELD_OUT_STYLE = ExpressionStyle(
    apex=held_out.APEX,
    one_sided=0.0,
    asymmetry=held_out.ASYMMETRY,
    table="held-out",
    course="held-out",
)
"""Expressions that nothing is tuned on."""


def draw_injection(
    rng: np.random.Generator, label: str, onset_s: float, peak: float, style: ExpressionStyle
) -> Injection:
    """One expression of class `label` ("I".."V") from `onset_s` on, its most moved node moving `peak` IOD."""
    names, weights = zip(*UNIT_SETS[label], strict=True)
    shares = np.array(weights, np.float64)
    units = names[rng.choice(len(names), p=shares / shares.sum())].split("+")
    side = str(rng.choice(["L", "R"])) if rng.random() < style.one_sided else ""
    strengths = rng.uniform(*style.strength, len(units))
    length_s = rng.uniform(*style.length_s)
    apex, hold, residual = (rng.uniform(*bounds) for bounds in (style.apex, style.hold, style.residual))
    asymmetry = rng.uniform(*style.asymmetry) * rng.choice([-1.0, 1.0])
    # Whole microseconds: truth and injection then agree to the last digit.
    onset_s, apex_s, offset_s = (round(onset_s + length_s * share, 6) for share in (0.0, apex, 1.0))
    return Injection(
        action_units={
            (side if unit in ONE_SIDED else "") + unit: round(float(strength), 6)
            for unit, strength in zip(units, strengths, strict=True)
        },
        onset_s=onset_s,
        apex_s=apex_s,
        offset_s=offset_s,
        peak=peak,
        label=label,
        hold=round(float(hold), 6),
        residual=round(float(residual), 6),
        variation=style.variation,
        table=style.table,
        course=style.course,
        asymmetry=round(float(asymmetry), 6),
    )


def draw_sequence(
    rng: np.random.Generator,
    duration_s: float,
    peak: float,
    style: ExpressionStyle = ExpressionStyle(),
    apart_s: tuple[float, float] = (2.5, 4.0),
    first_s: float = 2.0,
    labels: Sequence[str] = tuple(UNIT_SETS),
) -> tuple[Injection, ...]:
    """Expressions over a clip of `duration_s`: onsets `apart_s` apart, classes in shuffled rounds, so that
    each is about as frequent as the others; none begins in the clip's last 1.5 s plus its own length."""
    injections: list[Injection] = []
    onset_s = first_s + rng.uniform(0.0, 1.0)
    round_of: list[str] = []
    while onset_s < duration_s - 1.5 - style.length_s[1]:
        if not round_of:
            round_of = [str(label) for label in rng.permutation(list(labels))]
        injections.append(draw_injection(rng, round_of.pop(), onset_s, peak, style))
        onset_s += rng.uniform(*apart_s)
    return tuple(injections)


def draw_blinks(rng: np.random.Generator, duration_s: float) -> tuple[float, ...]:
    """Onsets of blinks, 2 to 5 s apart, independent of everything else, seconds."""
    blinks: list[float] = []
    at_s = rng.uniform(0.5, 3.0)
    while at_s < duration_s - 0.5:
        blinks.append(round(float(at_s), 6))
        at_s += rng.uniform(2.0, 5.0)
    return tuple(blinks)
