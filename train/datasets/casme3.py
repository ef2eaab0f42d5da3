"""CAS(ME)3, part A (Li et al. 2022): about 860 annotated micro-expressions, 30 frames a second.

    ROOT/cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx   Subject, Filename, Onset, Apex, Offset, AU, ...
    ROOT/spNO.1/b/color/175.jpg

Quirk: one video (Filename) holds several expressions, so a clip is named after its onset too.
"""

from __future__ import annotations

from pathlib import Path

from train.datasets.folders import folder_named, image_root
from train.datasets.sample import Collector, Database
from train.datasets.sheets import find_sheet, read_table

FPS = 30.0
SHEETS = ("cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", "cas(me)3_part_A_ME*.xls*", "*part_A_ME*.xls*")


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of CAS(ME)3 part A under `root`; `sheet` instead of the one found there.

    Raises:
        DatasetError: the sheet cannot be used, or nothing is there.
    """
    path = sheet or find_sheet(root, SHEETS, "CAS(ME)3 part A")
    table = read_table(path, ("subject", "clip", "onset", "apex", "offset", "units", "objective", "emotion"))
    collector = Collector("casme3", root, FPS)
    images = image_root(root, r"spNO\.\d+", ("part_A", "Part_A"))
    for row in table.rows:
        subject, video, onset = row.text("subject"), row.text("clip"), row.frame("onset")
        collector.add(
            row,
            subject=subject,
            clip=f"{video}_{onset}",
            folder=folder_named(images, subject, video, "color"),
            expected=str(images / subject / video / "color"),
            onset=onset,
            apex=row.optional_frame("apex"),
            offset=row.frame("offset"),
            emotion=row.text("emotion"),
            objective=row.text("objective"),
            units=row.text("units"),
        )
    return collector.result(path)
