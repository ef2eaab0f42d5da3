"""Databases of micro-expressions, one file each, all giving the same `Sample`.

    database = load("casme2", Path("/data/CASME2"))
    selection = select(database.samples, "objective")

None of the databases is part of this project: their owners hand them out under signed licences.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from train.datasets import casme2, casme3, fourdme, manifest, mmew, samm, smic
from train.datasets.errors import DatasetError
from train.datasets.sample import Database, Sample
from train.datasets.settings import SETTINGS, Selection, SettingName, label_of, select

LOADERS: dict[str, Callable[[Path, Path | None], Database]] = {
    "casme2": casme2.load,
    "samm": samm.load,
    "casme3": casme3.load,
    "mmew": mmew.load,
    "fourdme": fourdme.load,
    "smic": smic.load,
    "manifest": manifest.load,
}

__all__ = [
    "LOADERS",
    "SETTINGS",
    "Database",
    "DatasetError",
    "Sample",
    "Selection",
    "SettingName",
    "label_of",
    "load",
    "select",
]


def load(name: str, root: Path, sheet: Path | None = None) -> Database:
    """The database `name` under `root`; `sheet`: its annotations, if they lie elsewhere.

    Raises:
        DatasetError: unknown name; a sheet or folder cannot be used, or nothing is there.
    """
    if name not in LOADERS:
        raise DatasetError(f"unknown database {name!r}; known: {', '.join(LOADERS)}")
    try:
        if not root.exists():
            raise DatasetError(f"{root} does not exist: give the folder that the database was unpacked into")
        return LOADERS[name](root, sheet)
    except OSError as error:  # a folder that nobody may list, a name longer than any can be
        raise DatasetError(
            f"{str(error.filename or root)[:200]} cannot be read ({error.strerror}): check its rights, and "
            f"the sheet that names it"
        ) from error
