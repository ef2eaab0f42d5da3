"""Events as JSON Lines, to a file or to standard output."""

from __future__ import annotations

from pathlib import Path

from streamer import events
from streamer.messages import Event, Face, Frame, Motion
from streamer.sinks.base import OutputFile


class JsonLinesSink:
    """One event, one line, in the output as soon as `on_event` returns.

    A full disk leaves whole lines. When the reader of a pipe goes away (`| head`), the stream stops.

    path: the file, or None for standard output.

    Raises:
        UsageError: the output cannot be opened for writing.
    """

    def __init__(self, path: Path | None) -> None:
        self._out = OutputFile(path, "--events") if path else OutputFile.stdout("--events")

    def on_event(self, event: Event) -> None:
        """Write the event.

        Raises:
            StreamStop: the reader of the pipe is gone.
            OutputError: the line could not be written.
        """
        self._out.write(events.to_json(event).encode("ascii") + b"\n")

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Frames are not written."""

    def close(self) -> None:
        """Close the output."""
        self._out.close()
