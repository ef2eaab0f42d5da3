"""Nodes kept on disk, in files of which nothing is believed when they are read again."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.fetching import write_whole

log = logging.getLogger(__name__)

MOST_ARRAY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class SampleNodes:
    """One sample, measured.

    nodes: (V, 3, n, 2) float32, face frame of the onset, IOD: V views (the whole image, then the crops) of
        onset, apex and offset.
    apex: number of its image: the coders', or the one that was found.
    """

    nodes: NDArray[np.float32]
    apex: int


def save_nodes(path: Path, result: SampleNodes) -> None:
    """Write a result, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, nodes=result.nodes, apex=np.int64(result.apex))
    write_whole(path, buffer.getvalue())


UNREADABLE = (
    OSError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What reading an archive raises: damaged, cut off, encrypted, or packed in a way that is not known (a
NotImplementedError, which is a RuntimeError)."""


def load_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file, of which nothing is believed: no pickle, no more than its stated size.

    Raises:
        ValueError: it is not such a file, or lacks an array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_ARRAY_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except UNREADABLE as error:
        raise ValueError(str(error)) from error


def kept_nodes(path: Path, shape: tuple[int, ...]) -> SampleNodes | None:
    """The kept result, None if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = load_arrays(path, ("nodes", "apex"))
    except ValueError as error:
        log.warning("%s is damaged (%s): measured anew", path, error)
        return None
    nodes = arrays["nodes"]
    if nodes.shape != shape or nodes.dtype != np.float32 or arrays["apex"].shape != ():
        log.warning("%s is damaged: measured anew", path)
        return None
    return SampleNodes(nodes, int(arrays["apex"]))
