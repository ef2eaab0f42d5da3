"""Timing several things side by side: in turn, again and again, so that a machine whose speed drifts slows
all of them; ratios are taken within each round.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

WARM_UP_CALLS = 5
"""Before each block, unmeasured: what ran before has emptied the caches."""
BINS_PER_DECADE = 20
FIRST_BIN_S, LAST_BIN_S = 1e-6, 1.0


@dataclass(frozen=True)
class Contender:
    """name: unique. call: one whole answer. about: what it includes, for the table."""

    name: str
    call: Callable[[], object]
    about: str = ""


def time_calls(call: Callable[[], object], calls: int) -> tuple[list[float], list[float]]:
    """Seconds by the clock and seconds of processor time (all threads) of each of `calls` calls, after
    `WARM_UP_CALLS` others; without garbage collection."""
    for _ in range(min(WARM_UP_CALLS, calls)):
        call()
    enabled = gc.isenabled()
    gc.disable()
    try:
        durations, worked = [], []
        for _ in range(calls):
            work_begun = time.process_time()
            begun = time.perf_counter()
            call()
            ended = time.perf_counter()
            worked.append(time.process_time() - work_begun)
            durations.append(ended - begun)
        return durations, worked
    finally:
        if enabled:
            gc.enable()


def measure_interleaved(
    contenders: Sequence[Contender], rounds: int, block_s: float, progress: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Name -> figures of every contender: milliseconds p50, p95, p99 of all its calls; the same of the
    processor time, which other programs do not lengthen by making it wait; how many calls; both
    p50 of each round; and a histogram of the calls.

    rounds: in each, every contender has one block of calls, in an order that is shuffled anew.
    block_s: about how long a block takes; a slow contender has at least five calls in it.
    """
    counts = {}
    for contender in contenders:
        progress(f"warming up: {contender.name}")
        contender.call()  # some compile or allocate at first
        counts[contender.name] = int(np.clip(block_s / median(time_calls(contender.call, 5)[0]), 5, 2000))
    durations: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    worked: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    by_round: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    work_by_round: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    order = list(contenders)
    shuffle = random.Random(0)
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        shuffle.shuffle(order)
        for contender in order:
            block, work = time_calls(contender.call, counts[contender.name])
            durations[contender.name] += block
            worked[contender.name] += work
            by_round[contender.name].append(median(block) * 1e3)
            work_by_round[contender.name].append(median(work) * 1e3)
    return {
        contender.name: {
            "about": contender.about,
            "calls": len(durations[contender.name]),
            **percentiles_ms(durations[contender.name]),
            "processor": percentiles_ms(worked[contender.name]),
            "rounds_p50": by_round[contender.name],
            "rounds_processor_p50": work_by_round[contender.name],
            "histogram": histogram(durations[contender.name]),
        }
        for contender in contenders
    }


def percentiles_ms(durations: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 in milliseconds of durations in seconds."""
    return {f"p{q}": float(np.percentile(durations, q)) * 1e3 for q in (50, 95, 99)}


def bin_edges_s() -> np.ndarray:
    """Edges of the histogram's bins, seconds, evenly spaced in the logarithm."""
    decades = np.log10(LAST_BIN_S / FIRST_BIN_S)
    return np.geomspace(FIRST_BIN_S, LAST_BIN_S, round(decades * BINS_PER_DECADE) + 1)


def histogram(durations: Sequence[float]) -> list[int]:
    """Calls in each bin of `bin_edges_s`; what lies outside counts in the outermost."""
    edges = bin_edges_s()
    return np.histogram(np.clip(durations, edges[0], edges[-1]), edges)[0].tolist()


def ratio(slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the ratios within each round."""
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
