"""SMIC (Li et al. 2013): 164 micro-expressions of the high-speed camera (100 frames a second), 71 each of
the others (VIS, NIR: 25).

    ROOT/HS/s01/micro/{negative|positive|surprise}/{clip}/*.bmp      (HS, VIS or NIR may be ROOT itself)

There is no sheet: the folders are the annotation. Onset and offset are a clip's first and last image, the
apex is found later by `train.landmarks`; there are no action units, so no objective classes either.
"""

from __future__ import annotations

from pathlib import Path

from train.datasets.errors import DatasetError
from train.datasets.sample import Collector, Database

FPS = {"HS": 100.0, "VIS": 25.0, "NIR": 25.0}
EMOTIONS = ("negative", "positive", "surprise")


def load(root: Path, sheet: Path | None = None) -> Database:
    """All samples of SMIC under `root`; of several cameras, those of HS.

    Raises:
        DatasetError: nothing is there, or a sheet is named.
    """
    if sheet is not None:
        raise DatasetError("SMIC has no sheet: its folders are the annotation; leave --sheet out")
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder: give the folder that SMIC was unpacked into")
    clips = {camera: found for camera in FPS if (found := _clips(root, camera))}
    if not clips:
        raise DatasetError(
            f"{root}: no folder such as HS/s01/micro/negative/s1_ne_01 below: give the folder that holds HS"
        )
    camera, folders = next(iter(clips.items()))
    collector = Collector("smic", root, FPS[camera])
    if len(clips) > 1:
        collector.repaired.append(f"{root}: cameras {', '.join(clips)}: {camera} is taken")
    for folder in folders:
        collector.add(
            None,
            subject=folder.parents[2].name,
            clip=folder.name,
            folder=folder,
            expected=str(folder),
            onset=None,
            apex=None,
            offset=None,
            emotion=folder.parent.name,
        )
    return collector.result(None)


def _clips(root: Path, camera: str) -> list[Path]:
    """Folders of the clips of one camera, in order; `root` without a camera's name counts as HS."""
    named = {part.upper() for part in root.parts[-2:]} & set(FPS)
    bases = list(root.glob(f"{camera}/")) + list(root.glob(f"*/{camera}/"))
    if camera in (named or {"HS"}):
        bases.append(root)
    found = {path for base in bases for path in base.glob("*/micro/*/*/") if path.is_dir()}
    return sorted(path for path in found if path.parent.name.lower() in EMOTIONS)
