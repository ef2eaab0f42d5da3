"""Micro- and macro-expressions as a CSV file, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from streamer import events
from streamer.messages import Event, Face, Frame, MacroExpression, MicroExpression, Motion
from streamer.sinks.base import OutputFile

COLUMNS = (
    "type",
    "id",
    "onset_frame",
    "onset_s",
    "apex_frame",
    "apex_s",
    "offset_frame",
    "offset_s",
    "duration_ms",
    "label",
    "name",
    "label_probability",
    "action_units",
    "strength_iod",
    "confidence",
    "latency_ms",
)
"""The header. Units: seconds by the source's timestamps, milliseconds, inter-ocular distances."""

AU_THRESHOLD = 0.5
"""Action units at least so probable are listed, as the field writes them: AU4+AU7."""


class CsvSink:
    """One row an expression, below one header row; a macro-expression has no class (empty cells).

    What is written is valid CSV (RFC 4180) after any failure: rows are whole.

    Raises:
        UsageError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._out = OutputFile(path, "--csv")
        self._has_header = False

    def on_event(self, event: Event) -> None:
        """Write the row of an expression; with the first event of any kind, the header.

        Raises:
            StreamStop: the file is a pipe whose reader is gone.
            OutputError: the row could not be written.
        """
        if not self._has_header:
            self._write(COLUMNS)
            self._has_header = True
        if isinstance(event, (MicroExpression, MacroExpression)):
            self._write(row(event))

    def _write(self, cells: tuple[object, ...]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        self._out.write(text.getvalue().encode("utf-8"))

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Frames are not written."""

    def close(self) -> None:
        """Close the file."""
        self._out.close()


def row(event: MicroExpression | MacroExpression) -> tuple[object, ...]:
    """The cells of one expression, in the order of `COLUMNS`, rounded as in the JSON events."""
    values = events.to_dict(event)
    moments = [values[key][part] for key in ("onset", "apex", "offset") for part in ("frame", "time_s")]
    duration_ms = round((event.offset.time_s - event.onset.time_s) * 1000, 1)
    category: tuple[object, ...] = ("", "", "", "")
    if isinstance(event, MicroExpression):
        units = "+".join(name for name, p in event.action_units.items() if p >= AU_THRESHOLD)
        category = (values["label"], values["name"], values["scores"][event.label], units)
    return (
        values["type"],
        values["id"],
        *moments,
        duration_ms,
        *category,
        values["strength"],
        values.get("confidence", ""),
        values["latency_ms"],
    )
