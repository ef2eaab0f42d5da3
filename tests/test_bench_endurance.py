"""Keeping up: the paced camera, the repeated source, and what is counted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from media import picture, pictures, write_clip

from streamer.bench import endurance
from streamer.bench.endurance import PacedCamera, high_speed_table, repeated, run_at_high_speed
from streamer.errors import SourceError
from streamer.messages import Frame
from streamer.sources.live import DeviceLost


class NoFace:
    def detect(self, image):
        return []

    def close(self):
        pass


class FakeTime:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_the_camera_keeps_its_pace_and_loses_what_is_not_fetched(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(endurance, "time", clock)
    camera = PacedCamera(pictures(3), fps=200.0, count=40).open()
    for number in range(8):
        assert camera.grab()
        assert clock.now == pytest.approx(100.0 + number / 200)
        assert (camera.retrieve() == picture([0, 1, 2, 1][number % 4])).all()
    assert camera.lost == 0
    clock.sleep(0.052)  # ten frames late, of which its buffers keep four
    assert camera.grab()
    assert camera.lost == 5
    clock.sleep(1.0)
    with pytest.raises(DeviceLost):
        camera.grab()
    with pytest.raises(SourceError):
        camera.open()


def test_a_repeated_source_runs_on(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", pictures(5))
    frames = list(repeated(str(clip), 12))
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.index for frame in frames if isinstance(frame, Frame)] == list(range(12))
    times = [frame.time_s for frame in frames if isinstance(frame, Frame)]
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=2e-3)


def test_memory_and_times_are_told_at_each_step(tmp_path, engine):
    clip = write_clip(tmp_path / "clip.mkv", pictures(5))
    rows = endurance.stream_repeatedly(str(clip), 40, NoFace(), engine)
    assert [row["frames"] for row in rows] == list(range(2, 41, 2))
    assert all(row["fps"] > 0 and row["p99_ms"] >= row["p50_ms"] for row in rows)
    assert "| 40 |" in endurance.soak_table(rows)


def test_every_frame_of_every_fast_source_is_processed(monkeypatch, engine):
    monkeypatch.setattr(endurance, "HIGH_SPEED_S", 0.1)
    blurred = [np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8) for image in pictures(6)]
    rows = run_at_high_speed(blurred, NoFace(), engine)
    assert [row["source"] for row in rows] == ["H.264 file", "JPEG folder", "PNG folder", "live"]
    assert [row["given"] for row in rows] == [6, 6, 6, 20]
    for row in rows:
        lost = sum(row["drops"].values())  # the live one's depend on how busy the machine is
        assert row["processed"] + lost == row["given"]
        assert lost == 0 or row["source"] == "live"
        assert row["source"] in high_speed_table(rows)
