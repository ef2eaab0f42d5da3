"""Small databases on disk for tests: sheets and folders of images in the databases' own formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openpyxl

from streamer.graph import NODE_SETS
from streamer.simulation.facs import draw_field

CASME2_HEADER = (
    "Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units",
    "Estimated Emotion",
)  # fmt: skip
SAMM_HEADER = (
    "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
    "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
)  # fmt: skip


def write_xlsx(path: Path, rows: Iterable[Sequence[Any]], sheet: str = "Sheet1") -> Path:
    """A spreadsheet of these rows."""
    workbook = openpyxl.Workbook()
    page = workbook.worksheets[0]
    page.title = sheet
    for row in rows:
        page.append(list(row) or [None])
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(path)
    return path


@cache
def _pixels(suffix: str) -> bytes:
    done, coded = cv2.imencode(suffix, np.full((12, 16, 3), 128, np.uint8))
    assert done
    return coded.tobytes()


def write_frames(folder: Path, numbers: Iterable[int], name: str = "img{}.jpg") -> Path:
    """Small images whose names carry these numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / name.format(number)).write_bytes(_pixels(Path(name).suffix))
    return folder


def casme2(root: Path, rows: Sequence[Sequence[Any]], objective: Sequence[Sequence[Any]] = ()) -> Path:
    """CASME II with a sheet of these rows (subject, clip, onset, apex, offset, units, emotion); no frames."""
    table = [(s, c, None, on, apex, off, None, au, emotion) for s, c, on, apex, off, au, emotion in rows]
    write_xlsx(root / "CASME2-coding-20140508.xlsx", [CASME2_HEADER, *table])
    if objective:
        header = ("Subject", "Filename", "Objective Class")
        write_xlsx(root / "CASME2-ObjectiveClasses.xlsx", [header, *objective])
    return root


SHOWN = {"I": "6+12", "III": "4", "V": "15", "VII": "14"}
"""Objective class -> action units."""


def manifest(
    folder: Path, subjects: int = 8, repeats: int = 2, classes: tuple[str, ...] = ("I", "III")
) -> Path:
    """A CSV manifest of landmarks: subjects who show each class `repeats` times."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    rows = ["subject,clip,landmarks,emotion,objective_class,action_units"]
    rest = NODE_SETS["dlib68"].rest.astype(np.float64)
    for subject in range(subjects):
        face = rest + rng.normal(0.0, 0.02, rest.shape)
        for label in classes:
            for repeat in range(repeats):
                activation = dict.fromkeys(SHOWN[label].split("+"), 1.0)
                motion = draw_field(activation, rng, 0.3).at(face)
                motion *= 0.02 / np.hypot(*motion.T).max()
                frames = np.stack([face, face + motion, face + 0.3 * motion])
                name = f"s{subject}-{label}-{repeat}"
                np.savez(folder / f"{name}.npz", landmarks=100.0 * frames + 300.0)
                emotion = "happiness" if label == "I" else "anger"
                rows.append(f"s{subject},{name},{name}.npz,{emotion},{label},{SHOWN[label]}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
