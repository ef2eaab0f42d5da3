"""Still faces that may be used freely: the raw material of the sample clip, the tests and the benchmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from streamer.config import TrackingConfig
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8
from streamer.simulation.render import Portrait
from streamer.tracking import MediaPipeTracker


def astronaut() -> U8:
    """Eileen Collins, NASA, public domain; carried by scikit-image. (512, 512, 3) BGR."""
    from skimage import data

    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)


def hopper() -> U8:
    """Grace Hopper, US Navy, public domain; carried by matplotlib. (600, 512, 3) BGR."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path} is not there: reinstall matplotlib")
    return np.asarray(image, np.uint8)


IMAGES = {"astronaut": astronaut, "hopper": hopper}
"""Known portraits by name."""


def portrait(name: str, landmarker: Path | None = None) -> Portrait:
    """A portrait with the landmark model's points.

    Raises:
        KeyError: unknown name. ValueError: the landmark model finds no face in it.
    """
    image = IMAGES[name]()
    tracker = MediaPipeTracker(find_landmarker(landmarker), TrackingConfig())
    try:
        faces = tracker.detect(image)
    finally:
        tracker.close()
    if not faces:
        raise ValueError(f"no face found in the portrait {name!r}")
    return Portrait(image, faces[0])
