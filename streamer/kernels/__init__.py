"""Kernels compiled by Numba, kept on disk from one start to the next."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from collections.abc import Callable

import numba
from numba.core import config

log = logging.getLogger(__name__)


def _nothing() -> None:
    """What is decorated to try whether Numba has a place for what it compiles."""


def ensure_cache(decorator: Callable[[Callable[[], None]], object]) -> None:
    """Give Numba a temporary folder where it finds none of its own that it may write to.

    Args:
        decorator: `numba.njit(cache=True)`; it raises RuntimeError where there is none.
    """
    try:
        decorator(_nothing)
    except RuntimeError:
        # A new folder, for this process alone: what lies there is run, so nobody else may have put it there.
        folder = tempfile.mkdtemp(prefix="numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        config.CACHE_DIR = folder  # pyright: ignore[reportAttributeAccessIssue]
        log.warning(
            "no folder to keep compiled kernels in, so that every start takes longer: "
            "set NUMBA_CACHE_DIR to a folder that can be written to"
        )


ensure_cache(numba.njit(cache=True))
