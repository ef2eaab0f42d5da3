"""The data that runs are trained on: a database's nodes or key frames, as arrays, for each setting."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import SourceError
from streamer.graph import build_graphs
from streamer.sources.base import Picture
from streamer.sources.images import numbered_images, read_image
from train.datasets import Sample, load, select
from train.datasets.check import DatabaseName
from train.landmark_sources import Detector, magnified, open_detector
from train.landmarks import Extracted, LandmarkConfig, NodeSet, crop_box, cropped, extract_node_sets
from train.results import RunSpec

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

LEAST_UNIT_SAMPLES = 5
"""An action unit that fewer samples of a selection have gets no head output."""

FACE_SIDE = 3.0
"""Side of the square around a face that ResNet18 sees, inter-ocular distances."""

DECIDED_BY = (
    "models/gcn.py",
    "models/gts_gn.py",
    "models/layers.py",
    "models/resnet18.py",
    "models/__init__.py",
    "losses.py",
    "loop.py",
    "folds.py",
    "fold_networks.py",
    "fold_training.py",
    "pictures.py",
    "sweep_data.py",
    "../streamer/graph.py",
    "../streamer/kernels/graph.py",
)
"""Files that decide a result: when their code changes, folds are trained again."""


@cache
def code_digest() -> str:
    """SHA-256 over the code that decides a result; comments and layout do not count."""
    digest = hashlib.sha256()
    for name in DECIDED_BY:
        tree = ast.parse((Path(__file__).parent / name).read_text(encoding="utf-8"))
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class RunData:
    """What one run is trained and tested on. N samples, V views.

    inputs: (N, V, 3, n, 4) float32 graphs, view 0 of the whole image; or (N, 1, 3, S, S) uint8 pictures.
    label: (N,) int64. units: (N, U) float32 of 0 and 1, NaN where nobody has coded them.
    samples, persons, databases: (N,) names. classes, unit_names: names.
    """

    inputs: NDArray[Any]
    label: I64
    units: NDArray[np.float32]
    samples: tuple[str, ...]
    persons: tuple[str, ...]
    databases: tuple[str, ...]
    classes: tuple[str, ...]
    unit_names: tuple[str, ...]
    simulated: bool

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it, and over the code that decides a result."""
        digest = hashlib.sha256(code_digest().encode())
        for array in (self.inputs, self.label, self.units):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        names = (self.samples, self.persons, self.databases, self.classes, self.unit_names, self.simulated)
        digest.update(json.dumps(names).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """One database on disk."""

    database: DatabaseName
    """Which; manifest: a CSV file of your own."""
    root: Path
    """Folder that it was unpacked into."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""


@dataclass
class SweepData:
    """Gives each run its data; what runs share is measured once.

    sources: the databases. landmarks: how nodes are found, and whether key frames are magnified; its node set
    is each run's own. cache: folder for landmarks. workers: processes to measure them.
    """

    sources: Sequence[Source]
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)
    cache: Path = Path("out/landmarks")
    workers: int = 1
    progress: bool = True
    failed: list[str] = field(default_factory=list)
    """Samples that could not be measured, why and remedy."""
    _samples: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    _extracted: dict[tuple[str, str], Extracted] = field(default_factory=dict)
    _pictures: dict[tuple[str, str, int], U8] = field(default_factory=dict)

    def of(self, spec: RunSpec) -> RunData:
        """The data of a run.

        Raises:
            UsageError: the setting leaves too few classes. DatasetError, SourceError, OutputError,
            EngineError as `train.landmarks.extract`.
        """
        self.measure([spec])
        extracted = [self._extracted[name, spec.node_set] for name in spec.databases]
        samples = [sample for part in extracted for sample in part.samples]
        selection = select(samples, spec.setting)
        places = {sample.name: k for k, sample in enumerate(samples)}
        rows = [places[sample.name] for sample in selection.samples]
        if spec.reads_pictures:
            parts = [self._faces(name, spec.model, spec.picture) for name in spec.databases]
            inputs: NDArray[Any] = np.concatenate(parts)[rows][:, None]
        else:
            nodes = np.concatenate([part.nodes for part in extracted])[rows]
            graphs = build_graphs(nodes.reshape(-1, *nodes.shape[2:]), spec.features)
            inputs = graphs.reshape(*nodes.shape[:2], *graphs.shape[1:])
        numbers = sorted({number for sample in selection.samples for number in sample.numbers})
        names = [f"AU{number}" for number in numbers]
        units = selection.units(names)
        frequent = np.nansum(units, 0) >= LEAST_UNIT_SAMPLES if len(names) else np.zeros(0, bool)
        return RunData(
            inputs,
            selection.label,
            np.ascontiguousarray(units.reshape(len(rows), -1)[:, frequent]),
            tuple(sample.name for sample in selection.samples),
            selection.persons,
            selection.databases,
            selection.classes,
            tuple(name for name, kept in zip(names, frequent, strict=True) if kept),
            selection.simulated,
        )

    def measure(self, specs: Sequence[RunSpec]) -> None:
        """Measure what these runs need and is not measured yet, all node sets of a database in one go.

        Raises:
            As `of`.
        """
        for database in dict.fromkeys(name for spec in specs for name in spec.databases):
            wanted: list[NodeSet] = [spec.node_set for spec in specs if database in spec.databases]
            missing: list[NodeSet] = [
                n for n in dict.fromkeys(wanted) if (database, n) not in self._extracted
            ]
            if not missing:
                continue
            source = next((s for s in self.sources if s.database == database), None)
            if source is None:
                raise SourceError(f"no folder was given for the database {database}")
            found = load(source.database, source.root, source.sheet)
            results = extract_node_sets(
                found.samples, self.landmarks, missing, self.cache, self.workers, self.progress
            )
            for node_set, result in results.items():
                self._extracted[database, node_set] = result
                lines = (*found.missing, *result.failed)
                self.failed += [line for line in lines if line not in self.failed]

    def _faces(self, database: str, model: str, side: int) -> U8:
        """(samples, 3, side, side) uint8 of all measured samples of a database."""
        key = (database, model, side)
        if key not in self._pictures:
            samples = self._extracted[database, "gm14"].samples
            detector = open_detector(self.landmarks.source, self.landmarks.magnifier)
            bar = tqdm(samples, desc="pictures", unit="sample", disable=not self.progress)
            arrays = [key_frames(sample, side, self.landmarks, detector) for sample in bar]
            for number, name in enumerate(("resnet18-s", "resnet18-st")):
                self._pictures[database, name, side] = np.stack([pair[number] for pair in arrays])
        return self._pictures[key]


def key_frames(sample: Sample, side: int, config: LandmarkConfig, detector: Detector) -> tuple[U8, U8]:
    """What ResNet18 sees: the apex in colour (S), and onset, apex and offset in grey as three channels (ST).

    Both (3, side, side) uint8: the square of `FACE_SIDE` around the face of the onset, in all three frames.

    Raises:
        SourceError: the sample has no images, one cannot be read, or shows no face.
    """
    if sample.frames is None or sample.apex is None:
        raise SourceError(f"{sample.source}: has no images: ResNet18 cannot be trained on landmarks")
    paths = dict(numbered_images(sample.frames))
    pictures = []
    for number in (sample.onset, sample.apex, sample.offset):
        picture = read_image(paths[number]) if number in paths else None
        if picture is None:
            raise SourceError(f"{sample.frames}: image {number} cannot be read: unpack it anew")
        pictures.append(picture)
    try:
        if detector.magnifier is not None:
            pictures = magnified(pictures, detector.magnifier, config.magnification)
        onset = _bgr(pictures[0])
        points = detector.points68(onset) if config.source == "dlib" else detector.mesh(onset)
    except ValueError as error:
        raise SourceError(f"{sample.source}: {sample.name}: {error}") from error
    box = crop_box(points, FACE_SIDE)
    faces = [
        cv2.resize(_bgr(cropped(picture, box)), (side, side), interpolation=cv2.INTER_AREA)
        for picture in pictures
    ]
    grey = [cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) for face in faces]
    return np.ascontiguousarray(faces[1][..., ::-1].transpose(2, 0, 1)), np.array(grey, np.uint8)


def _bgr(picture: Picture) -> U8:
    return picture.image() if callable(picture.image) else picture.image
