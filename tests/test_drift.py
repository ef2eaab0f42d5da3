"""A displacement, and what is believed of depth, cannot drift off, however long the stream is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamer.config import Config
from streamer.messages import Frame
from streamer.motion import MOST_DEPTH, MotionMeter
from streamer.sources import open_source
from streamer.tracking import FaceFollower, MediaPipeTracker


@pytest.fixture(scope="module")
def first(landmarker) -> tuple[Frame, object]:
    """The sample's first frame and its face."""
    tracker = MediaPipeTracker(landmarker, Config().tracking)
    try:
        with open_source(Config(source="sample")) as source:
            frame = next(message for message in source.frames() if isinstance(message, Frame))
        return frame, FaceFollower(1.0).update(0, 0.0, tracker.detect(frame.image))
    finally:
        tracker.close()


def test_displacement_and_depth_are_forgotten(first):
    frame, face = first
    config = Config().motion
    meter = MotionMeter(config)
    assert meter.update(frame, face) is not None
    reference = meter._reference
    assert reference is not None
    reference.base[:] = 0.1
    meter._depth[:] = 0.5
    seconds = 10.0
    for i in range(1, round(seconds * 10) + 1):
        again = Frame(i, i / 10, 0.0, frame.image, frame.grey_or_image)
        motion = meter.update(again, face if i % 5 == 0 else None)
        assert motion is not None
        assert np.abs(meter._depth).max() <= MOST_DEPTH
    left = 0.1 * math.exp(-seconds / config.forget_s)
    np.testing.assert_allclose(np.abs(motion.displacement), left, atol=0.01)
    assert np.abs(meter._depth).max() < 0.25
