"""CASME II (Yan et al. 2014): 255 micro-expressions of 26 subjects, 200 frames a second.

    ROOT/CASME2-coding-20140508.xlsx       Subject, Filename, OnsetFrame, ApexFrame, OffsetFrame, ...
    ROOT/CASME2-ObjectiveClasses.xlsx      Subject, Filename, Objective Class (1 to 7)
    ROOT/Cropped/sub01/EP02_01f/reg_img46.jpg, or raw ROOT/sub01/EP02_01f/img46.jpg

Quirks: an apex of "/" (found later by `train.landmarks`), one apex on its onset, one wrong offset.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from train.datasets.errors import DatasetError
from train.datasets.folders import folder_named, image_root
from train.datasets.sample import Collector, Database
from train.datasets.sheets import Row, find_sheet, read_table

FPS = 200.0
SHEETS = (
    "CASME2-coding-20140508.xlsx",
    "CASME2-coding-20190701.xlsx",
    "CASME2-coding*.xls*",
    "CASME2_label*.xls*",
)
OBJECTIVE_SHEET = "CASME2-ObjectiveClasses*.xls*"
IMAGES = ("Cropped", "CASME2_RAW_selected", "CASME2-RAW")

WRONG_OFFSET_ROWS, RIGHT_OFFSET = (60, 61), 91
"""Data row 60 has a wrong offset; whether rows are counted from 0 or from 1 differs between accounts, so
either is repaired, but only where the offset given cannot be and an image 91 exists."""


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of CASME II under `root`; `sheet` instead of the one found there.

    Raises:
        DatasetError: a sheet cannot be used, or nothing is there.
    """
    path = sheet or find_sheet(root, SHEETS, "CASME II")
    table = read_table(path, ("subject", "clip", "onset", "apex", "offset", "units", "emotion"))
    collector = Collector("casme2", root, FPS)
    objective = _objective_classes(path.parent, root, collector)
    images = image_root(root, r"sub\d+", IMAGES)
    for number, row in enumerate(table.rows, 1):
        subject, clip = subject_folder(row), row.text("clip")
        folder = folder_named(images, subject, clip)
        onset, apex = row.frame("onset"), row.optional_frame("apex")
        offset = row.frame("offset")
        if number in WRONG_OFFSET_ROWS and folder is not None:
            known = collector.numbers(folder)
            impossible = offset <= max(onset, apex or 0) or offset not in known
            if impossible and RIGHT_OFFSET in known and onset < RIGHT_OFFSET:
                collector.repaired.append(f"{row}: offset {offset}, a known slip: {RIGHT_OFFSET} is taken")
                offset = RIGHT_OFFSET
        told = row.text("objective") or objective.get((subject, clip.lower()), "")
        if objective and not told:
            collector.repaired.append(f"{row}: not in {OBJECTIVE_SHEET}: the class is derived from the units")
        collector.add(
            row,
            subject=subject,
            clip=clip,
            folder=folder,
            expected=str(images / subject / clip),
            onset=onset,
            apex=apex,
            offset=offset,
            emotion=row.text("emotion"),
            objective=told,
            units=row.text("units"),
        )
    return collector.result(path)


def subject_folder(row: Row) -> str:
    """ "sub01" of 1, "01", "sub1" and "sub01"."""
    text = row.text("subject").lower().removeprefix("sub").strip()
    if not text.isdecimal() or len(text) > 4:
        raise row.error(f"subject is {row.text('subject')!r}, no number: correct it")
    return f"sub{int(text):02d}"


def _objective_classes(beside: Path, root: Path, collector: Collector) -> dict[tuple[str, str], str]:
    """(subject, clip) -> class of the sibling sheet, which lies beside the other or under `root`; empty where
    it is not there."""
    path = None
    for folder in dict.fromkeys((beside, root)):
        with contextlib.suppress(DatasetError):
            path = path or find_sheet(folder, (OBJECTIVE_SHEET,), "CASME II")
    if path is None:
        collector.repaired.append(
            f"{root}: no {OBJECTIVE_SHEET}: objective classes are derived from the action units"
        )
        return {}
    classes: dict[tuple[str, str], str] = {}
    for row in read_table(path, ("subject", "clip", "objective")).rows:
        place = (subject_folder(row), row.text("clip").lower())
        if classes.setdefault(place, row.text("objective")) != row.text("objective"):
            raise row.error(f"{place[0]} {row.text('clip')} has another class in a row before: delete one")
    return classes
