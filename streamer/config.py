"""Settings: one frozen dataclass a stage. Flags (tyro) and YAML files fill the same ones.

Flags win over the YAML file, the YAML file over the defaults here. An unknown key is an error.
All durations are seconds, all lengths IOD (inter-ocular distances) unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class CaptureConfig:
    """Reading frames."""

    fps: float = 200.0
    """Frame rate of a folder of images, which has no timestamps of its own (databases: 200)."""
    width: int = 640
    """Width asked of a camera, pixels."""
    height: int = 480
    """Height asked of a camera, pixels."""
    camera_fps: float = 30.0
    """Frame rate asked of a camera."""
    buffer_frames: int = 4
    """Frames kept between reader and recogniser; a live source drops the oldest beyond that."""
    reconnect_s: float = 30.0
    """How long a lost live source is tried again before the stream ends."""
    stall_s: float = 2.0
    """A live source that gives no frame for so long counts as lost."""


@dataclass(frozen=True)
class TrackingConfig:
    """The landmark model."""

    anchor_interval_s: float = 0.25
    """The landmark model runs at least this often; registration carries the nodes in between."""
    max_faces: int = 4
    """Faces looked for; the largest is followed, the others are counted."""
    min_confidence: float = 0.5
    """Detection and presence threshold of the landmark model."""


@dataclass(frozen=True)
class Config:
    """Live micro-expression recogniser: spots brief facial movements and names their category."""

    camera: int | None = None
    """Camera index (see --list-cameras)."""
    source: str | None = None
    """Video file, RTSP/HTTP URL, folder of numbered images, or the word 'sample'."""
    show: bool = False
    """Open a window with landmarks, motion and events (q or Esc closes it)."""
    save: Path | None = None
    """Write an annotated video here (.mp4)."""
    events: str = "-"
    """Write events as JSON lines to this file; '-' is standard output."""
    csv: Path | None = None
    """Write micro- and macro-expressions to this CSV file."""
    engine: str = "gtsgn-simulated"
    """Engine name (a folder of engines/) or a path to one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the classifier runs."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    config: Path | None = None
    """YAML file with any of these settings."""
    list_cameras: bool = False
    """List the cameras that open, and exit."""
    max_frames: int | None = None
    """Stop after so many frames."""
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
