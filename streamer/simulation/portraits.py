"""Still faces that may be used freely: the raw material of the sample clip, the tests and the benchmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from streamer.config import Config, TrackingConfig
from streamer.errors import SourceError
from streamer.landmarker_model import find_landmarker
from streamer.messages import U8, Frame
from streamer.simulation.render import Portrait
from streamer.sources import open_source
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


def first_frame(path: Path) -> U8:
    """The first picture of a video or of a folder of images, (H, W, 3) BGR.

    Raises:
        SourceError: it cannot be read.
    """
    with open_source(Config(source=str(path))) as source:
        for message in source.frames():
            if isinstance(message, Frame):
                return np.array(message.image)
    raise SourceError(f"{path} has no picture: check the file")


def portrait(name: str | Path, landmarker: Path | None = None) -> Portrait:
    """A portrait with the landmark model's points: one of `IMAGES`, or the first frame of a video.

    Raises:
        KeyError: unknown name. SourceError: the video cannot be read, or its first frame shows no face.
    """
    image = first_frame(name) if isinstance(name, Path) else IMAGES[name]()
    tracker = MediaPipeTracker(find_landmarker(landmarker), TrackingConfig())
    try:
        faces = tracker.detect(image)
    finally:
        tracker.close()
    if not faces:
        raise SourceError(f"no face found in the portrait {name}: take another clip")
    return Portrait(image, faces[0])
