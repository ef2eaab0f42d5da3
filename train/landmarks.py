"""From a sample's images to its nodes at onset, apex and offset, kept on disk.

By the live tracker (default), training sees what serving measures: the landmark model says where the nodes
are, registration says how they move, and an apex that the coders did not give is found by the spotter's own
fit of a rise and a fall. By dlib's 68 points, frame by frame, as in the paper. Both also on crops of several
sizes around the face, whose small differences augment the data (paper, section IV-A).

    python -m train landmarks --dataset casme2 --root /data/CASME2
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer import face_crop, graph, motion, reference, tracking
from streamer.config import MotionConfig, SpottingConfig, TrackingConfig
from streamer.errors import OutputError, SourceError, UsageError
from streamer.graph import NODE_SETS, key_frame_nodes
from streamer.kernels import linear, patches, pictures, registration, windows
from streamer.landmarker_model import SHA256 as LANDMARKER_SHA256
from streamer.sources.base import Picture
from streamer.sources.images import numbered_images, read_image
from train import landmark_sources, magnify
from train.datasets import Sample
from train.landmark_cache import SampleNodes, kept_nodes, load_arrays, save_nodes
from train.landmark_sources import Detector, magnified, measure_key_frames, open_detector, track
from train.processes import run_jobs

F32 = NDArray[np.float32]

MEASURED_BY = (
    face_crop, graph, motion, reference, tracking, linear, patches, pictures, registration, windows,
    landmark_sources, magnify, sys.modules[__name__],
)  # fmt: skip
"""Modules that decide which nodes an image gives: when one changes, what is kept is measured again."""

MARGIN_S = 0.1
"""Frames before the onset and after the offset that are followed too, where they exist, seconds."""

MOST_FRAMES = 2000

NodeSet: TypeAlias = Literal["gm14", "dlib31", "dlib68"]


@dataclass(frozen=True)
class LandmarkConfig:
    """How nodes are found."""

    source: Literal["tracker", "dlib"] = "tracker"
    """tracker: the live program's. dlib: 68 points on each key frame, as in the paper (extra `dlib`)."""
    node_set: NodeSet = "gm14"
    """Which nodes."""
    crops: tuple[float, ...] = (3.0, 3.6, 4.4)
    """Sides of the square crops of the face, inter-ocular distances, besides the whole image."""
    frames: Literal["all", "key"] = "all"
    """all: follow the motion through every frame there is. key: the key frames alone, many times faster."""
    magnifier: Path | None = None
    """Weights of the motion magnification network (see `python -m train magnifier`): magnify the key frames
    before landmarks are found, as the paper does. Then features must not be magnified once more."""
    magnification: float = 3.0
    """How far the magnifier magnifies."""

    def __post_init__(self) -> None:
        if self.magnifier is not None and self.frames == "all" and self.source == "tracker":
            raise ValueError("magnifier: only key frames are magnified: add frames key")
        if not 1 <= self.magnification <= 50:
            raise ValueError(f"magnification is {self.magnification:g}; must be 1 to 50")
        if not all(2.5 <= side <= 20 for side in self.crops):
            raise ValueError(f"crops {self.crops}: each side must be 2.5 to 20 inter-ocular distances")


@dataclass(frozen=True)
class Extracted:
    """Samples with their nodes.

    samples: those that could be measured, `apex` filled in. nodes: (N, V, 3, n, 2) float32, see
    `SampleNodes`. found: numbers of those whose apex was found. failed: the others, why and remedy.
    """

    samples: tuple[Sample, ...]
    nodes: F32
    found: tuple[int, ...]
    failed: tuple[str, ...]

    def of(self, samples: Sequence[Sample]) -> F32:
        """(M, V, 3, n, 2) nodes of some of `samples`, in their order: of a `Selection`'s.

        Raises:
            KeyError: one was not measured.
        """
        place = {sample.name: k for k, sample in enumerate(self.samples)}
        return self.nodes[[place[sample.name] for sample in samples]]


# -- what is kept --------------------------------------------------------------------------------------


def cache_key(sample: Sample, config: LandmarkConfig, files: Sequence[tuple[int, Path]]) -> str:
    """SHA-256 over the bytes of all images that are looked at and everything that decides what is made of
    them. Where a database lies and what its folders are called does not count."""
    weights = config.magnifier
    settings = asdict(config) | {
        "magnifier": None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
        "code": _code_digest(),
        "landmarker": LANDMARKER_SHA256,
        "fps": sample.fps,
        "key_frames": [sample.onset, sample.apex, sample.offset],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for number, path in files:
        digest.update(f"{number}:".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _code_digest() -> str:
    digest = hashlib.sha256()
    for module in MEASURED_BY:
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(repr((MotionConfig(), SpottingConfig(), TrackingConfig())).encode())
    return digest.hexdigest()


# -- one sample ----------------------------------------------------------------------------------------


def files_of(sample: Sample, config: LandmarkConfig) -> list[tuple[int, Path]]:
    """The images that are looked at: (number, path), in order.

    Raises:
        SourceError: they are not there any more, or far too many.
    """
    if sample.frames is None or sample.paths is None:
        raise SourceError(f"{sample.source}: has no images")
    if (config.frames == "key" or config.source == "dlib") and sample.apex is not None:
        numbers = (sample.onset, sample.apex, sample.offset)
        return [(n, p) for n, p in zip(numbers, sample.paths, strict=True) if p is not None]
    margin = round(MARGIN_S * sample.fps)
    files = [
        (number, path)
        for number, path in numbered_images(sample.frames)
        if sample.onset - margin <= number <= sample.offset + margin
    ]
    if len(files) > MOST_FRAMES:
        raise SourceError(
            f"{sample.source}: {len(files)} images from onset to offset, more than {MOST_FRAMES}: a "
            f"micro-expression is brief; correct the sheet"
        )
    return files


def _pictures(files: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, Picture]]:
    for number, path in files:
        picture = read_image(path)
        if picture is None:
            raise SourceError(f"{path} cannot be read as an image: unpack it anew")
        yield number, picture


def _key_pictures(
    pictures: Sequence[tuple[int, Picture]], numbers: tuple[int, int, int]
) -> list[tuple[int, Picture]]:
    by_number = dict(pictures)
    return [(number, by_number[number]) for number in numbers]


def crop_box(landmarks: F32, side: float) -> tuple[int, int, int]:
    """Left, top and size of the square around a face, pixels; side: in IOD. landmarks: (478 or 68, >=2)."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    corners = [i for eye in face_crop.EYE_CORNERS for i in eye] if len(landmarks) == 478 else [36, 39, 42, 45]
    right, left = landmarks[corners[:2], :2].mean(0), landmarks[corners[2:], :2].mean(0)
    size = round(side * float(np.hypot(*(left - right))))
    x, y = ((low + high) / 2 - size / 2).round().astype(int).tolist()
    return x, y, size


def cropped(picture: Picture, box: tuple[int, int, int]) -> Picture:
    """The square of a picture; what lies outside repeats its edge."""
    left, top, size = box
    rows = np.clip(np.arange(top, top + size), 0, picture.height - 1)
    columns = np.clip(np.arange(left, left + size), 0, picture.width - 1)

    def cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(image[rows][:, columns])

    grey = None if picture.grey is None else cut(picture.grey)
    image = picture.image
    return Picture(size, size, (lambda: cut(image())) if callable(image) else cut(image), grey)


def measure_sample(
    sample: Sample, config: LandmarkConfig, files: Sequence[tuple[int, Path]], detector: Detector
) -> SampleNodes:
    """Nodes of one sample in all views.

    Raises:
        SourceError: an image cannot be read, or the face is not seen.
    """
    pictures = list(_pictures(files))
    what, views = "the whole image", []
    try:
        apex = track(sample, pictures, "gm14", detector).apex if sample.apex is None else sample.apex
        if config.frames == "key" or config.source == "dlib":
            pictures = _key_pictures(pictures, (sample.onset, apex, sample.offset))
            if detector.magnifier is not None:
                large = magnified([p for _, p in pictures], detector.magnifier, config.magnification)
                pictures = [(number, p) for (number, _), p in zip(pictures, large, strict=True)]
        face = None
        for side in (None, *config.crops):
            view = pictures
            if side is not None and face is not None:
                what, box = f"a crop of {side:g} inter-ocular distances", crop_box(face, side)
                view = [(number, cropped(picture, box)) for number, picture in pictures]
            if config.source == "dlib":
                points = measure_key_frames([picture for _, picture in view], detector)
                nodes, first = key_frame_nodes(points, config.node_set), points[0]
            else:
                tracked = track(sample, view, config.node_set, detector)
                nodes, first = tracked.nodes(sample, apex), tracked.landmarks
            face = first if face is None else face
            views.append(nodes)
    except ValueError as error:
        raise SourceError(f"{sample.source}: {sample.name}, {what}: {error}") from error
    return SampleNodes(np.stack(views).astype(np.float32), apex)


def given_nodes(sample: Sample, config: LandmarkConfig) -> SampleNodes:
    """Nodes of a sample that came as landmarks: every view is the same.

    Raises:
        SourceError: the file is not as `train.datasets.manifest` describes it.
    """
    assert sample.landmarks is not None
    try:
        points = load_arrays(sample.landmarks, ("landmarks",))["landmarks"]
        if len(points.shape) != 3 or len(points) != 3:
            raise ValueError(f"its landmarks have shape {points.shape}")
        nodes = key_frame_nodes(points, config.node_set)
    except ValueError as error:
        raise SourceError(
            f"{sample.source}: {sample.landmarks}: {error}; it must be an .npz file with an array landmarks, "
            f"(3, 478 or 68, 2 or 3) pixels"
        ) from error
    return SampleNodes(np.repeat(nodes[None], 1 + len(config.crops), axis=0), 1)


# -- all samples ---------------------------------------------------------------------------------------

_detector: Detector | None = None  # of this process, which is a worker where there are several


def _jobs(sample: Sample, configs: Sequence[LandmarkConfig], folder: Path) -> list[SampleNodes | str]:
    """One sample under several settings, one after the other: the landmark model sees each picture once."""
    return [_job(sample, config, folder) for config in configs]


def _job(sample: Sample, config: LandmarkConfig, folder: Path) -> SampleNodes | str:
    """The kept or measured nodes of a sample, or why there are none."""
    try:
        if sample.landmarks is not None:
            return given_nodes(sample, config)
        files = files_of(sample, config)
        key = cache_key(sample, config, files)
        path = folder / key[:2] / f"{key}.npz"
        shape = (1 + len(config.crops), 3, len(NODE_SETS[config.node_set]), 2)
        kept = kept_nodes(path, shape)
        if kept is not None:
            return kept
        global _detector
        if _detector is None or _detector.weights != config.magnifier:
            _detector = open_detector(config.source, config.magnifier)
        result = measure_sample(sample, config, files, _detector)
    except SourceError as error:
        return str(error)
    except OSError as error:
        return f"{sample.source}: {error}: unpack it anew"
    try:
        save_nodes(path, result)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): name another folder with --cache"
        ) from error
    return result


def extract(
    samples: Sequence[Sample],
    config: LandmarkConfig = LandmarkConfig(),
    cache: Path = Path("out/landmarks"),
    workers: int = 1,
    progress: bool = True,
) -> Extracted:
    """Nodes of all samples that can be measured. What is in `cache` is taken from there, so an interrupted
    run goes on where it stopped.

    Raises:
        UsageError: the extra `dlib` is not installed, or there is no such magnifier.
        OutputError: the cache cannot be written. EngineError: the landmark model cannot be had.
        SourceError: not one sample can be measured.
    """
    return extract_node_sets(samples, config, (config.node_set,), cache, workers, progress)[config.node_set]


def extract_node_sets(
    samples: Sequence[Sample],
    config: LandmarkConfig,
    node_sets: Sequence[NodeSet],
    cache: Path,
    workers: int = 1,
    progress: bool = True,
) -> dict[NodeSet, Extracted]:
    """`extract` for several node sets, instead of the one of `config`, by name."""
    if config.magnifier is not None and not config.magnifier.is_file():
        raise UsageError(
            f"no magnifier {config.magnifier}: train one with `python -m train magnifier --out DIR`"
        )
    configs = [replace(config, node_set=node_set) for node_set in node_sets]
    results: list[list[SampleNodes | str]] = [[] for _ in samples]
    with tqdm(total=len(samples), desc="landmarks", unit="sample", disable=not progress) as bar:
        jobs = [(sample, configs, cache) for sample in samples]
        for position, result in run_jobs(_jobs, jobs, workers):
            results[position] = result
            bar.update()
    return {
        node_set: _gathered(samples, [result[k] for result in results])
        for k, node_set in enumerate(node_sets)
    }


def _gathered(samples: Sequence[Sample], results: Sequence[SampleNodes | str]) -> Extracted:
    """Raises: SourceError."""
    kept, nodes, found, failed = [], [], [], []
    for sample, result in zip(samples, results, strict=True):
        if isinstance(result, str):
            failed.append(result)
            continue
        if sample.apex is None:
            found.append(len(kept))
        kept.append(replace(sample, apex=result.apex))
        nodes.append(result.nodes)
    if not kept:
        raise SourceError(f"none of {len(samples)} samples can be measured; the first: {failed[0]}")
    return Extracted(tuple(kept), np.stack(nodes), tuple(found), tuple(failed))
