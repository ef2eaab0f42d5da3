"""What every database gives: samples of one form, and a list of what was repaired and what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from streamer.errors import SourceError
from streamer.sources.images import numbered_images
from train.datasets.action_units import OBJECTIVE_CLASSES, objective_class, parse_action_units, unit_number
from train.datasets.errors import DatasetError
from train.datasets.sheets import Row

SIMULATED_MARK = "simulated.json"
"""A tree with this file in it was made by `train.simulated_database`; nobody performed what it shows."""

EMOTIONS = {
    "happiness": ("happy", "happiness", "joy"),
    "surprise": ("surprise", "surprised"),
    "disgust": ("disgust", "disgusted"),
    "repression": ("repression", "repressed"),
    "anger": ("anger", "angry"),
    "contempt": ("contempt",),
    "sadness": ("sadness", "sad"),
    "fear": ("fear", "afraid"),
    "others": ("others", "other"),
    "positive": ("positive",),
    "negative": ("negative",),
}
"""The project's word for an emotion, and the databases' words for it."""

_WORDS = {word: emotion for emotion, words in EMOTIONS.items() for word in words}

NEAR = 5
"""A key frame without an image is replaced by the nearest image within so many frames, and that is listed."""


@dataclass(frozen=True)
class Sample:
    """One annotated micro-expression.

    subject: as the database writes it; `person` is unique over databases.
    clip: name of the clip; two samples of one subject never share it.
    fps: frames a second. onset, apex, offset: numbers of the images (their names end with them); apex is
        None where the coders gave none. Of a sample given as landmarks they are 0, 1, 2.
    frames: folder of the images, None if the sample is given as landmarks.
    paths: images of onset, apex (None if missing) and offset.
    landmarks: .npz file with `landmarks`, (3, 478 or 68, 2 or 3) pixels, instead of images.
    emotion: a key of `EMOTIONS`, or the coders' own word; None if not given.
    objective: "I".."VII", None if unknown. units: see `ActionUnits.units`.
    source: sheet and row it comes from. simulated: nobody performed it.
    """

    database: str
    subject: str
    clip: str
    fps: float
    onset: int
    apex: int | None
    offset: int
    frames: Path | None
    paths: tuple[Path, Path | None, Path] | None
    landmarks: Path | None
    emotion: str | None
    objective: str | None
    units: tuple[str, ...]
    source: str
    simulated: bool = False

    @property
    def person(self) -> str:
        """The subject, unique over databases: what leave-one-subject-out leaves out."""
        return f"{self.database}/{self.subject}"

    @property
    def name(self) -> str:
        """Unique over databases."""
        return f"{self.database}/{self.subject}/{self.clip}"

    @property
    def apex_missing(self) -> bool:
        """Whether the apex has to be found (`train.landmarks` does)."""
        return self.apex is None

    @property
    def numbers(self) -> frozenset[int]:
        """Numbers of the action units, sides left out."""
        return frozenset(unit_number(unit) for unit in self.units)


@dataclass(frozen=True)
class Database:
    """What was found on disk.

    samples: in the order of the sheet. repaired: what was put right or decided. missing: what had to be
    left out, with remedy. Both one line an item.
    """

    name: str
    root: Path
    sheet: Path | None
    samples: tuple[Sample, ...]
    repaired: tuple[str, ...]
    missing: tuple[str, ...]
    simulated: bool


@dataclass
class Collector:
    """Gathers a database's samples row by row; each rule that all databases share stands here once."""

    name: str
    root: Path
    fps: float
    samples: list[Sample] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    _listed: dict[Path, dict[int, Path]] = field(default_factory=dict)
    _seen: dict[tuple[str, str, int], tuple[Row | None, tuple[object, ...]]] = field(default_factory=dict)
    _spelled: dict[str, tuple[str, str]] = field(default_factory=dict)
    _named: set[tuple[str, str]] = field(default_factory=set)

    @property
    def simulated(self) -> bool:
        """Whether the tree says of itself that it is simulated."""
        return is_simulated(self.root)

    def images(self, folder: Path) -> dict[int, Path]:
        """Number -> image of a folder of frames.

        Raises:
            SourceError: it has none, or two of one number.
        """
        if folder not in self._listed:
            self._listed[folder] = dict(numbered_images(folder))
        return self._listed[folder]

    def numbers(self, folder: Path) -> frozenset[int]:
        """Numbers of a folder's images; none where it has none that can be used."""
        try:
            return frozenset(self.images(folder))
        except SourceError:
            return frozenset()

    def add(
        self,
        row: Row | None,
        *,
        subject: str,
        clip: str,
        folder: Path | None,
        expected: str,
        onset: int | None,
        apex: int | None,
        offset: int | None,
        emotion: str = "",
        objective: str = "",
        units: str = "",
        fps: float | None = None,
        landmarks: Path | None = None,
    ) -> None:
        """Add one sample, or list why it is left out.

        Args:
            folder: of the images, None if it was not found; expected: where it was looked for.
            onset, offset: None = the first and the last image.
            emotion, objective, units: as written.
        """
        where = str(row) if row is not None else expected
        self._check_spelling(where, subject)
        told = (apex, offset, emotion, objective, units, folder, landmarks)
        known = self._seen.setdefault((subject, clip.casefold(), onset or 0), (row, told))
        if known[0] is not row:
            if known[1] != told:
                other = f"row {known[0].number}" if known[0] is not None else "another folder"
                raise DatasetError(
                    f"{where}: {subject} {clip} is in {other} too, with other values: delete the wrong one"
                )
            self.repaired.append(f"{where}: {subject} {clip} a second time: left out")
            return
        frames: tuple[int, int | None, int] = (0, 1, 2)
        paths = None
        if landmarks is None:
            try:
                placed = self._place(where, clip, folder, expected, onset, apex, offset)
            except SourceError as error:
                placed = None
                self.missing.append(f"{where}: {error}")
            if placed is None:
                return
            frames, paths = placed
        parsed = parse_action_units(units)
        self.repaired += [f"{where}: action units {units!r}: {note}" for note in parsed.notes]
        self.repaired += [
            f"{where}: action units {units!r}: {part!r} is none known; it is ignored"
            for part in parsed.unknown
        ]
        self.samples.append(
            Sample(
                database=self.name,
                subject=subject,
                clip=self._clip_name(where, subject, clip, frames[0] if onset is None else onset),
                fps=fps or self.fps,
                onset=frames[0],
                apex=frames[1],
                offset=frames[2],
                frames=folder if landmarks is None else None,
                paths=paths,
                landmarks=landmarks,
                emotion=self._emotion(where, emotion),
                objective=self._objective(where, objective, parsed.numbers, not parsed.unknown),
                units=parsed.units,
                source=where,
                simulated=self.simulated or _lies_in_simulated(folder if landmarks is None else landmarks),
            )
        )

    def _check_spelling(self, where: str, subject: str) -> None:
        """One person under two names would be trained and tested on.

        Raises:
            DatasetError: the subject was written otherwise before.
        """
        plain = str(int(subject)) if subject.isdecimal() else " ".join(subject.casefold().split())
        written, first = self._spelled.setdefault(plain, (subject, where))
        if written != subject:
            raise DatasetError(
                f"{where}: subject {subject!r} is {written!r} in {first}: write one person in one way, two "
                f"persons more differently"
            )

    def _clip_name(self, where: str, subject: str, clip: str, onset: int) -> str:
        """The clip's name; where an expression of the clip has it already, with the onset behind it.

        Raises:
            DatasetError: another clip is called so.
        """
        name = f"{clip}_{onset}" if (subject, clip) in self._named else clip
        if (subject, name) in self._named:
            raise DatasetError(f"{where}: {subject} {name} is the name of another sample: rename the clip")
        if name != clip:
            self.repaired.append(f"{where}: a further expression of {subject} {clip}: called {name}")
        self._named.add((subject, name))
        return name

    def _place(
        self,
        where: str,
        clip: str,
        folder: Path | None,
        expected: str,
        onset: int | None,
        apex: int | None,
        offset: int | None,
    ) -> tuple[tuple[int, int | None, int], tuple[Path, Path | None, Path]] | None:
        """Key frames as numbers and as images; None if they are not there."""
        if folder is None:
            self.missing.append(f"{where}: no folder {expected}: unpack it there, or delete the row")
            return None
        images = self.images(folder)
        first, last = (min(images) if onset is None else onset), (max(images) if offset is None else offset)
        if apex is not None and apex == first:
            self.repaired.append(f"{where}: {clip}: the apex is the onset frame: taken as missing")
            apex = None
        if not (first < last and (apex is None or first < apex <= last)):
            self.missing.append(
                f"{where}: {clip}: onset {first}, apex {apex}, offset {last} are out of order: "
                f"correct the sheet"
            )
            return None
        found: list[int | None] = []
        for label, number in (("onset", first), ("apex", apex), ("offset", last)):
            if number is None or number in images:
                found.append(number)
                continue
            near = _nearest(images, number)
            if abs(near - number) > NEAR:
                self.missing.append(
                    f"{where}: {clip}: no image of the {label}, number {number}, in {folder} "
                    f"(there are {min(images)} to {max(images)}): unpack it anew, or correct the sheet"
                )
                return None
            self.repaired.append(f"{where}: {clip}: no image of the {label}, {number}: {near} is taken")
            found.append(near)
        start, middle, end = found
        assert start is not None and end is not None
        if not (start < end and (middle is None or start < middle <= end)):
            self.missing.append(f"{where}: {clip}: too few images in {folder}: unpack it anew")
            return None
        return (start, middle, end), (images[start], None if middle is None else images[middle], images[end])

    def _emotion(self, where: str, text: str) -> str | None:
        word = text.strip().lower()
        if word and word not in _WORDS:
            self.repaired.append(f"{where}: emotion {text!r} is none known: in no setting of emotions")
        return _WORDS.get(word, word) or None

    def _objective(self, where: str, text: str, numbers: frozenset[int], complete: bool) -> str | None:
        """The class of the sheet, else that of the action units."""
        word = text.strip().upper()
        if word in OBJECTIVE_CLASSES:
            return word
        if re.fullmatch(r"[1-7]", word):
            return OBJECTIVE_CLASSES[int(word) - 1]
        if word:
            raise DatasetError(f"{where}: objective class {text!r} is none of 1..7 or I..VII: correct it")
        if not numbers or not complete:
            self.repaired.append(f"{where}: no objective class: the action units do not say one")
            return None
        return objective_class(numbers)

    def result(self, sheet: Path | None) -> Database:
        """All of it.

        Raises:
            DatasetError: not one sample is whole.
        """
        if not self.samples:
            why = f"; first of {len(self.missing)}: {self.missing[0]}" if self.missing else ""
            raise DatasetError(f"{self.root}: no sample of {self.name} is whole{why}")
        return Database(
            self.name,
            self.root,
            sheet,
            tuple(self.samples),
            tuple(self.repaired),
            tuple(self.missing),
            any(sample.simulated for sample in self.samples),
        )


def _nearest(numbers: Iterable[int], number: int) -> int:
    return min(numbers, key=lambda known: (abs(known - number), known))


def is_simulated(root: Path) -> bool:
    """Whether a database's folder, or the folder it lies in, carries the mark of a simulated one."""
    return _marked(root) or _marked(root.parent)


def _lies_in_simulated(place: Path | None) -> bool:
    """Whether images or landmarks lie in a simulated tree, whatever sheet names them."""
    return place is not None and any(map(_marked, place.resolve().parents))


def _marked(folder: Path) -> bool:
    try:
        mark = json.loads((folder / SIMULATED_MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(isinstance(mark, dict) and mark.get("simulated"))
