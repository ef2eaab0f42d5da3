"""A process that loads GTS-GN in PyTorch and answers once, for the latency benchmark.

python -m train.cold_start ENGINE
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from streamer.bench.cold_start import begun, report


def main(engine: str) -> None:
    """Print what `streamer.bench.cold_start` prints of its engines."""
    import numpy as np

    from streamer.engine import find_engine
    from train.export.source import read_source
    from train.latency import in_torch

    def load() -> Callable[[], object]:
        return in_torch(read_source(find_engine(engine)).model, np.zeros((1, 3, 14, 4), np.float32))

    report(begun, load)


if __name__ == "__main__":
    main(sys.argv[1])
