"""What flows through the recogniser, in the order in which it flows.

    Frame -> Face -> Motion -> KeyFrames -> GraphSample -> MicroExpression

Every message is frozen. Arrays inside a message belong to the message: nobody writes to them.

Frames of reference
-------------------
image frame
    Pixels of the upright frame, x to the right, y down, origin at the centre of the top-left pixel.
face frame
    Origin midway between the two eye centres, x along the line from the person's right eye to the
    person's left eye (so to the right in an unmirrored image), y down the face, unit = one
    inter-ocular distance. An eye centre is the midpoint of the eye's two corners; the inter-ocular
    distance (IOD) is the distance between the two eye centres.

Times
-----
`time_s` is the source's own timestamp in seconds from its first frame; all measuring is done on it.
`captured_s` is `time.monotonic()` right after the frame was grabbed; only latency is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
U8: TypeAlias = NDArray[np.uint8]


class Frame:
    """One picture of a source; not to be changed.

    Most frames are only measured, and for that grey is enough: colour may be made when first asked for.

    Args:
        index: 0-based position in the source; dropped frames keep their numbers.
        time_s: seconds since the source's first frame, from the source's own timestamps, increasing.
        captured_s: `time.monotonic()` right after the grab.
        image: (height, width, 3) uint8, BGR, upright, or a function that makes it, from any thread.
        grey: (height, width) uint8, black 0 and white 255, upright, of a source that has it before it has
            colour.
    """

    __slots__ = ("_grey", "_image", "captured_s", "index", "time_s")

    def __init__(
        self,
        index: int,
        time_s: float,
        captured_s: float,
        image: U8 | Callable[[], U8],
        grey: U8 | None = None,
    ) -> None:
        self.index = index
        self.time_s = time_s
        self.captured_s = captured_s
        self._image = image
        self._grey = grey

    @property
    def image(self) -> U8:
        """(height, width, 3) uint8, BGR, upright."""
        image = self._image
        if callable(image):
            # Two threads that ask at once both make it, and either result will do.
            self._image = image = image()
        return image

    @property
    def grey_or_image(self) -> U8:
        """What is there without conversion: (height, width) uint8 grey, else `image`. For who needs grey of
        a part of the picture, and converts just that."""
        return self.image if self._grey is None else self._grey


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The source was lost and is back: the next frame follows a hole.

    time_s: where the hole begins (time of the last frame before it).
    lost_s: how long it lasted. attempts: tries that it took. cause: what went wrong, one line.
    """

    time_s: float
    lost_s: float
    attempts: int
    cause: str


@dataclass(frozen=True, slots=True)
class Face:
    """The face that is followed, as the landmark model sees it in one frame.

    landmarks: (478, 3) float32, image frame, pixels; z in pixels too, towards the camera negative.
    others: how many further faces the frame shows.
    """

    frame: int
    time_s: float
    landmarks: F32
    others: int = 0


@dataclass(frozen=True, slots=True)
class Motion:
    """Where the 14 nodes are and how far they have moved, in one frame.

    segment: number of the uninterrupted stretch of tracking; displacements of two frames can be
        compared only inside one segment.
    nodes: (14, 2) float32, face frame, IOD: the nodes' rest positions, as the landmark model places
        them (pose removed as far as a similarity transform removes it).
    displacement: (14, 2) float32, face frame, IOD: measured by registration, head motion removed,
        since the start of the segment.
    quality: (14,) float32 in 0..1, how well each node's patch matched; 0 = not measured.
    head: (6,) float32: rigid motion of the head since the start of the segment: translation x, y
        (IOD), roll (radians), log scale, and the two out-of-plane terms (yaw-like, pitch-like:
        displacement in IOD per IOD of depth).
    eyes: (2,) float32: how closed the right and the left eye are; 0 = as open as usual, 1 = shut.
    residual: RMS in IOD of the stable points after the rigid motion is removed.
    iod_px: inter-ocular distance in pixels of the image.
    points_px: (14, 2) float32, image frame, pixels: where the nodes are now, for drawing.
    light: (4,) float32: natural logarithm of the mean grey level of the face's quarters, top left, top
        right, bottom left, bottom right in the image.
    """

    frame: int
    time_s: float
    segment: int
    nodes: F32
    displacement: F32
    quality: F32
    head: F32
    eyes: F32
    residual: float
    iod_px: float
    points_px: F32
    light: F32


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A moment of an event: 0-based frame index in the source and its time in seconds."""

    frame: int
    time_s: float


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """A spotted movement: what the sliding-window detector hands on.

    kind: "micro" (at most 0.5 s long) or "macro".
    nodes: (3, 14, 2) float32, face frame, IOD: nodes at onset, apex and offset;
        apex = onset + measured displacement.
    strength: peak displacement of the most moved node, IOD.
    snr: height of the fitted course over its noise.
    confidence: probability (0..1) that the movement is an expression.
    evidence: what the confidence was computed from, by name, see `streamer.confidence`.
    decided_frame: index of the last frame that the decision needed.
    """

    kind: Literal["micro", "macro"]
    onset: KeyFrame
    apex: KeyFrame
    offset: KeyFrame
    nodes: F32
    strength: float
    snr: float
    confidence: float
    evidence: dict[str, float]
    decided_frame: int


@dataclass(frozen=True, slots=True)
class GraphSample:
    """GM-Graph node features of one expression, ready for an engine.

    features: (3, 14, 4) float32: [onset|apex|offset, node, (x, y, D, alpha)], type B of the paper;
        type A is the first two channels. See `streamer.graph` for normalisation.
    """

    features: F32


@dataclass(frozen=True, slots=True)
class Classification:
    """What an engine says of one GraphSample. Both map names to probabilities in 0..1."""

    scores: dict[str, float]
    action_units: dict[str, float]


@dataclass(frozen=True, slots=True)
class MicroExpression:
    """A finished event: spotted and classified.

    label: class id ("I".."VII"); name: its usual reading ("happiness", ...).
    strength: peak displacement, IOD. confidence: probability (0..1) that it is an expression, and not
        noise, a blink, speech or the head; how sure the class is, `scores` tells.
    latency_ms: from the capture of the offset frame to now.
    """

    id: int
    onset: KeyFrame
    apex: KeyFrame
    offset: KeyFrame
    label: str
    name: str
    scores: dict[str, float]
    action_units: dict[str, float]
    strength: float
    confidence: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class MacroExpression:
    """A movement longer than 0.5 s; not classified."""

    id: int
    onset: KeyFrame
    apex: KeyFrame
    offset: KeyFrame
    strength: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The first frame is here. source: what the user named, without credentials."""

    source: str
    width: int
    height: int
    fps: float | None
    engine: str
    classes: dict[str, str]


@dataclass(frozen=True, slots=True)
class FaceFound:
    frame: int
    time_s: float
    others: int


@dataclass(frozen=True, slots=True)
class FaceLost:
    frame: int
    time_s: float


@dataclass(frozen=True, slots=True)
class StreamGap:
    """More than `gap_s` between two frames: the detector's window starts anew."""

    frame: int
    time_s: float
    gap_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class SourceReconnected:
    frame: int
    time_s: float
    lost_s: float
    attempts: int
    cause: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The last event of every stream.

    reason: "end of source", "max frames", "interrupted" or what went wrong.
    drops: count by cause. stages_ms: per stage {"p50":, "p95":, "p99":} milliseconds.
    """

    reason: str
    frames: int
    duration_s: float
    micro_expressions: int
    macro_expressions: int
    drops: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    stages_ms: dict[str, dict[str, float]] = field(default_factory=dict)


Event: TypeAlias = (
    StreamStarted
    | MicroExpression
    | MacroExpression
    | FaceFound
    | FaceLost
    | StreamGap
    | SourceReconnected
    | StreamEnded
)
