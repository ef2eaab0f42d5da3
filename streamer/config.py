"""Settings: one frozen dataclass a stage. Flags and YAML files fill the same ones (`streamer.cli`).

Flags win over the YAML file, the YAML file over the defaults here. An unknown key is an error.
Every number is finite and not negative, and further bounded where its type says so.
`configs/default.yaml` is written from this file by `scripts/write_default_config.py`.
All durations are seconds, all lengths IOD (inter-ocular distances) unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number; `above` is excluded, the others are included."""

    above: float | None = None
    least: float = 0.0
    most: float | None = None


Positive = Annotated[float, Bounds(above=0.0)]
Share = Annotated[float, Bounds(most=1.0)]
Count = Annotated[int, Bounds(least=1.0)]
CropSize = Annotated[float, Bounds(least=20.0, most=400.0)]


@dataclass(frozen=True)
class CaptureConfig:
    """Reading frames."""

    fps: Positive = 200.0
    """Frame rate of a folder of images, which has no timestamps of its own (databases: 200)."""
    width: Count = 640
    """Width asked of a camera, pixels."""
    height: Count = 480
    """Height asked of a camera, pixels."""
    camera_fps: Positive = 30.0
    """Frame rate asked of a camera."""
    buffer_frames: Count = 4
    """Frames kept between reader and recogniser; a live source drops the oldest beyond that."""
    reconnect_s: float = 30.0
    """How long a lost live source is tried again before the stream ends."""
    stall_s: Positive = 2.0
    """A live source that gives no frame for so long counts as lost."""


@dataclass(frozen=True)
class TrackingConfig:
    """The landmark model."""

    anchor_interval_s: float = 0.5
    """The landmark model runs at least this often; registration carries the nodes in between."""
    search_interval_s: float = 0.1
    """The landmark model runs so often while there is no face."""
    misses: Count = 3
    """The face is lost when the landmark model fails to see it in so many frames running."""
    max_faces: Count = 4
    """Faces looked for; the largest is followed, the others are counted."""
    min_confidence: Share = 0.5
    """Detection and presence threshold of the landmark model."""
    lost_s: float = 0.5
    """A followed face that is missing for longer is given up, and the largest face is taken."""


@dataclass(frozen=True)
class MotionConfig:
    """Registration on the face-stabilised crop."""

    crop_iod_min_px: CropSize = 80.0
    """Smallest inter-ocular distance in the crop, pixels: smaller faces are enlarged."""
    crop_iod_max_px: CropSize = 100.0
    """Largest inter-ocular distance in the crop, pixels: larger faces are reduced."""
    window: Positive = 0.18
    """Side of the matched patch, IOD."""
    levels: int = 1
    """Pyramid levels above the crop itself, for frames that do not match without."""
    iterations: Count = 8
    """Lucas-Kanade steps a level, at most."""
    outlier: Positive = 0.003
    """Residual of a stable point (IOD) at which its weight in the head fit has fallen to a quarter."""
    shear_ridge: float = 0.3
    """Prior precision of foreshortening in the head model."""
    turn_ridge: float = 0.002
    """Prior precision of the out-of-plane turns in the head model."""
    rewarp: float = 0.03
    """Head motion since the last frame (IOD) beyond which the crop is taken again."""
    turn_rate: float = 0.25
    """Speed of a turn (1 / s, about radians) beyond which patches are shown as the turned head would."""
    turn_step: Positive = 0.02
    """Turn since the patches were cut, beyond which they are cut anew."""
    unsure_place: float = 0.05
    """How uncertain the place of a point on the skin is (IOD): with the skin's slope, that of its depth."""
    lost_node: Positive = 0.08
    """Distance of a node's patch from where the landmark model sees the node (IOD) at which it is lost."""
    astray: Positive = 0.04
    """Movement of a point against the head (IOD) beyond which its match is not the next one's start."""
    forget_s: Positive = 20.0
    """Time in which a displacement, and a correction of depth, is forgotten: nothing may drift off."""
    still_rate: float = 0.1
    """Speed of a turn (1 / s, about radians) up to which the head holds still."""
    forget_turn: float = 0.5
    """Turn (radians) in which a displacement measured before it is forgotten; 0 never forgets."""
    least_stable: Share = 0.3
    """Share of the stable points' weight that must be found for the frame to count as measured."""
    sure_quality: Share = 0.3
    """Match quality of the worst node below which the frame is matched again, with the pyramid."""
    unsure_quality: Share = 0.5
    """Mean match quality of the nodes below which the landmark model is asked at the next frame."""
    lost_residual: Positive = 0.06
    """RMS of the stable points (IOD) beyond which the frame counts as not measured."""
    disagree: Positive = 0.3
    """Distance between landmark model and registration (IOD) beyond which a new segment starts."""
    reference_s: Positive = 0.5
    """Age at which the reference crop is replaced."""
    turn_limit: float = 0.06
    """Out-of-plane turn since the reference beyond which it is replaced."""
    depth_s: float = 0.7
    """Time in which the points' depth follows what the turning head shows; 0 keeps the model's."""
    depth_limit: float = 0.012
    """Most residual (IOD) of one point and frame that teaches its depth."""
    resize_limit: float = 0.2
    """Change of the face's size since the reference (natural logarithm) beyond which it is replaced."""
    anchor_gain: Share = 0.3
    """Weight of a new landmark result in the running average of rest positions and pose."""
    pull: Share = 0.3
    """Part of the distance to the landmark model that is closed at a change of reference."""


@dataclass(frozen=True)
class SpottingConfig:
    """The sliding-window motion detector."""

    half_lengths_s: tuple[Positive, ...] = (0.1, 0.15, 0.22, 0.5, 1.0)
    """Half-lengths of the bumps that the matched filter looks for."""
    side_s: Positive = 0.12
    """Quiet that the matched filter takes in on each side of the bump, at least."""
    side: float = 0.4
    """The same in half-lengths."""
    before_s: Positive = 0.25
    """Time around a candidate's bump, before and after, to which its course is fitted."""
    start_s: float = 0.3
    """A movement that begins so soon after the face was found is not believed."""
    gap_s: Positive = 0.1
    """A longer hole between two frames empties the window."""
    score: Positive = 2.2
    """Evidence over noise, RMS of the most moved nodes, that opens a candidate; noise alone gives 1.6."""
    score_slow: Positive = 2.6
    """The same for a movement longer than 0.5 s: slow drifts are more common than slow expressions."""
    top_nodes: Count = 3
    """How many of the most moved nodes count."""
    peak_reach: Positive = 0.4
    """A candidate is the largest evidence within so many half-lengths on both sides."""
    node_score: float = 1.5
    """Evidence over noise that a node needs to take part in the event's curve."""
    least_strength: float = 0.001
    """Peak displacement of the most moved node, IOD, that an event needs."""
    most_strength: Positive = 0.08
    """Largest peak displacement of a micro-expression, IOD: subtle is what the name says."""
    most_strength_slow: Positive = 0.4
    """Largest peak displacement of a longer movement, IOD: beyond it, something else was tracked."""
    least_quality: Share = 0.5
    """Mean match quality of the nodes below which, during a movement, something else is seen than skin."""
    light: Positive = 0.03
    """Change of brightness in a quarter of the face (natural logarithm) that may look like a movement."""
    light_likeness: Share = 0.9
    """Correlation of a movement with the light that makes it the light's."""
    least_return: Share = 0.5
    """Share of the rise that has to be undone at the offset."""
    least_rise: float = 0.2
    """Height of the fitted rise that a candidate needs, as a share of its response."""
    least_side_s: Positive = 0.03
    """Shortest rise and shortest fall."""
    drift_stiffness: float = 0.3
    """Ridge on the drift that is fitted under a movement, as a share of what the data say of it."""
    settle_s: float = 0.1
    """How long after the fitted offset an event is decided."""
    settle_slow_s: Positive = 0.4
    """The same for the offset of a movement longer than 0.5 s."""
    calm_s: float = 1.0
    """Stretch before the onset that must be calm."""
    restless: float = 0.6
    """Mean excursion in that stretch, as a share of the rise, that rejects the candidate."""
    longest_s: Positive = 4.0
    """A movement that has not returned by then is a change of posture."""
    rigid: Share = 0.9
    """Share of a movement explained by a rigid motion beyond which it is the head's."""
    blink: Share = 0.3
    """Eye closure that counts as a blink."""
    blink_likeness: Share = 0.5
    """Correlation of a movement with the eye's closure that makes it the blink's."""
    blink_strength: float = 0.1
    """Upper-face movements up to this size (IOD) during a blink are the blink's."""
    speech_s: Positive = 1.2
    """Time over which the mouth's activity is averaged."""
    speech_lag_s: Positive = 0.1
    """Time over which the mouth's speed is taken."""
    speech_motion: float = 0.004
    """Motion of a mouth node in that time (IOD) that counts as activity."""
    speech: Share = 0.25
    """Share of mouth activity before the onset that makes a movement of the mouth speech."""
    leak_s: Positive = 2.0
    """Time over which is learned what the head's motion leaves in the displacement."""
    leak_lag_s: Positive = 0.1
    """Time over which the changes are taken that this is learned from."""
    leak_ridge: Positive = 0.003
    """Motion of the head in that time (IOD, radians) that it takes to learn from."""
    leak_limit: Positive = 0.006
    """A larger displacement in that time (IOD) counts as this."""
    head_shift: float = 0.002
    """Noise added per IOD by which the head shifts to and fro in step."""
    head_turn: float = 0.004
    """Noise added per radian by which the head turns to and fro in step."""
    noise_systematic: Positive = 0.0002
    """Noise of a node's response, IOD, that does not show in calm stretches and is added always."""
    noise_prior: Positive = 0.0007
    """Noise of a node's response, IOD, before anything has been seen."""
    noise_least: Positive = 0.0001
    """Smallest noise believed."""
    noise_most: Positive = 0.02
    """Largest noise believed."""
    noise_s: Positive = 2.0
    """Shortest time constant of the running noise estimate."""
    noise_halves: float = 16.0
    """Time constant of the running noise estimate, in half-lengths."""
    most_open: Count = 12
    """Candidates followed at once."""


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
    """Engine name (a folder of engines/), a path to one, or "auto": the default, on a GPU if there is one."""
    sensitivity: Share = 0.6
    """Movements of a confidence of at least 1 - this are reported; a higher one finds more, right and
    wrong."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the classifier runs."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    config: Path | None = None
    """YAML file with any of these settings."""
    list_cameras: bool = False
    """List the cameras that open, and exit."""
    max_frames: Count | None = None
    """Stop after so many frames."""
    log_level: Literal["debug", "info", "warning"] = "info"
    """Least severe log lines to write to standard error."""
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    spotting: SpottingConfig = field(default_factory=SpottingConfig)
