"""The spotting benchmark's figures as Markdown and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("found", lambda f: f"{f['found']} of {f['found'] + f['missed']}"),
    ("false", lambda f: f"{f['false']}"),
    ("recall", lambda f: number(f["recall"])),
    ("precision", lambda f: number(f["precision"])),
    ("F1", lambda f: number(f["f1"])),
    ("onset, apex, offset ms", lambda f: ", ".join(number(f[f"{k}_ms"], 0) for k in KEY_FRAMES)),
    ("class accuracy", lambda f: number(f["accuracy"])),
    ("macro F1", lambda f: number(f["macro_f1"])),
    ("STRS", lambda f: number(f["strs"])),
    ("false a minute", lambda f: number(f["false_per_minute"], 1)),
)
KEY_FRAMES = ("onset", "apex", "offset")


def number(value: float | None, decimals: int = 2) -> str:
    """A figure for a table; "-" where there is none."""
    return "-" if value is None else f"{value:.{decimals}f}"


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """One table an axis and set."""
    lines: list[str] = []
    for axis, set_name in dict.fromkeys((row["axis"], row["set"]) for row in rows):
        lines += [
            f"## {axis} ({set_name} set)",
            "",
            "| point | detector | " + " | ".join(name for name, _ in COLUMNS) + " |",
            "|---|---|" + "---|" * len(COLUMNS),
        ]
        for row in rows:
            if (row["axis"], row["set"]) == (axis, set_name):
                lines += [
                    f"| {row['point']} | {name} | " + " | ".join(cell(f) for _, cell in COLUMNS) + " |"
                    for name, f in row["detectors"].items()
                ]
        lines.append("")
    return "\n".join(lines)
