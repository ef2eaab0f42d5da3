"""Anti-aliased drawing on a picture, with sub-pixel positions: text, lines, dots, boxes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import cv2
import numpy as np

from streamer.messages import U8

Colour: TypeAlias = tuple[int, int, int]


def rgb(hexadecimal: str) -> Colour:
    """'#56B4E9' as OpenCV's (blue, green, red)."""
    red, green, blue = bytes.fromhex(hexadecimal.removeprefix("#"))
    return blue, green, red


def mix(colour: Colour, ground: Colour, opacity: float) -> Colour:
    """The colour at that opacity (0..1) on a plain ground."""
    b, g, r = (round(under + opacity * (over - under)) for over, under in zip(colour, ground, strict=True))
    return b, g, r


# Okabe and Ito's palette (2008), distinguishable with any colour vision; here on a dark ground.
BROWS = rgb("#56B4E9")
NOSE = rgb("#D9D9D9")
MOUTH = rgb("#E69F00")
MICRO = rgb("#E38BC0")  # their reddish purple, lightened for the dark ground
MACRO = rgb("#8D96A0")
WARNING = rgb("#F0E442")
GROUND = rgb("#14171C")
CARD = rgb("#1F242B")
GRID = rgb("#2E353E")
TEXT = rgb("#EDEFF2")
DIM = rgb("#9BA5B0")
SHADOW = rgb("#101010")

_SHIFT = 4  # OpenCV takes coordinates in 1/16 pixel


class Ink:
    """Draws on one picture, (height, width, 3) uint8 BGR, in place. Coordinates: pixels, floats allowed.

    scale: size of one unit in pixels; text sizes and line widths are given in units.
    """

    def __init__(self, picture: U8, scale: float) -> None:
        self.picture = picture
        self.scale = scale
        self._font = cv2.FontFace("sans")

    def text(
        self,
        x: float,
        baseline: float,
        text: str,
        size: float = 12,
        colour: Colour = TEXT,
        weight: int = 400,
        align: Literal["left", "right", "centre"] = "left",
    ) -> float:
        """Write one line; returns the width in pixels."""
        width = self.text_width(text, size, weight)
        left = x - {"left": 0.0, "centre": width / 2, "right": width}[align]
        at = (round(left), round(baseline))
        cv2.putText(self.picture, text, at, colour, self._font, self._pixels(size), weight)
        return width

    def text_width(self, text: str, size: float = 12, weight: int = 400) -> float:
        """Width of a line of text in pixels."""
        box = cv2.getTextSize((0, 0), text, (0, 0), self._font, self._pixels(size), weight)
        return float(box[2])

    def fit(self, text: str, room: float, size: float = 12, weight: int = 400) -> str:
        """The text, shortened to `room` pixels with an ellipsis where it is longer."""
        if self.text_width(text, size, weight) <= room:
            return text
        while text and self.text_width(text + "...", size, weight) > room:
            text = text[:-1]
        return text.rstrip() + "..."

    def _pixels(self, size: float) -> int:
        return max(9, round(size * self.scale))

    def lines(self, points: np.ndarray, colour: Colour, width: float = 1.0, closed: bool = False) -> None:
        """A polyline through (n, 2) points."""
        fixed = np.round(np.asarray(points, np.float64) * (1 << _SHIFT)).astype(np.int32)
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.picture, [fixed], closed, colour, thickness, cv2.LINE_AA, _SHIFT)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """A filled convex polygon of (n, 2) points."""
        fixed = np.round(np.asarray(points, np.float64) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(self.picture, fixed, colour, cv2.LINE_AA, _SHIFT)

    def dot(self, x: float, y: float, radius: float, colour: Colour, width: float | None = None) -> None:
        """A disc, or with `width` a ring; the radius is in units."""
        at = (round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT)))
        size = max(1, round(radius * self.scale * (1 << _SHIFT)))
        thickness = -1 if width is None else max(1, round(width * self.scale))
        cv2.circle(self.picture, at, size, colour, thickness, cv2.LINE_AA, _SHIFT)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.picture[_rows(top, bottom), _rows(left, right)] = colour

    def tint(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, opacity: float
    ) -> None:
        """Lay a colour over a rectangle at that opacity (0..1)."""
        area = self.picture[_rows(top, bottom), _rows(left, right)]
        if area.size:
            area[:] = cv2.addWeighted(area, 1 - opacity, np.full_like(area, colour), opacity, 0)


def _rows(start: float, stop: float) -> slice:
    return slice(max(0, round(start)), max(0, round(stop)))
