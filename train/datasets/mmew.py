"""MMEW (Ben et al. 2021): 300 micro-expressions of 36 subjects, 90 frames a second.

    ROOT/MMEW_Micro_Exp.xlsx                columns named as in CASME II, and remarks
    ROOT/Micro_Expression/{emotion}/{Filename}/1.jpg, or ROOT/{emotion}/{Filename}/

The images lie by emotion, not by subject.
"""

from __future__ import annotations

from pathlib import Path

from train.datasets.folders import folder_named, image_root
from train.datasets.sample import Collector, Database
from train.datasets.sheets import find_sheet, read_table

FPS = 90.0
SHEETS = ("MMEW_Micro_Exp.xlsx", "MMEW_Micro*.xls*")


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of MMEW under `root`; `sheet` instead of the one found there.

    Raises:
        DatasetError: the sheet cannot be used, or nothing is there.
    """
    path = sheet or find_sheet(root, SHEETS, "MMEW")
    table = read_table(path, ("subject", "clip", "onset", "apex", "offset", "units", "emotion"))
    collector = Collector("mmew", root, FPS)
    words = "happiness|surprise|disgust|anger|sadness|fear|others"
    images = image_root(root, words, ("Micro_Expression", "Micro-expression"))
    for row in table.rows:
        emotion, clip = row.text("emotion"), row.text("clip")
        collector.add(
            row,
            subject=row.text("subject"),
            clip=clip,
            folder=folder_named(images, emotion, clip),
            expected=str(images / emotion / clip),
            onset=row.frame("onset"),
            apex=row.optional_frame("apex"),
            offset=row.frame("offset"),
            emotion=emotion,
            objective=row.text("objective"),
            units=row.text("units"),
        )
    return collector.result(path)
