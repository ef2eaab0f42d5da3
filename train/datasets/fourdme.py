"""4DME (Li et al. 2022): micro-expressions of the grey-level videos, 60 frames a second.

    ROOT/4DME_Labelling_Micro_release v1.xlsx    sub_ID, fold_name, Emotion, Onset, Apex, Offset, AUs
    ROOT/{sub_ID}/{fold_name}/*.jpg, or ROOT/{fold_name}/

Quirk: an expression may have several emotions; then it has none in a setting that needs one.
"""

from __future__ import annotations

import re
from pathlib import Path

from train.datasets.folders import folder_named
from train.datasets.sample import Collector, Database
from train.datasets.sheets import find_sheet, read_table

FPS = 60.0
SHEETS = ("4DME_Labelling_Micro_release v1.xlsx", "4DME_Labelling_Micro*.xls*")


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of 4DME under `root`; `sheet` instead of the one found there.

    Raises:
        DatasetError: the sheet cannot be used, or nothing is there.
    """
    path = sheet or find_sheet(root, SHEETS, "4DME")
    table = read_table(path, ("subject", "clip", "onset", "apex", "offset", "units", "emotion"))
    collector = Collector("fourdme", root, FPS)
    parents = [root, *sorted(folder for folder in root.iterdir() if folder.is_dir())]
    for row in table.rows:
        subject, clip, emotion = row.text("subject"), row.text("clip"), row.text("emotion")
        if re.search(r"[,;/+&]|\band\b", emotion):
            collector.repaired.append(f"{row}: several emotions ({emotion}): in no setting of emotions")
            emotion = ""
        places = (folder_named(parent, *names) for parent in parents for names in ((subject, clip), (clip,)))
        collector.add(
            row,
            subject=subject,
            clip=clip,
            folder=next((place for place in places if place is not None), None),
            expected=str(root / subject / clip),
            onset=row.frame("onset"),
            apex=row.optional_frame("apex"),
            offset=row.frame("offset"),
            emotion=emotion,
            units=row.text("units"),
        )
    return collector.result(path)
