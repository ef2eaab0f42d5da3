"""python -m train check: what of a database is on disk, before hours are spent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamer.errors import SourceError, UsageError
from streamer.sources.images import read_image
from train.datasets import SETTINGS, Database, Sample, label_of, load, select
from train.landmark_cache import load_arrays

DatabaseName = Literal["casme2", "samm", "casme3", "mmew", "fourdme", "smic", "manifest"]


@dataclass(frozen=True)
class CheckConfig:
    """List what of a database was found, what is missing and what was repaired."""

    dataset: DatabaseName
    """Which database; manifest: a CSV file of your own."""
    root: Path
    """Folder that it was unpacked into."""
    sheet: Path | None = None
    """Its annotations, if they do not lie there."""
    images: bool = True
    """Decode every key frame, to find damaged ones (a few milliseconds each). The frames between them are not
    looked at; `python -m train landmarks` says which of those it could not read."""


def unreadable(sample: Sample) -> list[Path]:
    """Key frames of a sample that cannot be decoded, or its landmarks, if they cannot be read."""
    if sample.landmarks is not None:
        try:
            load_arrays(sample.landmarks, ("landmarks",))
        except ValueError:
            return [sample.landmarks]
    return [path for path in sample.paths or () if path is not None and not _decodes(path)]


def _decodes(path: Path) -> bool:
    try:
        return read_image(path) is not None
    except SourceError:  # it says that it is larger than any picture
        return False


def report(database: Database, images: bool = True) -> tuple[str, int]:
    """What was found, as text; and how many samples are missing or damaged."""
    samples = database.samples
    damaged = [(s, path) for s in samples for path in unreadable(s)] if images else []
    people = len({sample.person for sample in samples})
    no_apex = sum(sample.apex_missing for sample in samples)
    lines = [
        f"{database.name} in {database.root}" + (", SIMULATED" if database.simulated else ""),
        f"annotations: {database.sheet or 'the folders themselves'}",
        f"found: {len(samples)} samples of {people} subjects; {no_apex} without an apex (it will be found)",
    ]
    for setting in SETTINGS:
        counts = Counter(label_of(sample, setting) or "none" for sample in samples)
        try:
            chosen = select(samples, setting)
            used = ", ".join(f"{name} {count}" for name, count in chosen.counts.items())
            rest = {name: count for name, count in counts.items() if name not in chosen.classes}
            left = f"; left out: {', '.join(f'{n} {c}' for n, c in rest.items())}" if rest else ""
            lines.append(f"  {setting}: {len(chosen.samples)} samples: {used}{left}")
        except UsageError as error:
            lines.append(f"  {setting}: not possible: {error}")
    units = Counter(number for sample in samples for number in sample.numbers)
    lines.append("  action units: " + ", ".join(f"AU{n} {c}" for n, c in sorted(units.items())))
    lines.append(f"missing: {len(database.missing)}")
    lines += [f"  {line}" for line in database.missing]
    lines.append(f"damaged: {len(damaged)}" if images else "damaged: not looked for")
    lines += [f"  {s.source}: {path} cannot be read: unpack it anew" for s, path in damaged]
    lines.append(f"repaired or decided: {len(database.repaired)}")
    lines += [f"  {line}" for line in database.repaired]
    return "\n".join(lines), len(database.missing) + len({s.name for s, _ in damaged})


def check(config: CheckConfig) -> tuple[str, int]:
    """Load and report; see `report`.

    Raises:
        DatasetError: the database cannot be loaded at all.
    """
    return report(load(config.dataset, config.root, config.sheet), config.images)
