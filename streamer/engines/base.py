"""What every engine promises, and the checks that all of them make."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from streamer.errors import EngineError
from streamer.manifest import Manifest
from streamer.messages import F32, Classification, GraphSample

# A softmax in float32 sums to 1 within a few rounding errors; a half-precision engine within about 1e-3.
SUM_TOLERANCE = 1e-2
RANGE_TOLERANCE = 1e-3


class Engine(Protocol):
    """A loaded classifier. One thread at a time may use it."""

    @property
    def manifest(self) -> Manifest: ...

    def classify(self, sample: GraphSample) -> Classification:
        """Probabilities of one expression, whose features have the form `manifest.features`.

        Raises: EngineError if the engine gives what is no probability, or is closed.
        """
        ...

    def classify_batch(self, features: ArrayLike) -> tuple[F32, F32]:
        """Probabilities of many expressions.

        features: (B, 3, n, 4) float32. Returns scores (B, classes) and action units (B, aus), float32,
        in the order of the manifest.

        Raises: ValueError for features of another shape or that are not finite; EngineError as `classify`.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. It cannot be used afterwards; closing twice is fine."""
        ...


class Answers:
    """Checks what goes into an engine and what comes out of it, in the words of its manifest.

    path: the engine's file, named in errors.
    """

    def __init__(self, manifest: Manifest, path: Path) -> None:
        self._manifest = manifest
        self._path = path
        self.shape = (3, int(manifest.inputs[0].shape[2]), 4)
        """Of the features of one expression."""

    def features(self, features: ArrayLike, axes: int) -> F32:
        """`features` as a contiguous float32 array with `axes` axes.

        Raises: ValueError for another shape, or for values that are not finite.
        """
        array = np.ascontiguousarray(features, np.float32)
        if array.ndim != axes or array.shape[-3:] != self.shape:
            raise ValueError(f"features have shape {array.shape}; their last axes must be {self.shape}")
        # A ReLU can swallow a NaN, so the outputs need not show it.
        if not np.isfinite(array).all():
            raise ValueError("features are not finite")
        return array

    def one(self, scores: list[float], action_units: list[float]) -> Classification:
        """The answer to one expression. Lists: for a handful of numbers they are quicker than arrays.

        Raises: EngineError if these are no probabilities.
        """
        scores, action_units = self._probabilities(scores), self._probabilities(action_units)
        if abs(sum(scores) - 1.0) > SUM_TOLERANCE:
            raise self.error(f"its scores do not sum to 1: {scores}")
        return Classification(
            dict(zip(self._manifest.classes, scores, strict=True)),
            dict(zip(self._manifest.action_units, action_units, strict=True)),
        )

    def batch(self, scores: F32, action_units: F32, count: int) -> tuple[F32, F32]:
        """The answers to `count` expressions: scores (count, classes), action units (count, aus).

        Raises: EngineError if the shapes are others, or these are no probabilities.
        """
        sizes = len(self._manifest.classes), len(self._manifest.action_units)
        for result, size in zip((scores, action_units), sizes, strict=True):
            if result.shape != (count, size):
                raise self.error(f"it gave shape {result.shape} for a batch of {count}")
            # NaN fails the comparisons.
            if not ((result >= -RANGE_TOLERANCE) & (result <= 1.0 + RANGE_TOLERANCE)).all():
                raise self.error("it gave no probabilities for a batch")
        if not (np.abs(scores.sum(axis=1) - 1.0) <= SUM_TOLERANCE).all():
            raise self.error("its scores do not sum to 1")
        return np.clip(scores, 0.0, 1.0), np.clip(action_units, 0.0, 1.0)

    def error(self, problem: str) -> EngineError:
        """The error for this engine; `problem` completes a line that starts with its file."""
        return EngineError(
            f"{self._path}: {problem};"
            " use another engine (--engine) or export it again (python -m train export)"
        )

    def closed(self) -> EngineError:
        """The error for an engine that was closed."""
        return EngineError(f"engine {self._manifest.name} is closed; load it again")

    def _probabilities(self, values: list[float]) -> list[float]:
        """`values` clipped to 0..1, after checking that there is only rounding to clip."""
        if not values:
            return values
        low, high = min(values), max(values)
        # NaN hides from min and max, but not from the sum.
        if low < -RANGE_TOLERANCE or high > 1.0 + RANGE_TOLERANCE or math.isnan(sum(values)):
            raise self.error(f"it gave no probabilities: {values}")
        if low < 0.0 or high > 1.0:
            return [min(max(value, 0.0), 1.0) for value in values]
        return values


def first_line(error: BaseException) -> str:
    """What a library said, cut to one printable line."""
    lines = str(error).splitlines()
    return ascii(lines[0][:200])[1:-1] if lines else type(error).__name__
