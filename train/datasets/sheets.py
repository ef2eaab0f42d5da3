"""Tables of annotations (.xlsx, .xls, .csv), read by the names of their columns.

The databases' sheets come in several releases: with preambles, with unnamed columns, with other spellings.
A column is found by its name, wherever it stands; an error names file, sheet and row.
"""

from __future__ import annotations

import csv
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from train.datasets.errors import DatasetError

COLUMNS: dict[str, tuple[str, ...]] = {
    "subject": ("subject", "sub", "sub_ID", "participant"),
    "clip": ("Filename", "fold_name", "clip"),
    "onset": ("OnsetFrame", "Onset", "OnsetF"),
    "apex": ("ApexFrame", "Apex", "ApexF", "ApexF1"),
    "offset": ("OffsetFrame", "Offset", "OffsetF"),
    "units": ("Action Units", "AU", "AUs"),
    "emotion": ("Estimated Emotion", "emotion"),
    "objective": ("Objective Classes", "Objective Class"),
}
"""What a column means, and its names in the databases; compared without case, spaces and punctuation."""

MOST_BYTES = 32 * 1024 * 1024
MOST_UNPACKED_BYTES = 256 * 1024 * 1024
"""An .xlsx file is a zip archive, and a small one can promise a huge table."""
MOST_ROWS = 200_000
MOST_HEADER_ROW = 60
"""Preambles are at most so long (SAMM's is 13 rows)."""


@dataclass(frozen=True)
class Row:
    """One row of a table. number: as a spreadsheet counts it, from 1. cells: by meaning of the column."""

    table: Table
    number: int
    cells: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.table}, row {self.number}"

    def error(self, message: str) -> DatasetError:
        """An error that says where it is; `message` says what and the remedy."""
        return DatasetError(f"{self}: {message}")

    def text(self, column: str) -> str:
        """The cell as text, stripped; "" where there is none. Whole numbers are written without a point.

        Raises:
            DatasetError: spreadsheet programs have made a date of it, or it holds control characters, which
                a terminal would obey.
        """
        cell = self.cells.get(column)
        if isinstance(cell, (date, datetime, time, timedelta)):
            raise self.error(
                f"{column} is a date ({cell}): a spreadsheet program has changed it; type it anew, as text"
            )
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        text = "" if cell is None else str(cell).strip()
        # Spaces of every kind, line breaks too, are what spreadsheets put into cells.
        if any(unicodedata.category(letter) == "Cc" and not letter.isspace() for letter in text):
            raise self.error(f"{column} is {text!r}, with characters that cannot be seen: type it anew")
        return text

    def frame(self, column: str) -> int:
        """A frame number, 0 or above.

        Raises:
            DatasetError: it is none.
        """
        number = self._number(column)
        if number is None or number < 0:
            raise self.error(
                f"{column} is {self.text(column)!r}, no frame number: correct it from the clip's images"
            )
        return number

    def optional_frame(self, column: str) -> int | None:
        """A frame number, None where the coders gave none: an empty cell, "/", "-", "n/a", 0 or below.

        Raises:
            DatasetError: it is something else.
        """
        number = self._number(column)
        return number if number is not None and number > 0 else None

    def _number(self, column: str) -> int | None:
        text = self.text(column)
        if text.lower() in ("", "/", "\\", "-", "?", "n/a", "na", "nan", "none", "unknown"):
            return None
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not (number.is_integer() and abs(number) < 1e9):
            raise self.error(f"{column} is {text!r}, no frame number: correct it from the clip's images")
        return int(number)


@dataclass(frozen=True)
class Table:
    """A table's rows below its header. header: row of the header, from 1."""

    path: Path
    sheet: str
    header: int
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return f"{self.path}, sheet {self.sheet}" if self.sheet else str(self.path)


def key(name: Any) -> str:
    """A column's name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def read_table(path: Path, required: Sequence[str], columns: Mapping[str, Sequence[str]] = COLUMNS) -> Table:
    """The first table of a file that has the `required` columns (keys of `columns`).

    Rows without any cell in a known column are left out.

    Raises:
        DatasetError: the file cannot be read, is too large, or has no such table.
    """
    names = {key(name): meaning for meaning, spelled in columns.items() for name in spelled}
    best: tuple[str, int, list[str]] | None = None
    for sheet, grid in _grids(path):
        for position, cells in enumerate(grid[:MOST_HEADER_ROW]):
            found = _columns(cells, names)
            missing = [meaning for meaning in required if meaning not in found]
            if not missing:
                return _table(path, sheet, position, grid, found)
            if best is None or len(missing) < len(best[2]):
                best = (sheet, position + 1, missing)
    if best is None:
        raise DatasetError(f"{path} is empty: take the file that came with the database")
    sheet, row, missing = best
    wanted = "; ".join(f"{meaning} ({' or '.join(columns[meaning])})" for meaning in missing)
    where = f"{path}, sheet {sheet}" if sheet else str(path)
    raise DatasetError(
        f"{where}: no header with the columns needed; the likeliest, row {row}, lacks {wanted}: "
        f"take the sheet that came with the database, or name the columns so"
    )


def _columns(cells: Sequence[Any], names: Mapping[str, str]) -> dict[str, int]:
    """Meaning -> position of its column; a longer name counts if it begins with a known one."""
    found: dict[str, int] = {}
    for exact in (True, False):
        for position, cell in enumerate(cells):
            if not isinstance(cell, str) or len(cell) > 60:
                continue
            name = key(cell)
            meaning = names.get(name)
            if not exact and meaning is None:
                known = [k for k in names if len(k) > 8 and name.startswith(k)]
                meaning = names[max(known, key=len)] if known else None
            if meaning is not None and position not in found.values():
                found.setdefault(meaning, position)
    return found


def _table(path: Path, sheet: str, header: int, grid: list[list[Any]], found: Mapping[str, int]) -> Table:
    rows: list[Row] = []
    table = Table(path, sheet, header + 1, ())
    for number, cells in enumerate(grid[header + 1 :], header + 2):
        values = {meaning: cells[at] if at < len(cells) else None for meaning, at in found.items()}
        if any(value is not None and str(value).strip() for value in values.values()):
            rows.append(Row(table, number, values))
    return Table(path, sheet, header + 1, tuple(rows))


def _grids(path: Path) -> Iterator[tuple[str, list[list[Any]]]]:
    """(name of the sheet, its cells) for every sheet; a CSV file is one sheet without a name."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): check the path") from error
    if size > MOST_BYTES:
        raise DatasetError(
            f"{path} has {size:,} bytes, more than a sheet of annotations: is it the right file?"
        )
    if path.suffix.lower() == ".csv":
        yield "", _csv(path)
        return
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            raise DatasetError(
                f"{path} is damaged ({error}): take the file that came with the database"
            ) from error
        if unpacked > MOST_UNPACKED_BYTES:
            raise DatasetError(
                f"{path} unpacks to {unpacked:,} bytes: is it the right file? Save the sheet alone anew"
            )
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        workbook = CalamineWorkbook.from_path(str(path))
        for name in workbook.sheet_names:
            sheet = workbook.get_sheet_by_name(name)
            if sheet.total_height > MOST_ROWS:
                raise DatasetError(
                    f"{path}, sheet {name} has {sheet.total_height:,} rows: is it the right file?"
                )
            # Blank rows above the table count, so that row numbers are those of the spreadsheet.
            yield (
                name,
                [
                    [None if cell == "" else cell for cell in row]
                    for row in sheet.to_python(skip_empty_area=False)
                ],
            )
    except (CalamineError, OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as a spreadsheet ({error}): open it in a spreadsheet program and save it "
            f"as .xlsx"
        ) from error


def _csv(path: Path) -> list[list[Any]]:
    rows: list[list[Any]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for cells in csv.reader(file, strict=True):
                rows.append([cell if cell.strip() else None for cell in cells])
                if len(rows) > MOST_ROWS:
                    raise DatasetError(f"{path} has more than {MOST_ROWS:,} rows: is it the right file?")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}, row {len(rows) + 1}: not UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DatasetError(f"{path}, row {len(rows) + 1}: not CSV ({error}); save it as CSV anew") from error
    return rows


def find_sheet(root: Path, names: Iterable[str], database: str) -> Path:
    """The first of `names` (may hold * and ?) in `root` or one folder below it.

    Raises:
        DatasetError: there is none.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder: give the folder that {database} was unpacked into")
    tried = list(names)
    for name in tried:
        for pattern in (name, f"*/{name}"):
            # Spreadsheet programs leave locks named ~$... beside an open file.
            found = sorted(p for p in root.glob(pattern) if p.is_file() and not p.name.startswith("~"))
            if found:
                return found[0]
    raise DatasetError(
        f"{root}: no sheet of annotations ({', '.join(tried)}) there or one folder below: put the file that "
        f"came with {database} there, or name it with --sheet"
    )
