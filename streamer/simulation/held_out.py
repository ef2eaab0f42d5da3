"""A second account of what action units do to the skin, which nothing is tuned on.

A recogniser that is tuned on one set of motion fields and measured on the same set flatters itself. So these
were written independently of `facs.ACTION_UNITS`, once more from the appearance changes that the Facial
Action Coding System describes (Ekman, Friesen and Hager 2002): other centres, directions, radii and numbers
of bumps, another asymmetry and another course in time. They too are a reading of those descriptions, not
measurements of people.

No tuning step, no training and no choice of a threshold may look at what comes of this set. It is for the
final figure of a benchmark, reported beside the figure on the first set.
"""

from __future__ import annotations

import math

from streamer.simulation.facs import ActionUnit, Bump


def _au(name: str, *bumps: tuple[float, float, float, float, float]) -> ActionUnit:
    return ActionUnit(name, tuple(Bump(*bump) for bump in bumps))


HELD_OUT_UNITS: dict[str, ActionUnit] = {
    # The inner brow and the middle of the forehead go up; the pull fades towards the arch of the brow.
    "AU1": _au(
        "inner brow raiser",
        (0.17, -0.37, 0.04, -0.95, 0.17),
        (0.37, -0.41, 0.02, -0.70, 0.17),
        (0.11, -0.64, 0.00, -0.50, 0.24),
    ),
    # Along the outer half of the brow, most at its arch, less at its tail.
    "AU2": _au(
        "outer brow raiser",
        (0.60, -0.41, 0.00, -0.65, 0.17),
        (0.80, -0.36, 0.06, -1.00, 0.17),
        (0.96, -0.21, 0.10, -0.60, 0.17),
        (0.72, -0.66, 0.00, -0.40, 0.22),
    ),
    # Mostly down at the inner ends, mostly together at the arch, the root of the nose is pushed down.
    "AU4": _au(
        "brow lowerer",
        (0.15, -0.25, -0.25, 1.00, 0.17),
        (0.42, -0.35, -0.55, 0.60, 0.19),
        (0.74, -0.36, -0.15, 0.35, 0.20),
        (0.00, -0.10, 0.00, 0.40, 0.15),
    ),
    "AU5": _au("upper lid raiser", (0.45, -0.11, 0.0, -1.0, 0.08), (0.60, -0.09, 0.05, -0.7, 0.08)),
    # The cheek rises in two places, the skin beside the eye is drawn in, the tail of the brow sinks.
    "AU6": _au(
        "cheek raiser",
        (0.52, 0.36, 0.00, -0.80, 0.20),
        (0.80, 0.32, -0.20, -0.85, 0.22),
        (0.92, 0.00, -0.55, 0.05, 0.13),
        (0.88, -0.23, -0.05, 0.20, 0.13),
    ),
    "AU7": _au(
        "lid tightener",
        (0.43, 0.11, 0.04, -0.80, 0.09),
        (0.62, 0.10, -0.20, -0.80, 0.09),
        (0.52, -0.10, 0.00, 0.50, 0.10),
    ),
    # The sides of the nose slide up to its root, nostrils and upper lip follow, the inner brow comes down.
    "AU9": _au(
        "nose wrinkler",
        (0.15, 0.32, -0.04, -1.00, 0.15),
        (0.28, 0.62, 0.04, -0.85, 0.13),
        (0.13, 0.90, 0.00, -0.55, 0.12),
        (0.13, -0.21, -0.20, 0.60, 0.16),
    ),
    # The middle of each half of the upper lip, the nostril's wing and the fold beside it.
    "AU10": _au(
        "upper lip raiser",
        (0.23, 0.93, 0.00, -1.00, 0.13),
        (0.08, 0.95, 0.00, -0.75, 0.11),
        (0.28, 0.68, 0.06, -0.45, 0.12),
        (0.42, 0.64, 0.05, -0.65, 0.17),
    ),
    # The corner goes more outward than up, the fold above it after it, the cheek bulges.
    "AU12": _au(
        "lip corner puller",
        (0.42, 1.06, 0.90, -0.50, 0.19),
        (0.52, 0.88, 0.45, -0.70, 0.19),
        (0.70, 0.60, 0.10, -0.60, 0.24),
        (0.19, 1.10, 0.30, -0.15, 0.14),
    ),
    "AU14": _au("dimpler", (0.51, 1.03, 0.90, -0.25, 0.13), (0.30, 1.08, 0.60, 0.05, 0.12)),
    "AU15": _au(
        "lip corner depressor",
        (0.40, 1.08, 0.04, 1.00, 0.16),
        (0.49, 1.23, 0.18, 0.70, 0.17),
        (0.20, 1.19, 0.10, 0.30, 0.14),
    ),
    # The chin's boss, the lower lip in three places; the corners sink a little.
    "AU17": _au(
        "chin raiser",
        (0.00, 1.48, 0.00, -1.00, 0.20),
        (0.18, 1.29, 0.00, -0.80, 0.16),
        (0.00, 1.20, 0.00, -0.55, 0.14),
        (0.41, 1.10, 0.00, 0.20, 0.11),
    ),
    "AU18": _au(
        "lip pucker",
        (0.36, 1.05, -1.00, 0.00, 0.18),
        (0.16, 0.97, -0.35, 0.08, 0.12),
        (0.16, 1.20, -0.35, -0.08, 0.12),
    ),
    "AU20": _au(
        "lip stretcher",
        (0.45, 1.08, 1.00, 0.14, 0.19),
        (0.28, 1.18, 0.50, 0.22, 0.15),
        (0.64, 1.02, 0.50, 0.10, 0.20),
    ),
    "AU23": _au(
        "lip tightener",
        (0.38, 1.06, -0.75, 0.02, 0.14),
        (0.13, 0.99, -0.12, 0.50, 0.10),
        (0.13, 1.21, -0.12, -0.50, 0.10),
    ),
    "AU24": _au(
        "lip pressor",
        (0.14, 0.98, 0.00, 0.80, 0.12),
        (0.14, 1.21, 0.00, -0.95, 0.12),
        (0.40, 1.06, -0.30, 0.00, 0.14),
    ),
    "AU25": _au(
        "lips part",
        (0.13, 1.23, 0.00, 1.00, 0.13),
        (0.00, 1.30, 0.00, 0.60, 0.15),
        (0.11, 0.97, 0.00, -0.35, 0.11),
    ),
    "AU26": _au(
        "jaw drop",
        (0.00, 1.52, 0.00, 1.00, 0.30),
        (0.26, 1.30, -0.04, 0.70, 0.24),
        (0.00, 1.22, 0.00, 0.45, 0.15),
    ),
    "AU38": _au("nostril dilator", (0.26, 0.68, 0.95, -0.30, 0.10), (0.17, 0.60, 0.40, -0.20, 0.10)),
}
"""The keys of `facs.ACTION_UNITS`, for `facs.draw_field(..., table=HELD_OUT_UNITS)`."""

ASYMMETRY = (0.0, 0.3)
"""Share of the motion that one half of the face, either, lacks: spontaneous expressions are uneven."""

APEX = (0.2, 0.4)
"""Where the apex lies between onset and offset: these rise faster than they fall."""

DECAY = 4.0
"""Decay constants between apex and offset."""


def profile(
    time_s: float, onset_s: float, apex_s: float, offset_s: float, residual: float = 0.0, hold: float = 0.0
) -> float:
    """Activation 0..1 at `time_s`, as `facs.profile` takes its arguments: a fast rise, a slow decay.

    The rise is that of a gamma function, u^2 exp(2 - 2 u); the fall that of a critically damped spring
    let go, (1 + k v) exp(-k v), stretched so that it has come down to `residual` at the offset.
    """
    if time_s <= onset_s:
        return 0.0
    if time_s >= offset_s:
        return residual
    if time_s < apex_s:
        u = min(1.0, (time_s - onset_s) / ((apex_s - onset_s) * (1.0 - hold)))
        return u * u * math.exp(2.0 - 2.0 * u)
    v = max(0.0, 1.0 - (offset_s - time_s) / ((offset_s - apex_s) * (1.0 - hold)))
    end = (1.0 + DECAY) * math.exp(-DECAY)
    fall = ((1.0 + DECAY * v) * math.exp(-DECAY * v) - end) / (1.0 - end)
    return residual + (1.0 - residual) * fall
