"""What the tracker makes of a true displacement, as `train.measure` found it: train/tracker_noise.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class TrackerNoise:
    """What the tracker makes of a true displacement, as `train.measure` found it.

    attenuation_mean, attenuation_std: (14,): part of a node's own displacement that is read, and its
        spread between expressions.
    covariance: (28, 28): noise of (x0, y0, x1, ...) at `iod_px` pixels between the eyes, IOD squared;
        the noise is constant in pixels.
    crosstalk: (28, 28): covariance of what an expression of peak 1 adds to the reading besides: motion
        of the skin around a node, and what the alignment of the whole face takes for head motion.
    reference: where the figures come from.
    """

    attenuation_mean: F64
    attenuation_std: F64
    covariance: F64
    iod_px: float
    crosstalk: F64
    reference: str


TRACKER_NOISE_FILE = Path(__file__).with_name("tracker_noise.json")


def load_noise(path: Path = TRACKER_NOISE_FILE) -> TrackerNoise:
    """The measured noise of the tracker.

    Raises:
        UsageError: the file is missing, or not what `train.measure` writes.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        noise = TrackerNoise(
            attenuation_mean=np.array(data["attenuation"]["mean"], np.float64),
            attenuation_std=np.array(data["attenuation"]["std"], np.float64),
            covariance=np.array(data["noise_iod"]["cov"], np.float64),
            iod_px=float(data["noise_iod"]["iod_px"]),
            crosstalk=np.array(data["crosstalk"]["cov_per_peak"], np.float64),
            reference=str(data["noise_iod"]["reference"]),
        )
        shapes = [
            field.shape
            for field in (
                noise.attenuation_mean,
                noise.attenuation_std,
                noise.covariance,
                noise.crosstalk,
            )
        ]
        if shapes != [(14,), (14,), (28, 28), (28, 28)]:
            raise ValueError(f"shapes {shapes} instead of (14,), (14,), (28, 28), (28, 28)")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: no tracker noise file ({error!r}); restore it") from error
    return noise
