"""python -m train landmarks: measure the landmarks of a database, and say what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamer.errors import UsageError
from train.datasets import load
from train.datasets.check import DatabaseName
from train.landmarks import LandmarkConfig, extract


@dataclass(frozen=True)
class LandmarksConfig:
    """Measure the landmarks of a database beforehand; a later command takes them from the cache."""

    dataset: DatabaseName
    """Which database; manifest: a CSV file of your own."""
    root: Path
    """Folder that it was unpacked into."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""
    cache: Path = Path("out/landmarks")
    """Folder that results are kept in."""
    workers: int = 1
    """Processes."""
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)


def landmarks(config: LandmarksConfig) -> str:
    """Measure, and say what came of it.

    Raises:
        DatasetError: the database cannot be loaded. Others as `extract`.
    """
    if config.workers < 1:
        raise UsageError("--workers must be at least 1")
    database = load(config.dataset, config.root, config.sheet)
    result = extract(database.samples, config.landmarks, config.cache, config.workers)
    moved = np.linalg.norm(result.nodes[:, 0, 1] - result.nodes[:, 0, 0], axis=2).max(1)
    low, middle, high = (100 * np.percentile(moved, [10, 50, 90])).tolist()
    lines = [
        f"{len(result.samples)} samples of {database.name} measured in {result.nodes.shape[1]} views"
        + (" (SIMULATED)" if database.simulated else ""),
        f"apex found by the tracker: {len(result.found)}",
        f"peak displacement, inter-ocular distances: {middle:.2f} %, four of five {low:.2f} to {high:.2f} %",
        f"left out: {len(database.missing) + len(result.failed)}",
        *(f"  {line}" for line in (*database.missing, *result.failed)),
    ]
    return "\n".join(lines)
