"""SAMM (Davison et al. 2018): 159 micro-expressions, 200 frames a second, grey.

    ROOT/SAMM_Micro_FACS_Codes_v2.xlsx     13 rows of preamble, then the header; another copy has none
    ROOT/006/006_1_2/006_05562.jpg         the last digits are the number of the frame

Quirks: action units such as "A1B+A2C", "10A/B", "ref(7B)+43C", "(R6 or R12)+R15"; some apexes missing.
"""

from __future__ import annotations

from pathlib import Path

from train.datasets.folders import folder_named, image_root
from train.datasets.sample import Collector, Database
from train.datasets.sheets import find_sheet, read_table

FPS = 200.0
SHEETS = ("SAMM_Micro_FACS_Codes_v2.xlsx", "SAMM_Micro_FACS_Codes*.xls*")


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of SAMM under `root`; `sheet` instead of the one found there.

    Raises:
        DatasetError: the sheet cannot be used, or nothing is there.
    """
    path = sheet or find_sheet(root, SHEETS, "SAMM")
    table = read_table(path, ("subject", "clip", "onset", "apex", "offset", "units", "emotion", "objective"))
    collector = Collector("samm", root, FPS)
    images = image_root(root, r"\d{3}")
    for row in table.rows:
        number = row.text("subject")
        if not number.isdecimal() or len(number) > 4:
            raise row.error(f"subject is {number!r}, no number: correct it")
        subject, clip = f"{int(number):03d}", row.text("clip")
        collector.add(
            row,
            subject=subject,
            clip=clip,
            folder=folder_named(images, subject, clip),
            expected=str(images / subject / clip),
            onset=row.frame("onset"),
            apex=row.optional_frame("apex"),
            offset=row.frame("offset"),
            emotion=row.text("emotion"),
            objective=row.text("objective"),
            units=row.text("units"),
        )
    return collector.result(path)
