"""A drawn face with nodes and edges on it, for Figures 6 and 8: lines between average landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from streamer.graph import NODE_SETS

# dlib-68 points in the order of a pen: jaw, brows, nose, eyes, outer and inner mouth.
_STROKES: tuple[tuple[int, ...], ...] = (
    tuple(range(17)),
    tuple(range(17, 22)),
    tuple(range(22, 27)),
    tuple(range(27, 31)),
    tuple(range(31, 36)),
    (*range(36, 42), 36),
    (*range(42, 48), 42),
    (*range(48, 60), 48),
    (*range(60, 68), 60),
)

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
BLACK, GREY, PALE = "#222222", "#8a8a8a", "#c9c9c9"

PAIRS: dict[frozenset[str], tuple[str, str, Any]] = {
    frozenset({"brows", "nose"}): ("brows - nose", VERMILION, "-"),
    frozenset({"brows", "mouth"}): ("brows - mouth", BLUE, "--"),
    frozenset({"nose", "mouth"}): ("nose - mouth", GREEN, "-."),
    frozenset({"brows"}): ("within the brows", BLACK, "-"),
    frozenset({"nose"}): ("within the nose", ORANGE, ":"),
    frozenset({"mouth"}): ("within the mouth", PURPLE, (0, (4, 1, 1, 1))),
}
"""Facial parts that an edge joins -> its name, colour and line, so that colour is not all that tells them."""


def draw_face(axes: Axes) -> None:
    """The face, and no more; the picture's left is the person's right."""
    points = NODE_SETS["dlib68"].rest
    for stroke in _STROKES:
        x, y = points[list(stroke)].T
        axes.plot(x, y, color=PALE, linewidth=1.6, solid_capstyle="round", zorder=1)
    axes.set_xlim(-1.45, 1.45)
    axes.set_ylim(2.05, -0.75)
    axes.set_aspect("equal")
    axes.axis("off")


def draw_nodes(axes: Axes, node_set: str, numbered: bool = False, edges: bool = False) -> None:
    """The nodes of a set, and its spatial edges."""
    nodes = NODE_SETS[node_set]
    points = nodes.rest
    if edges:
        for i, j in nodes.edges:
            axes.plot(*points[[i, j]].T, color=GREY, linewidth=1.0, zorder=2)
    axes.scatter(*points.T, s=70 if numbered else 26, color=BLUE, edgecolor="white", linewidth=0.8, zorder=3)
    if numbered:
        for number, (x, y) in enumerate(points):
            axes.text(x, y, str(number), color="white", fontsize=6, ha="center", va="center", zorder=4)


def strongest_edges(matrix: NDArray[np.floating], count: int = 10) -> list[tuple[int, int, float]]:
    """The `count` largest values between two different nodes, (i, j, value) with i < j, largest first. The
    learned matrix has a value for each direction; an edge is taken at the larger of them."""
    both = np.maximum(matrix, matrix.T)
    i, j = np.triu_indices(len(matrix), 1)
    order = np.argsort(-both[i, j], kind="stable")[:count]
    return [(int(i[k]), int(j[k]), float(both[i[k], j[k]])) for k in order]


def part(node_set: str, node: int) -> str:
    """brows, nose or mouth."""
    region = NODE_SETS[node_set].nodes[node].region
    return "brows" if region.startswith("brow") else region


def draw_edges(axes: Axes, edges: Sequence[tuple[int, int, float]], node_set: str = "gm14") -> set[str]:
    """Learned edges, wider the stronger; returns the names of the kinds that were drawn."""
    points, seen = NODE_SETS[node_set].rest, set()
    largest = max(value for _, _, value in edges)
    for i, j, value in edges:
        name, colour, line = PAIRS[frozenset({part(node_set, i), part(node_set, j)})]
        width = 0.8 + 2.4 * max(value, 0.0) / largest if largest > 0 else 1.0
        axes.plot(*points[[i, j]].T, color=colour, linestyle=line, linewidth=width, zorder=2)
        seen.add(name)
    return seen
