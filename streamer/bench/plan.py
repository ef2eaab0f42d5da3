"""What the spotting benchmark measures: its axes, their points, and the clips of each point."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from streamer.bench.clips import (
    Description,
    Encoding,
    FootageClip,
    RenderedClip,
    file_digest,
    video_duration_s,
)
from streamer.errors import UsageError
from streamer.simulation.expressions import (
    HELD_OUT_STYLE,
    ExpressionStyle,
    draw_blinks,
    draw_injection,
    draw_sequence,
)
from streamer.simulation.render import Clip

Scale = Literal["quick", "full"]
Kind = Literal["micro", "slow", "uninjected"]

STYLES: dict[str, ExpressionStyle] = {
    "tuning": ExpressionStyle(),
    "held-out": HELD_OUT_STYLE,
    "own": ExpressionStyle(),
}
"""How each set's expressions are drawn; "own" is footage that the user names."""

PORTRAITS: dict[str, tuple[str, ...]] = {
    "tuning": ("astronaut", "hopper"),
    "held-out": ("sample_03.mp4", "sample_04.mp4"),
}
"""Whose still faces: a known portrait, or the first frame of a clip of the footage."""

FOOTAGE: dict[str, tuple[str, ...]] = {
    "tuning": ("sample_01.mp4", "sample_02.mp4"),
    "held-out": ("sample_03.mp4", "sample_04.mp4"),
}
"""Which of the footage's clips belong to which set."""

APART_S = (2.5, 4.0)
"""From one onset to the next."""
SLOW_S = (1.0, 2.0)
"""Length of slow expressions, which are no micro-expressions."""
IOD_PX = (80.0, 150.0)
"""Pixels between the eyes where they are not what is varied."""
FOOTAGE_ENCODING = Encoding(quality=12, preset="veryfast")
"""Footage is encoded once more after the injection; so finely that it looks as before."""


@dataclass(frozen=True)
class Conditions:
    """Under what a point of an axis is filmed: one thing differs from the base.

    peak: displacement of the most moved node at the apex, IOD; 0 injects nothing. iod_px: pixels between the
    eyes, None draws `IOD_PX` for each clip. codec, quality: see `Encoding`. noise ... talking: see `Clip`;
    somebody who talks does so in the middle third of the clip.
    """

    peak: float = 0.01
    iod_px: float | None = None
    fps: float = 30.0
    noise: float = 2.0
    blur: float = 0.0
    codec: Literal["libx264", "mjpeg"] = "libx264"
    quality: int = 20
    flicker: float = 0.0
    banding: float = 0.0
    yaw: float = 4.0
    pitch: float = 3.0
    rate: float = 1.0
    talking: float = 0.0
    slow: bool = False


BASE = Conditions()


@dataclass(frozen=True)
class Point:
    """One point of an axis: what it is called, where it lies on the axis, and its conditions."""

    name: str
    value: float
    conditions: Conditions


@dataclass(frozen=True)
class Axis:
    """What is varied.

    title, unit: for the report. quick: names of the points of the quick scale. kind: what is counted.
    seconds: length of a clip. clips: of the quick and of the full scale, for each point.
    sets: which sets it is measured on. peers: whether the peers run on it.
    """

    title: str
    unit: str
    points: tuple[Point, ...]
    quick: tuple[str, ...]
    kind: Kind = "micro"
    seconds: float = 20.0
    clips: tuple[int, int] = (1, 2)
    sets: tuple[str, ...] = ("tuning",)
    peers: bool = False
    footage: bool = False


def _points(name: str, values: Sequence[float], scale: float = 1.0, **others: Any) -> tuple[Point, ...]:
    """The base with the condition `name` at each of `values`, times `scale`."""
    points = []
    for value in values:
        scaled = int(value) if name == "quality" else round(value * scale, 9)
        points.append(Point(f"{value:g}", value, replace(BASE, **{name: scaled}, **others)))
    return tuple(points)


_ALL = ("tuning", "held-out")

AXES: dict[str, Axis] = {
    "displacement": Axis(
        "peak displacement",
        "% of the inter-ocular distance",
        _points("peak", (0.25, 0.5, 0.75, 1, 1.5, 2, 3), 0.01),
        quick=("0.5", "1", "2"),
        seconds=30.0,
        clips=(2, 4),
        sets=_ALL,
        peers=True,
    ),
    "face": Axis(
        "face size", "pixels between the eyes", _points("iod_px", (50, 80, 110, 150, 220)), ("50", "150")
    ),
    "rate": Axis("frame rate", "frames a second", _points("fps", (25, 30, 60, 120, 200)), ("25", "60")),
    "noise": Axis(
        "sensor noise", "standard deviation at mid-grey", _points("noise", (0, 1, 2, 4, 6)), ("6",)
    ),
    "blur": Axis("blur", "pixels (sigma)", _points("blur", (0, 0.7, 1.5, 2.5)), ("1.5",)),
    "h264": Axis("H.264 compression", "crf", _points("quality", (17, 20, 23, 28)), ("28",)),
    "mjpeg": Axis(
        "Motion JPEG compression", "quantiser", _points("quality", (2, 5, 10), codec="mjpeg"), ("5",)
    ),
    "flicker": Axis(
        "flicker of the light", "% of the light, a sine at 7 Hz", _points("flicker", (1, 3, 6), 0.01), ("3",)
    ),
    "banding": Axis(
        "banding from lamps",
        "% of the light, 100 Hz in a rolling shutter",
        _points("banding", (1, 3, 6), 0.01),
        ("3",),
    ),
    "head-angle": Axis(
        "head motion: angle",
        "degrees of yaw to either side, at 0.3 and 0.7 Hz",
        _points("yaw", (0, 4, 8, 12, 20)),
        ("12",),
    ),
    "head-speed": Axis(
        "head motion: speed",
        "times 0.3 and 0.7 Hz, 8 degrees of yaw",
        _points("rate", (0.5, 1, 2, 3), yaw=8.0),
        ("2",),
    ),
    "talking": Axis(
        "talking",
        "% of the inter-ocular distance, motion of the mouth, a third of the time",
        _points("talking", (1, 2, 3), 0.01),
        ("2",),
    ),
    "slow": Axis(
        "slow expressions, 1 to 2 s",
        "% of the inter-ocular distance",
        _points("peak", (1, 2), 0.01, slow=True),
        ("1",),
        kind="slow",
        seconds=30.0,
        clips=(2, 4),
    ),
    "uninjected": Axis(
        "nothing injected",
        "",
        tuple(
            Point(name, k, replace(BASE, peak=0.0, **changes))
            for k, (name, changes) in enumerate(
                {
                    "sway and blinks": {},
                    "head turns": {"yaw": 15.0, "pitch": 8.0},
                    "talking": {"talking": 0.02},
                    "flicker": {"flicker": 0.03},
                    "banding": {"banding": 0.03},
                    "H.264 crf 28": {"quality": 28},
                }.items()
            )
        ),
        ("sway and blinks", "head turns"),
        kind="uninjected",
        seconds=30.0,
        sets=_ALL,
    ),
    "real": Axis(
        "real footage, injected",
        "% of the inter-ocular distance",
        _points("peak", (1, 2, 3), 0.01),
        ("2",),
        clips=(4, 12),
        sets=(*_ALL, "own"),
        peers=True,
        footage=True,
    ),
    "real-uninjected": Axis(
        "real footage as filmed",
        "",
        (Point("as filmed", 0.0, replace(BASE, peak=0.0)),),
        ("as filmed",),
        kind="uninjected",
        clips=(1, 1),
        sets=(*_ALL, "own"),
        peers=True,
        footage=True,
    ),
}
"""What is varied, each with everything else as in the base. Rendered clips are of still faces."""


@dataclass(frozen=True)
class Job:
    """One clip of one point, and whether the peers are to be run on it."""

    axis: str
    point: str
    value: float
    set_name: str
    kind: Kind
    description: Description
    peers: bool = False

    @property
    def cost(self) -> float:
        """About how long it takes: in frames of 640x480 that are rendered and recognised."""
        peers = 1.2 * self.peers
        if isinstance(self.description, RenderedClip):
            clip = self.description.clip
            return clip.duration_s * clip.fps * (clip.width * clip.height / 307200 + peers)
        return 100.0 * (2.5 + peers)


def rendered(
    conditions: Conditions, portrait: str, style: ExpressionStyle, seconds: float, seed: Sequence[int]
) -> RenderedClip:
    """A clip of `seconds` of a still face; equal arguments describe equal clips.

    Motion, blinks, times and kinds of the expressions depend on the seed alone, so that the points of an axis
    differ in their conditions and in nothing else.
    """
    rng = np.random.default_rng(list(seed))
    iod_px = float(rng.uniform(*IOD_PX))
    blinks = draw_blinks(rng, seconds)
    injections = ()
    if conditions.peak and conditions.slow:
        style = replace(style, length_s=SLOW_S)
        injections = draw_sequence(rng, seconds, conditions.peak, style, (4.5, 6.0))
    elif conditions.peak:
        injections = draw_sequence(rng, seconds, conditions.peak, style, APART_S)
    iod_px = round(conditions.iod_px or iod_px, 1)
    grow = max(1.0, iod_px / IOD_PX[1])  # a larger face in a larger picture, so that all of it is seen
    clip = Clip(
        fps=conditions.fps,
        duration_s=seconds,
        width=round(640 * grow / 2) * 2,
        height=round(480 * grow / 2) * 2,
        iod_px=iod_px,
        sway_yaw=conditions.yaw,
        sway_pitch=conditions.pitch,
        sway_rate=conditions.rate,
        noise=conditions.noise,
        blur=conditions.blur,
        flicker=conditions.flicker,
        banding=conditions.banding,
        blinks_s=blinks,
        talking=conditions.talking,
        talk_s=(round(seconds / 3, 3), round(seconds * 2 / 3, 3)),
        injections=injections,
        seed=int(rng.integers(2**31)),
    )
    return RenderedClip(portrait, clip, Encoding(conditions.codec, conditions.quality))


def injected(
    path: Path, sha256: str, seconds: float, peak: float, style: ExpressionStyle, seed: Sequence[int]
) -> FootageClip:
    """Real footage with expressions: one somewhere in a clip shorter than 8 s, else one every few seconds."""
    rng = np.random.default_rng(list(seed))
    number = int(rng.integers(2**31))
    injections = ()
    if peak and seconds < 8:
        label = str(rng.choice(("I", "II", "III", "IV", "V")))
        onset_s = rng.uniform(min(0.9, 0.3 * seconds), max(0.4 * seconds, seconds - 1.0))
        injections = (draw_injection(rng, label, float(onset_s), peak, style),)
    elif peak:
        injections = draw_sequence(rng, seconds, peak, style, APART_S, first_s=1.5)
    return FootageClip(str(path), sha256, injections, number, FOOTAGE_ENCODING)


@dataclass(frozen=True)
class Scope:
    """What is to be measured. axes, sets: by name. footage: clips by set, see `FOOTAGE`; a set without any
    is left out. peers: whether other detectors run too."""

    scale: Scale = "quick"
    axes: tuple[str, ...] = ()
    sets: tuple[str, ...] = ("tuning", "held-out", "own")
    footage: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    peers: bool = True
    seed: int = 0


def plan(scope: Scope) -> list[Job]:
    """Every clip of a run.

    Raises:
        UsageError: an axis is unknown. SourceError: footage cannot be read.
    """
    unknown = [name for name in scope.axes if name not in AXES]
    if unknown:
        raise UsageError(f"--axes: {', '.join(unknown)} is unknown; known: {', '.join(AXES)}")
    jobs: list[Job] = []
    digests = {path: file_digest(path) for paths in scope.footage.values() for path in paths}
    for name, axis in AXES.items():
        if scope.axes and name not in scope.axes:
            continue
        for set_name in axis.sets:
            if set_name not in scope.sets:
                continue
            points, peers = _points_of(axis, scope, set_name)
            for point in points:
                for description in _clips(scope, name, axis, set_name, point, digests):
                    jobs.append(Job(name, point.name, point.value, set_name, axis.kind, description, peers))
    return jobs


def _points_of(axis: Axis, scope: Scope, set_name: str) -> tuple[list[Point], bool]:
    """The points to measure, and whether the peers run on them.

    Still faces of the held-out set are a check and no curve: the quick scale's points, or the middle one of
    them without peers, since peers take most of the time.
    """
    quick = [point for point in axis.points if point.name in axis.quick]
    if set_name == "held-out" and not axis.footage:
        if scope.scale == "quick":
            return quick[len(quick) // 2 :][:1], False
        return quick, scope.peers and axis.peers
    return (list(axis.points) if scope.scale == "full" else quick), scope.peers and axis.peers


def _clips(
    scope: Scope, name: str, axis: Axis, set_name: str, point: Point, digests: Mapping[Path, str]
) -> list[Description]:
    style = STYLES[set_name]
    footage = scope.footage.get(set_name, ())
    count = axis.clips[scope.scale == "full"]
    seed = (scope.seed, zlib.crc32(f"{set_name} {name}".encode()))
    if axis.footage:
        return [
            injected(
                path,
                digests[path],
                video_duration_s(path),
                point.conditions.peak,
                style,
                (*seed, zlib.crc32(digests[path].encode()), number),
            )
            for path in footage
            for number in range(count)
        ]
    faces = PORTRAITS[set_name]
    stills = {path.name: path for path in footage}
    clips: list[Description] = []
    for number in range(count):
        face = faces[number % len(faces)]
        if face in stills:
            clip = rendered(point.conditions, str(stills[face]), style, axis.seconds, (*seed, number))
            clips.append(replace(clip, sha256=digests[stills[face]]))
        elif set_name == "tuning":
            clips.append(rendered(point.conditions, face, style, axis.seconds, (*seed, number)))
    return clips
