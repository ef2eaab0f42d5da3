"""A plain CSV file for anyone's own data, one sample a row.

    subject,clip,folder,onset,apex,offset,fps,emotion,objective_class,action_units
    anna,01,frames/anna/01,46,59,86,200,happiness,I,6+12

or, with landmarks that were found elsewhere, `landmarks` instead of folder and frames: an .npz file with an
array `landmarks`, (3, 478 or 68, 2 or 3) pixels, at onset, apex and offset. Paths are relative to the CSV
file. Everything but subject and the place of the images or landmarks may be left empty; an empty apex is
found later, empty onset and offset are the first and the last image.
"""

from __future__ import annotations

import math
from pathlib import Path

from train.datasets.sample import Collector, Database
from train.datasets.sheets import COLUMNS, Row, find_sheet, read_table

FPS = 200.0
"""Where the file does not say."""

_COLUMNS = {
    **COLUMNS,
    "units": ("action_units", *COLUMNS["units"]),
    "objective": ("objective_class", *COLUMNS["objective"]),
    "folder": ("folder", "frames"),
    "landmarks": ("landmarks",),
    "fps": ("fps",),
}


def load(root: Path, sheet: Path | None = None) -> Database:
    """The samples of a manifest: `sheet`, or `root` itself if it is a file, or the only CSV in it.

    Raises:
        DatasetError: it cannot be used.
    """
    path = sheet or (root if root.is_file() else find_sheet(root, ("manifest.csv", "*.csv"), "your data"))
    table = read_table(path, ("subject",), _COLUMNS)
    collector = Collector("manifest", path.parent, FPS)
    for row in table.rows:
        subject, place, landmarks = row.text("subject"), row.text("folder"), row.text("landmarks")
        if not subject:
            raise row.error("subject is empty: leaving one subject out needs to know whose sample it is")
        if bool(place) == bool(landmarks):
            raise row.error("give either folder (of images) or landmarks (an .npz file)")
        target = path.parent / (place or landmarks)
        if landmarks and not target.is_file():
            collector.missing.append(f"{row}: no file {target}: put it there, or delete the row")
            continue
        collector.add(
            row,
            subject=subject,
            clip=row.text("clip") or (place or landmarks).strip("/"),
            folder=target if place and target.is_dir() else None,
            expected=str(target),
            onset=row.frame("onset") if row.text("onset") else None,
            apex=row.optional_frame("apex"),
            offset=row.frame("offset") if row.text("offset") else None,
            emotion=row.text("emotion"),
            objective=row.text("objective"),
            units=row.text("units"),
            fps=_fps(row),
            landmarks=target if landmarks else None,
        )
    return collector.result(path)


def _fps(row: Row) -> float | None:
    text = row.text("fps")
    if not text:
        return None
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 1 <= fps <= 10_000:
        raise row.error(f"fps is {text!r}: must be between 1 and 10000 frames a second")
    return fps
