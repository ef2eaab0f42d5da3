"""How long each stage takes: percentiles over a bounded number of recent frames."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

KEPT = 4096
"""Recent durations kept a stage."""


class StageClock:
    """Times named stages; `percentiles` gives p50, p95 and p99 in milliseconds of the last 4,096."""

    def __init__(self) -> None:
        self._durations: dict[str, deque[float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of a `with` statement."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count one duration of a stage."""
        self._durations.setdefault(name, deque(maxlen=KEPT)).append(seconds)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Stage -> {"p50": ms, "p95": ms, "p99": ms}, in the order in which the stages first ran."""
        return {
            name: {
                f"p{q}": float(np.percentile(durations, q)) * 1e3  # type: ignore[arg-type]
                for q in (50, 95, 99)
            }
            for name, durations in self._durations.items()
        }
