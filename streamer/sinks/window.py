"""A window that shows the newest picture."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import cv2

from streamer.errors import UsageError
from streamer.messages import Event, Face, Frame, Motion
from streamer.sinks.base import StreamStop
from streamer.sinks.overlay import Overlay

TITLE = "Micro-expressions"

REFRESH_S = 1 / 30
"""The window is redrawn at most so often; frames in between are observed, not drawn."""

LARGEST = (1280, 860)
"""Width and height within which the window opens; it can be resized."""

_KEYS_TO_STOP = (ord("q"), 27)  # q and Esc
_REASON = "window closed"

# A child process tries first: Qt ends the process when it cannot reach the display.
_PROBE = f"import cv2; cv2.namedWindow({TITLE!r}, cv2.WINDOW_NORMAL); cv2.destroyAllWindows()"
_PROBE_TIMEOUT_S = 20


class WindowSink:
    """Shows the annotated picture; must be used from the main thread.

    The recogniser is never held up by more than drawing one picture per `REFRESH_S`. Keys and the close
    button are looked at then, so between frames (a stalled camera) the window does not answer: Ctrl-C does.

    clock: seconds, monotonic.

    Raises:
        UsageError: there is no display, or OpenCV cannot open a window on it.
    """

    def __init__(self, overlay: Overlay | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        check_display()
        self._overlay = overlay or Overlay()
        self._clock = clock
        self._shown_at: float | None = None

    def on_event(self, event: Event) -> None:
        """Show the event from the next picture on."""
        self._overlay.on_event(event)

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Show the frame, unless the last one was shown less than `REFRESH_S` ago.

        Raises:
            StreamStop: the window was closed, by q, Esc or its close button.
        """
        self._overlay.observe(frame, face, motion)
        now = self._clock()
        if self._shown_at is not None and now - self._shown_at < REFRESH_S:
            return
        picture = self._overlay.draw(frame, face, motion)
        if self._shown_at is not None:
            self._stop_if_closed()  # first of all: imshow would open a closed window again
        else:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            height, width = picture.shape[:2]
            share = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.resizeWindow(TITLE, round(width * share), round(height * share))
        self._shown_at = now
        cv2.imshow(TITLE, picture)
        if cv2.waitKey(1) & 0xFF in _KEYS_TO_STOP:
            raise StreamStop(_REASON)
        self._stop_if_closed()

    def _stop_if_closed(self) -> None:
        try:
            closed = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:  # what Qt answers once its last window is gone
            closed = True
        if closed:
            raise StreamStop(_REASON)

    def close(self) -> None:
        """Close the window."""
        if self._shown_at is not None:
            self._shown_at = None
            cv2.destroyAllWindows()


def check_display() -> None:
    """Make sure that a window can be opened, without risk for this process.

    Raises:
        UsageError: there is no display, or OpenCV cannot open a window on it.
    """
    without = "leave out --show (use --save to write the annotated video instead)"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UsageError(f"--show needs a display and there is none (DISPLAY is not set); {without}")
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
        failed, said = probe.returncode != 0, probe.stderr
    except subprocess.TimeoutExpired:
        failed, said = True, "the display does not answer"
    if failed:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # Qt says the cause first and then how to mend its installation; Python says it last.
        cause = (lines[-1] if lines[0].startswith("Traceback") else lines[0]) if lines else "no reason given"
        raise UsageError(f"--show: OpenCV cannot open a window ({cause}); {without}")
