"""Outputs: JSON Lines, CSV, annotated video, window, terminal.

sinks = open_sinks(config)      # before the source: a wrong path is one clear line up front
send_event(sinks, event)
send_frame(sinks, frame, face, motion)
close_sinks(sinks)              # whatever happened
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from streamer.config import Config
from streamer.errors import OutputError
from streamer.messages import Event, Face, Frame, Motion
from streamer.sinks.base import Sink, StreamStop, check_outputs, printable
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.overlay import Overlay
from streamer.sinks.table import CsvSink
from streamer.sinks.terminal import TerminalSink, describe
from streamer.sinks.video import VideoSink
from streamer.sinks.window import WindowSink

__all__ = [
    "CsvSink",
    "JsonLinesSink",
    "Overlay",
    "Sink",
    "StreamStop",
    "TerminalSink",
    "VideoSink",
    "WindowSink",
    "close_sinks",
    "describe",
    "open_sinks",
    "printable",
    "send_event",
    "send_frame",
]

STDOUT = "-"
"""The value of --events that means standard output."""


def open_sinks(config: Config) -> list[Sink]:
    """Open every output that the settings ask for, all or none.

    Nothing that exists is emptied before the first event or frame arrives. The order matters: the
    terminal clears its status line before another sink prints, and the window, which may stop the
    stream, comes last.

    Raises:
        UsageError: an output cannot be written, two are the same file, or there is no display.
    """
    outputs = {"--save": config.save, "--events": _events_path(config), "--csv": config.csv}
    inputs = {"--source": config.source, "--config": config.config, "--landmarker": config.landmarker}
    check_outputs(
        {flag: path for flag, path in outputs.items() if path is not None},
        {flag: Path(path) for flag, path in inputs.items() if path is not None},
    )
    sinks: list[Sink] = []
    try:
        if sys.stderr is not None and sys.stderr.isatty():
            sinks.append(TerminalSink(sys.stderr, with_events=not _events_on_terminal(config)))
        sinks.append(JsonLinesSink(_events_path(config)))
        if config.csv is not None:
            sinks.append(CsvSink(config.csv))
        if config.save is not None:
            sinks.append(VideoSink(config.save))
        if config.show:
            sinks.append(WindowSink())
    except BaseException:
        close_sinks(sinks)
        raise
    return sinks


def send_event(sinks: Iterable[Sink], event: Event) -> None:
    """Give an event to every sink, also when one of them fails.

    Raises:
        OutputError: the first failure, once all have the event.
        StreamStop: a sink asks for the end of the stream, and none failed.
    """
    _call_all([partial(sink.on_event, event) for sink in sinks])


def send_frame(sinks: Iterable[Sink], frame: Frame, face: Face | None, motion: Motion | None) -> None:
    """Give a frame to every sink, also when one of them fails. Raises as `send_event`."""
    _call_all([partial(sink.on_frame, frame, face, motion) for sink in sinks])


def close_sinks(sinks: Iterable[Sink]) -> None:
    """Close every sink, also when one of them fails. Raises as `send_event`."""
    _call_all([sink.close for sink in sinks])


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    failure: OutputError | None = None
    stop: StreamStop | None = None
    for call in calls:
        try:
            call()
        except OutputError as error:
            failure = failure or error
        except StreamStop as reason:
            stop = stop or reason
    if failure or stop:
        raise failure or stop  # pyright: ignore[reportGeneralTypeIssues]


def _events_path(config: Config) -> Path | None:
    return None if config.events == STDOUT else Path(config.events)


def _events_on_terminal(config: Config) -> bool:
    return config.events == STDOUT and sys.stdout is not None and sys.stdout.isatty()
