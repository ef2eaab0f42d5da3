"""Standard output whose reader may leave at any time, as in `--help | head`."""

from __future__ import annotations

import os
import sys

READER_LEFT = 1
"""Exit code then: an output failed."""


def reader_left() -> int:
    """Call this for a BrokenPipeError of standard output: what is still to be flushed at the exit goes
    nowhere, instead of raising again. Returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_LEFT
