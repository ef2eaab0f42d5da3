"""The panel below the picture: status, strip chart of the motion, cards of recent events, legend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamer.graph import REGIONS
from streamer.messages import MacroExpression, MicroExpression
from streamer.sinks import ink
from streamer.sinks.history import MotionHistory
from streamer.sinks.ink import Ink

CHART_S = 4.0
"""Length of the strip chart."""

CARD_S, FADE_S = 2.5, 0.5
"""How long an event's card stays, and how much of that it fades."""

LEGEND = "Movement category by FACS action units - not what the person feels."

SERIES = (
    ("Brows", REGIONS["brow_right"] + REGIONS["brow_left"], ink.BROWS),
    ("Nose", REGIONS["nose"], ink.NOSE),
    ("Mouth", REGIONS["mouth"], ink.MOUTH),
)
"""The lines of the chart: name, nodes, colour."""

# Heights and margins in units (Ink.scale pixels each).
STATUS, CHART, FOOT, MARGIN = 30, 138, 26, 12
HEIGHT = STATUS + CHART + FOOT

_TOP_PERCENT = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # the chart's possible heights, % IOD


@dataclass(frozen=True)
class Shown:
    """An expression on display, and the stream time at which it came."""

    event: MicroExpression | MacroExpression
    since_s: float


@dataclass(frozen=True)
class Status:
    """The status line. face: what is known of the face, in words; good: whether all is well with it."""

    face: str
    good: bool
    fps: float | None
    frame: int
    time_s: float


class Panel:
    """Draws on a picture that is reserved for it, `HEIGHT` units high."""

    def __init__(self, target: Ink, magnify: float) -> None:
        self._ink = target
        self._magnify = magnify
        u = target.scale
        width = target.picture.shape[1]
        cards = min(max(0.34 * width, 236 * u), 0.42 * width)
        self._chart_left, self._chart_right = (MARGIN + 26) * u, width - cards - 2 * MARGIN * u
        self._chart_top, self._chart_bottom = (STATUS + 25) * u, (STATUS + CHART - 17) * u
        self._cards_left, self._cards_right = width - cards - MARGIN * u, width - MARGIN * u
        self._ground = self._paint_ground()

    def draw(
        self, status: Status, history: MotionHistory, shown: list[Shown], totals: tuple[int, int]
    ) -> None:
        """Draw everything anew. shown: oldest first; totals: micro- and macro-expressions so far."""
        self._ink.picture[:] = self._ground
        self._draw_status(status)
        self._draw_chart(status.time_s, history, shown)
        self._draw_cards(status.time_s, shown, totals)

    def _paint_ground(self) -> np.ndarray:
        """What never changes."""
        pen, u = self._ink, self._ink.scale
        height, width = pen.picture.shape[:2]
        pen.picture[:] = ink.GROUND
        x, baseline = MARGIN * u, (STATUS + 12) * u
        x += pen.text(x, baseline, "Motion, % IOD (eye distance)", 11, ink.DIM) + 14 * u
        for name, _, colour in SERIES:
            pen.box(x, baseline - 5 * u, x + 10 * u, baseline - 2 * u, colour)
            x += 14 * u
            x += pen.text(x, baseline, name, 11, ink.TEXT) + 10 * u
        note = f"Arrows x{self._magnify:g}"
        foot = height - 9 * u
        room = width - 3 * MARGIN * u - pen.text_width(note, 11)
        pen.text(MARGIN * u, foot, pen.fit(LEGEND, room, 11), 11, ink.DIM)
        pen.text(width - MARGIN * u, foot, note, 11, ink.DIM, align="right")
        return pen.picture.copy()

    def _draw_status(self, status: Status) -> None:
        pen, u = self._ink, self._ink.scale
        width = pen.picture.shape[1]
        baseline = 20 * u
        minutes, seconds = divmod(status.time_s, 60)
        rate = "" if status.fps is None else f"{status.fps:.0f} fps    "
        right = f"{rate}frame {status.frame}    {minutes:.0f}:{seconds:06.3f}"
        right_width = pen.text_width(right, 12)
        pen.text(width - MARGIN * u, baseline, right, 12, ink.DIM, align="right")
        colour = ink.BROWS if status.good else ink.WARNING
        pen.dot((MARGIN + 4) * u, baseline - 4 * u, 4, colour)
        room = width - right_width - (3 * MARGIN + 14) * u
        pen.text((MARGIN + 14) * u, baseline, pen.fit(status.face, room, 12, 600), 12, ink.TEXT, 600)

    def _draw_chart(self, now_s: float, history: MotionHistory, shown: list[Shown]) -> None:
        pen, u = self._ink, self._ink.scale
        left, right, top, bottom = self._chart_left, self._chart_right, self._chart_top, self._chart_bottom
        stretches = history.stretches(now_s, [nodes for _, nodes, _ in SERIES])
        peak = max((float(values.max()) for _, values in stretches), default=0.0)
        percent = next((p for p in _TOP_PERCENT if p >= 1.05 * peak), _TOP_PERCENT[-1])

        def x_of(time_s: np.ndarray | float) -> np.ndarray | float:
            return right + (time_s - now_s) / CHART_S * (right - left)

        for share in (0.0, 0.5, 1.0):
            y = bottom + share * (top - bottom)
            pen.box(left, y, right, y + 1, ink.GRID)
            pen.text(left - 5 * u, y + 4 * u, f"{share * percent:g}", 10, ink.DIM, align="right")
        for second in range(max(0, int(np.ceil(now_s - CHART_S))), int(now_s) + 1):
            x = float(x_of(second))
            pen.box(x, bottom, x + 1, bottom + 3 * u, ink.GRID)
            if left + 8 * u <= x <= right - 8 * u:
                pen.text(x, bottom + 13 * u, f"{second} s", 10, ink.DIM, align="centre")
        for item in shown:
            self._mark(item.event, x_of)
        for times, values in stretches:
            if len(times) < 2:
                continue
            x = np.clip(x_of(times), left, right)
            for column, (_, _, colour) in enumerate(SERIES):
                y = bottom + np.minimum(values[:, column] / percent, 1) * (top - bottom)
                pen.lines(np.column_stack([x, y]), colour, 1.3)

    def _mark(self, event: MicroExpression | MacroExpression, x_of) -> None:
        """An event on the time axis: a band from onset to offset, a line with a pointer at the apex."""
        pen, u = self._ink, self._ink.scale
        left, right, top, bottom = self._chart_left, self._chart_right, self._chart_top, self._chart_bottom
        colour = ink.MICRO if isinstance(event, MicroExpression) else ink.MACRO
        onset, apex, offset = (float(x_of(key.time_s)) for key in (event.onset, event.apex, event.offset))
        if offset <= left:
            return
        pen.tint(max(onset, left), top, min(offset, right), bottom, colour, 0.22)
        for x in (onset, offset):
            if left <= x <= right:
                pen.box(x, top, x + max(1, 0.7 * u), bottom, ink.mix(colour, ink.GROUND, 0.7))
        if left <= apex <= right:
            pen.lines(np.array([(apex, top), (apex, bottom)]), colour, 1.3)
            pointer = np.array([(apex - 4 * u, top - 1), (apex + 4 * u, top - 1), (apex, top + 5 * u)])
            pen.fill(pointer, colour)
        if isinstance(event, MicroExpression):
            beside = offset + 4 * u
            if beside + pen.text_width(event.label, 10, 600) <= right:
                pen.text(beside, top + 10 * u, event.label, 10, colour, 600)
            elif onset > left:
                pen.text(onset - 3 * u, top + 10 * u, event.label, 10, colour, 600, align="right")

    def _draw_cards(self, now_s: float, shown: list[Shown], totals: tuple[int, int]) -> None:
        """The two newest events, newest first, while they are fresh."""
        u = self._ink.scale
        fresh = [item for item in reversed(shown) if now_s - item.since_s < CARD_S][:2]
        top, height = (STATUS + 2) * u, 63 * u
        for item in fresh:
            opacity = min(1.0, (CARD_S - (now_s - item.since_s)) / FADE_S)
            self._card(top, top + height, item.event, opacity)
            top += height + 6 * u
        if not fresh:
            self._empty_card(top, totals)

    def _card(
        self, top: float, bottom: float, event: MicroExpression | MacroExpression, opacity: float
    ) -> None:
        pen, u = self._ink, self._ink.scale
        ground = ink.mix(ink.CARD, ink.GROUND, opacity)
        text, dim = (ink.mix(colour, ground, opacity) for colour in (ink.TEXT, ink.DIM))
        accent = ink.mix(ink.MICRO if isinstance(event, MicroExpression) else ink.MACRO, ground, opacity)
        left, right = self._cards_left + 12 * u, self._cards_right - 10 * u
        pen.box(self._cards_left, top, self._cards_right, bottom, ground)
        pen.box(self._cards_left, top, self._cards_left + 3 * u, bottom, accent)

        duration_ms = 1000 * (event.offset.time_s - event.onset.time_s)
        last = f"{duration_ms:.0f} ms   {event.strength:.1%} IOD   at {event.apex.time_s:.2f} s"
        room = right - left
        if isinstance(event, MicroExpression):
            confidence = event.scores[event.label]
            after = pen.text(right, top + 19 * u, f"{confidence:.0%}", 15, accent, 600, align="right")
            after += pen.text_width(event.label, 12, 600) + 14 * u
            name = pen.fit(event.name[:1].upper() + event.name[1:], room - after, 14, 600)
            end = left + pen.text(left, top + 19 * u, name, 14, text, 600)
            pen.text(end + 7 * u, top + 19 * u, event.label, 12, dim, 600)
            pen.box(left, top + 25 * u, right, top + 27 * u, ink.mix(ink.GRID, ground, opacity))
            pen.box(left, top + 25 * u, left + room * confidence, top + 27 * u, accent)
            strongest = sorted(event.action_units.items(), key=lambda item: -item[1])[:3]
            middle = "  ".join(f"{unit} {probability:.0%}" for unit, probability in strongest)
        else:
            pen.text(left, top + 19 * u, pen.fit("Longer movement", room, 14, 600), 14, text, 600)
            middle = "Not classified"
        pen.text(left, top + 41 * u, pen.fit(middle, room, 12), 12, text)
        pen.text(left, top + 56 * u, pen.fit(last, room, 11), 11, dim)

    def _empty_card(self, top: float, totals: tuple[int, int]) -> None:
        pen, u = self._ink, self._ink.scale
        left = self._cards_left + 12 * u
        pen.box(self._cards_left, top, self._cards_left + 3 * u, top + 63 * u, ink.GRID)
        pen.text(left, top + 19 * u, "No event now", 14, ink.DIM, 600)
        pen.text(left, top + 41 * u, f"Micro-expressions  {totals[0]}", 12, ink.DIM)
        pen.text(left, top + 56 * u, f"Longer movements  {totals[1]}", 12, ink.DIM)
