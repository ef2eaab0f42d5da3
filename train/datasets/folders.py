"""Where the folders of subjects and clips lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from train.datasets.errors import DatasetError


def folder_named(parent: Path, *names: str) -> Path | None:
    """The folder `names[0]/names[1]/...` below `parent`; case and spaces at the ends do not matter. A name
    that leads elsewhere is no name of a folder."""
    folder = parent
    for name in names:
        if name.strip() in ("", ".", "..") or "/" in name or "\\" in name:
            return None
        exact = folder / name.strip()
        if exact.is_dir():
            folder = exact
            continue
        try:
            alike = [p for p in folder.iterdir() if p.name.strip().lower() == name.strip().lower()]
        except OSError:
            return None
        if not alike or not alike[0].is_dir():
            return None
        folder = alike[0]
    return folder


def image_root(root: Path, subject: str, prefer: Sequence[str] = ()) -> Path:
    """The folder with the subjects' folders, whose names match `subject`: `root` or one of its folders,
    the preferred ones first. `root` itself where there is none: each row then says what is missing."""
    pattern = re.compile(subject, re.IGNORECASE)

    def holds(folder: Path) -> bool:
        return folder.is_dir() and any(pattern.fullmatch(p.name) for p in folder.iterdir() if p.is_dir())

    try:
        below = sorted(p for p in root.iterdir() if p.is_dir())
        for folder in (*(root / name for name in prefer), root, *below):
            if holds(folder):
                return folder
    except OSError as error:
        raise DatasetError(f"{root} cannot be listed ({error.strerror}): check --root") from error
    return root
