"""How likely a movement is an expression: the evidence on its shape, and a logistic regression for brief and
one for slow ones."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np

from streamer.errors import EngineError

NODE_COUNT = 14
MIRROR = np.array([5, 4, 3, 2, 1, 0, 6, 7, 9, 8, 12, 11, 10, 13])
"""The node on the other side of the face."""
ERROR_MEMORY = 4.0
"""Frames after which what a course leaves over is independent again, about."""
WEIGHTS = Path(__file__).parent / "data" / "confidence.json"


KINDS = ("micro", "macro")
EVIDENCE = (
    "coherence",
    "roughness",
    "fall",
    "short",
    "noise",
    "strength",
    "light",
    "symmetry",
    "breadth",
    "leaked",
    "turn",
)
"""What `confidence_of` goes by."""
CERTAIN = 50.0
"""Largest logit in either direction: beyond it nothing changes but the danger of an overflow."""


@cache
def weights() -> dict[str, dict[str, float]]:
    """Of `confidence_of`, by kind, then by name of the evidence, and "constant". `python -m streamer.bench
    calibrate` fits them to clips of known truth and says what they keep (docs/signal.md).

    Raises:
        EngineError: the file is missing or damaged.
    """
    try:
        listed = json.loads(WEIGHTS.read_text(encoding="utf-8"))["weights"]
        known = {kind: {str(k): float(v) for k, v in listed[kind].items()} for kind in KINDS}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"{WEIGHTS} is missing or damaged: install the program again") from error
    for kind, values in known.items():
        if set(values) != {"constant", *EVIDENCE} or not all(map(math.isfinite, values.values())):
            raise EngineError(
                f"{WEIGHTS} does not hold a number for each of constant, {', '.join(EVIDENCE)} under {kind}"
            )
    return known


def confidence_of(kind: str, evidence: dict[str, float]) -> float:
    """Probability (0..1) that a movement is an expression: logistic regression on its evidence, with weights
    of its kind ("micro" or "macro"). Evidence, by name:

    coherence, symmetry, breadth: see below. roughness: logarithm of what the fitted course leaves, RMS, over
    its height. fall: how unlike the fall is to the rise, a logarithm. short: seconds below 0.16. noise:
    logarithm of the running noise. strength: logarithm of the peak displacement. light: likeness with the
    light. leaked: what was taken out for the head meanwhile, over the height. turn: logarithm of how far
    the head turned meanwhile.
    """
    known = weights()[kind]
    logit = known["constant"] + sum(known[name] * value for name, value in evidence.items())
    return 1.0 / (1.0 + math.exp(-min(max(logit, -CERTAIN), CERTAIN)))


def breadth(lengths: np.ndarray) -> float:
    """Logarithm of how many nodes (N,) take part in a movement, each by its energy: what moves one node alone
    is a patch that slipped."""
    energy = lengths**2
    return float(np.log(energy.sum() ** 2 / max((energy**2).sum(), 1e-24)))


def symmetry(shares: np.ndarray, nodes: slice) -> float:
    """Likeness (-1..1) of a part's movement (28,) with its mirror image: muscles come in pairs, and what is
    left of a head's turn goes the same way on both sides."""
    field = shares.reshape(NODE_COUNT, 2)
    mirrored = field[MIRROR] * (-1.0, 1.0)
    return float((field * mirrored)[nodes].sum() / max((field[nodes] ** 2).sum(), 1e-12))


def _detrended(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values (N,) or (N, K) less the straight line over times (N,) that fits each best."""
    t, left = times - times.mean(), values - values.mean(0)
    return left - np.multiply.outer(t, t @ left / (t @ t))


def shrink(times: np.ndarray, values: np.ndarray, form: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Shrink each node's share (28,) by its own standard error, in place; (14,) the factors, 0..1.

    Wiener's factor 1 - error^2 / share^2. A node that does something else meanwhile has a large error, and
    no part in the event.
    """
    f = _detrended(times, form)
    left = _detrended(times, values) - np.multiply.outer(f, shares)
    errors = (left**2).sum(0) / max(len(times) - 3, 1) / float(f @ f) * ERROR_MEMORY
    power = (shares.reshape(-1, 2) ** 2).sum(1)
    factor = np.clip(1.0 - errors.reshape(-1, 2).sum(1) / np.maximum(power, 1e-12), 0.0, 1.0)
    shares *= np.repeat(factor, 2)
    return factor


def coherence(
    times: np.ndarray, values: np.ndarray, form: np.ndarray, shares: np.ndarray, precision: np.ndarray
) -> float:
    """Share (0..1) of what the moved nodes do around an event that one common course explains.

    All nodes of an expression move together; speech and a turning head move one after the other.

    times (N,), values (N, 28), form (N,): the course; shares (28,): each component's part of it;
    precision (28,): one over noise squared, 0 for what did not move.
    """
    total = float((_detrended(times, values) ** 2 @ precision).sum())
    explained = float((_detrended(times, form) ** 2).sum() * (shares**2 @ precision))
    return explained / max(total, 1e-12)
