"""A status line on the terminal, and events in words."""

from __future__ import annotations

import os
from collections import deque
from typing import TextIO

from streamer.messages import (
    Event,
    Face,
    FaceFound,
    FaceLost,
    Frame,
    MacroExpression,
    MicroExpression,
    Motion,
    SourceReconnected,
    StreamEnded,
    StreamGap,
    StreamStarted,
)
from streamer.sinks.base import printable

REFRESH_S = 0.2
"""Stream time between two updates of the status line."""


class TerminalSink:
    """Writes to a terminal: one line that is rewritten in place and, if asked for, a line an event.

    The cursor rests at the start of the status line, so that whatever else is printed starts there.

    out: the terminal (standard error). with_events: also say the events; not wanted when they go to the
    same terminal as JSON.
    """

    def __init__(self, out: TextIO, with_events: bool) -> None:
        self._out = out
        self._with_events = with_events
        self._times: deque[float] = deque(maxlen=512)
        self._frames = 0
        self._dropped = 0
        self._last_index: int | None = None
        self._micro = 0
        self._last_event = ""
        self._shown_s: float | None = None
        self._width = 0

    def on_event(self, event: Event) -> None:
        """Clear the status line and, if asked for, say the event."""
        self._clear()
        self._shown_s = None
        if isinstance(event, MicroExpression):
            self._micro += 1
        if isinstance(event, (MicroExpression, MacroExpression)):
            self._last_event = _expression(event)
        if self._with_events:
            self._write(describe(event) + "\n")

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Count the frame; rewrite the status line every `REFRESH_S` of the stream."""
        self._frames += 1
        if self._last_index is not None:
            self._dropped += frame.index - self._last_index - 1
        self._last_index = frame.index
        self._times.append(frame.time_s)
        while self._times[0] < frame.time_s - 1:
            self._times.popleft()
        if self._shown_s is not None and frame.time_s - self._shown_s < REFRESH_S:
            return
        self._shown_s = frame.time_s
        self._show(self._status(has_face=face is not None or motion is not None))

    def close(self) -> None:
        """Clear the status line."""
        self._clear()

    def _status(self, has_face: bool) -> str:
        span = self._times[-1] - self._times[0]
        rate = f"{(len(self._times) - 1) / span:.0f} fps | " if span > 0 else ""
        last = f" | last: {self._last_event}" if self._last_event else ""
        return (
            f"{rate}{self._frames} frames, {self._dropped} dropped | face: {'yes' if has_face else 'no'}"
            f" | micro-expressions: {self._micro}{last}"
        )

    def _show(self, text: str) -> None:
        columns = _columns(self._out)
        text = printable(text)[: columns - 1]
        self._write("\r" + text.ljust(self._width)[: columns - 1] + "\r")
        self._width = len(text)

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def describe(event: Event) -> str:
    """The event in words, on one line, safe to print on a terminal."""
    return printable(_describe(event))


def _describe(event: Event) -> str:
    if isinstance(event, (MicroExpression, MacroExpression)):
        return _at(event.apex.time_s, _expression(event))
    if isinstance(event, StreamStarted):
        rate = f"{event.fps:g} fps" if event.fps else "frame rate not stated"
        return f"{event.source}: {event.width}x{event.height}, {rate}; engine {event.engine}"
    if isinstance(event, FaceFound):
        more = f", {event.others} more in view are not followed" if event.others else ""
        return _at(event.time_s, f"face found{more}")
    if isinstance(event, FaceLost):
        return _at(event.time_s, "face lost")
    if isinstance(event, StreamGap):
        return _at(event.time_s, f"no frame for {event.gap_s:.3f} s: {event.cause}")
    if isinstance(event, SourceReconnected):
        return _at(
            event.time_s, f"source is back after {event.lost_s:.1f} s (try {event.attempts}): {event.cause}"
        )
    assert isinstance(event, StreamEnded)
    drops = "".join(f", {count} dropped ({cause})" for cause, count in event.drops.items() if count)
    return (
        f"{event.reason}: {event.frames} frames in {event.duration_s:.1f} s{drops}; "
        f"micro-expressions: {event.micro_expressions}, longer movements: {event.macro_expressions}"
    )


def _expression(event: MicroExpression | MacroExpression) -> str:
    duration_ms = 1000 * (event.offset.time_s - event.onset.time_s)
    size = f"{duration_ms:.0f} ms, {event.strength:.1%} IOD"
    if isinstance(event, MacroExpression):
        return f"longer movement, {size}"
    strongest = sorted(event.action_units.items(), key=lambda item: -item[1])[:3]
    units = " ".join(f"{unit} {probability:.0%}" for unit, probability in strongest)
    return f"{event.name} ({event.label}) {event.scores[event.label]:.0%}, {units}, {size}"


def _at(time_s: float, text: str) -> str:
    return f"{time_s:9.3f} s  {text}"


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except OSError:  # not a terminal after all, or one without a size
        return 80
