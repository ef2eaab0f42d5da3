"""For the tests of events and sinks: messages, a full disk, a child process, a terminal."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from streamer.graph import node_set_named
from streamer.messages import (
    Event,
    Face,
    FaceFound,
    FaceLost,
    Frame,
    KeyFrame,
    MacroExpression,
    MicroExpression,
    Motion,
    SourceReconnected,
    StreamEnded,
    StreamGap,
    StreamStarted,
)

ROOT = Path(__file__).parent.parent

REST = node_set_named("gm14").rest


def key_frame(frame: int, fps: float = 30.0) -> KeyFrame:
    return KeyFrame(frame, frame / fps)


def micro(number: int = 1, apex_s: float = 1.0, label: str = "III") -> MicroExpression:
    """A micro-expression 0.2 s long, with more digits than are written."""
    onset, offset = (
        KeyFrame(round(30 * apex_s) - 3, apex_s - 0.1),
        KeyFrame(round(30 * apex_s) + 3, apex_s + 0.1),
    )
    return MicroExpression(
        id=number,
        onset=onset,
        apex=KeyFrame(round(30 * apex_s), apex_s),
        offset=offset,
        label=label,
        name="anger",
        scores={"I": 0.123456, "III": 0.876544},
        action_units={"AU4": 0.912345, "AU7": 0.55, "AU23": 0.1},
        strength=0.0163449,
        confidence=0.87654,
        latency_ms=66.6667,
    )


def macro(number: int = 1, apex_s: float = 1.0) -> MacroExpression:
    return MacroExpression(
        number, KeyFrame(0, apex_s - 0.4), KeyFrame(12, apex_s), KeyFrame(24, apex_s + 0.4), 0.02, 33.33
    )


def one_of_each() -> list[Event]:
    return [
        StreamStarted(
            "clip.mp4", 640, 480, 29.97002997, "gtsgn-simulated", {"I": "happiness", "III": "anger"}
        ),
        FaceFound(0, 0.0, 1),
        micro(),
        macro(),
        FaceLost(70, 70 / 30),
        StreamGap(75, 2.5, 0.25, "camera stalled"),
        SourceReconnected(90, 3.0, 1.23456789, 4, "connection reset"),
        StreamEnded(
            "end of source",
            100,
            3.3,
            1,
            1,
            drops={"stall": 1},
            rejected={"blink": 3},
            stages_ms={"motion": {"p50": 0.41234, "p95": 0.5, "p99": 0.9}},
        ),
    ]


def frame(
    index: int, width: int = 160, height: int = 120, fps: float = 30.0, seed: int | None = None
) -> Frame:
    """Frame `index`: mid-grey, or with a seed noise that an encoder cannot make small."""
    image = np.full((height, width, 3), 128, np.uint8)
    if seed is not None:
        image = np.random.default_rng((seed, index)).integers(0, 256, image.shape, dtype=np.uint8)
    return Frame(index, index / fps, index / fps, image)


def motion(
    index: int,
    displacement: np.ndarray | None = None,
    *,
    time_s: float | None = None,
    segment: int = 0,
    centre: tuple[float, float] = (320.0, 200.0),
    iod_px: float = 80.0,
    roll: float = 0.0,
    quality: np.ndarray | float = 1.0,
) -> Motion:
    """A face with its eyes about `centre` (pixels), turned by `roll` radians, its nodes displaced (IOD)."""
    moved = np.zeros((14, 2)) if displacement is None else np.asarray(displacement)
    turn = iod_px * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return Motion(
        frame=index,
        time_s=index / 30 if time_s is None else time_s,
        segment=segment,
        nodes=REST,
        displacement=moved.astype(np.float32),
        quality=np.broadcast_to(np.float32(quality), (14,)).copy(),
        head=np.zeros(6, np.float32),
        eyes=np.zeros(2, np.float32),
        residual=0.001,
        iod_px=iod_px,
        points_px=((REST + moved) @ turn.T + centre).astype(np.float32),
        light=np.full(4, 4.8, np.float32),
    )


def face(index: int, others: int = 0) -> Face:
    return Face(index, index / 30, np.full((478, 3), 50, np.float32), others)


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writes are cut short and then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run_child(script: str, *args: object) -> subprocess.Popen[bytes]:
    """A Python process that can import the project and the test samples; its outputs are pipes."""
    command = [sys.executable, "-c", script, *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=child_environment(), cwd=ROOT, stdout=pipe, stderr=pipe)


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def decoded_times(path: Path) -> list[float]:
    """Time of every frame; fails where a decoder would complain."""
    with av.open(path) as container:
        return [float(picture.time) for picture in container.decode(video=0) if picture.time is not None]


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """What a person sees: carriage returns overwrite."""
        shown = []
        for line in self.getvalue().split("\n"):
            row = ""
            for part in line.split("\r"):
                row = part + row[len(part) :]
            shown.append(row.rstrip())
        return shown
