"""A process that loads an engine and answers once; prints how long that took and what memory it has.

python -m streamer.bench.cold_start cpu|numpy|cuda ENGINE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

begun = time.perf_counter()


def report(begun: float, load: Callable[[], Callable[[], object]]) -> None:
    """Print `import_s` (since `begun`), `load_s` (of `load`), `first_ms` (of what it returns, called
    once) and `memory_mb` (peak of this process, 0 where the system does not tell)."""
    imported = time.perf_counter()
    answer = load()
    loaded = time.perf_counter()
    answer()
    answered = time.perf_counter()
    figures = {"import_s": imported - begun, "load_s": loaded - imported}
    print(json.dumps(figures | {"first_ms": (answered - loaded) * 1e3, "memory_mb": peak_memory_mb()}))


def peak_memory_mb() -> float:
    """Most memory that this process had, 0 where the system does not tell. Linux counts what the parent
    had at the fork into getrusage's figure, but not into this one."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3


def main(kind: str, engine: str) -> None:
    """Load and answer with the CPU, the NumPy or the GPU engine."""
    import numpy as np

    from streamer.messages import GraphSample

    if kind == "numpy":
        from streamer.engine import find_engine
        from streamer.engines.numpy_reference import NumpyEngine

        def load_it() -> Callable[[], object]:
            loaded = NumpyEngine(find_engine(engine))
            return lambda: loaded.classify(GraphSample(np.zeros((3, 14, 4), np.float32)))
    else:
        from streamer.engine import load_engine

        def load_it() -> Callable[[], object]:
            loaded = load_engine(engine, "cuda" if kind == "cuda" else "cpu")
            return lambda: loaded.classify(GraphSample(np.zeros((3, 14, 4), np.float32)))

    report(begun, load_it)


if __name__ == "__main__":
    main(*sys.argv[1:])
