"""The figures of the paper, drawn of results: PNG and SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from streamer.errors import OutputError
from streamer.graph import NODE_SETS
from train.figures_face import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PAIRS,
    PURPLE,
    SKY,
    VERMILION,
    draw_edges,
    draw_face,
    draw_nodes,
    strongest_edges,
)
from train.paper import PAPER
from train.results import LAYERS, RunResult
from train.tables_cells import NAMES, Pooled

mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "gtsgn",  # so that equal figures are equal files
        "svg.fonttype": "path",
        "figure.facecolor": "white",
    }
)

LETTERS_AN_INCH = 16
"""Of the line at the foot of a figure."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)


def new_figure(width: float, height: float, title: str, conditions: str) -> Figure:
    """A figure whose foot says under what conditions it came about, "simulated" first where it is."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    foot = textwrap.fill(conditions, int(LETTERS_AN_INCH * width))
    figure.supxlabel(foot, fontsize=7.5, color="#555555", x=0.01, ha="left")
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`name`.png and `name`.svg.

    Raises:
        OutputError: they cannot be written.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[0], dpi=160, metadata={"Software": None})
        figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise OutputError(
            f"{folder}: {name} cannot be written ({error.strerror}): name another --out"
        ) from error
    return paths


def mean_lam(result: RunResult) -> dict[str, NDArray[np.float64]]:
    """Layer -> learned adjacency A_L (nodes, nodes), mean over the folds; layers as in `FoldResult.lam`, from
    the input up."""
    layers = sorted(result.folds[0].lam, key=lambda name: (name.split(".")[1], name.split(".")[0] != "low"))
    return {name: np.mean([fold.lam[name] for fold in result.folds], axis=0) for name in layers}


def layer_title(name: str) -> str:
    """Such as "layer 1, (x, y)"."""
    stream, number = name.split(".")
    return f"layer {number}" + {"low": ", (x, y)", "high": ", (D, \u03b1)"}.get(stream, "")


def figure_5(result: RunResult, conditions: str) -> Figure:
    """Heat maps of the learned adjacency matrices, layer by layer."""
    matrices = mean_lam(result)
    figure = new_figure(
        2.5 * len(matrices) + 0.8, 3.4, "Figure 5: learned adjacency (LAM) by layer", conditions
    )
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    largest = max(float(np.abs(matrix).max()) for matrix in matrices.values()) or 1.0
    image = None
    for place, (name, matrix) in zip(axes, matrices.items(), strict=True):
        image = place.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest)
        place.set_title(f"{layer_title(name)}\nmean |value| {np.abs(matrix).mean():.3f}", fontsize=9)
        place.set_xticks(range(0, len(matrix), 2))
        place.set_yticks(range(0, len(matrix), 2))
        place.tick_params(labelsize=7, length=2)
        place.spines[:].set_visible(False)
    axes[0].set_ylabel("node")
    assert image is not None
    figure.colorbar(image, ax=list(axes), shrink=0.75, label="learned value", pad=0.01)
    return figure


def figure_6(result: RunResult, conditions: str) -> Figure:
    """The ten strongest learned edges on a face: of the first layer, as the paper's caption says, and of the
    last, as its text says."""
    matrices = mean_lam(result)
    names = list(matrices)
    chosen = [names[0], names[-1]]
    figure = new_figure(8.2, 4.2, "Figure 6: the ten strongest learned edges", conditions)
    seen: set[str] = set()
    for place, name in zip(figure.subplots(1, 2), chosen, strict=True):
        draw_face(place)
        seen |= draw_edges(place, strongest_edges(matrices[name]))
        draw_nodes(place, "gm14", numbered=True)
        place.set_title(layer_title(name))
    lines = [
        Line2D([], [], color=colour, linestyle=line, linewidth=2, label=name)
        for name, colour, line in PAIRS.values()
        if name in seen
    ]
    figure.legend(handles=lines, loc="outside right center", frameon=False, fontsize=8)
    return figure


def embedded(features: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """(N, channels) -> (N, 2) by t-SNE (van der Maaten and Hinton, 2008). Where it puts a group says nothing,
    who is near whom does. Fewer than three points, or points that are all alike, lie in one place."""
    if len(features) < 3 or not np.ptp(features, axis=0).any():
        return np.zeros((len(features), 2))  # of which t-SNE makes an error, or a crash of the program
    from sklearn.manifold import TSNE  # takes a second to load
    from threadpoolctl import threadpool_limits

    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    perplexity = min(30.0, (len(scaled) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # a few hundred points: threads would only wait for each other
        return np.asarray(tsne.fit_transform(scaled), np.float64)


def neighbours_alike(points: NDArray[np.float64], label: NDArray[np.int64], count: int = 5) -> float:
    """How many of a sample's `count` nearest neighbours, or of all others where they are fewer, are of its
    class, in the mean, 0 to 1. NaN for one point."""
    if len(points) < 2:
        return float("nan")
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, : min(count, len(points) - 1)]
    return float((label[near] == label[:, None]).mean())


def figure_7(results: Mapping[str, RunResult], conditions: str) -> Figure:
    """t-SNE of each layer's features, one row a network; of the samples of the largest fold, all of whose
    subjects that network has not seen."""
    figure = new_figure(10.5, 2.75 * len(results) + 0.9, "Figure 7: features by layer (t-SNE)", conditions)
    grid = figure.subplots(len(results), LAYERS, squeeze=False)
    classes: tuple[str, ...] = ()
    for line, (title, result) in zip(grid, results.items(), strict=True):
        fold = max(result.folds, key=lambda each: len(each.test))
        label = result.header.label[fold.test]
        classes = result.classes
        for place, (layer, features) in zip(line, sorted(fold.features.items()), strict=True):
            points = embedded(features)
            for number, name in enumerate(classes):
                own = label == number
                place.scatter(
                    *points[own].T, s=16, marker=MARKERS[number % 7], color=COLOURS[number % 7], label=name,
                    alpha=0.85, linewidth=0,
                )  # fmt: skip
            alike = neighbours_alike(np.asarray(features, np.float64), label)
            place.set_title(f"layer {layer}: {alike:.0%} of neighbours alike", fontsize=8.5)
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_visible(True)
            place.spines[:].set_color("#bbbbbb")
        line[0].set_ylabel(title, fontsize=10)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, title="class")
    return figure


def figure_8(conditions: str) -> Figure:
    """The three sets of landmarks, on the same drawn face; the 14 with their edges and numbers."""
    figure = new_figure(9.0, 3.9, "Figure 8: the sets of landmarks", conditions)
    sets = ("gm14", "dlib31", "dlib68")
    for place, name in zip(figure.subplots(1, 3), sets, strict=True):
        draw_face(place)
        draw_nodes(place, name, numbered=name == "gm14", edges=name == "gm14")
        place.set_title(f"{len(NODE_SETS[name])} points")
    return figure


def figure_9(databases: Mapping[str, Mapping[str, Pooled]], conditions: str) -> Figure:
    """Accuracy over beta (keys "beta 0.1" and so on), ours with its interval, and the paper's points."""
    figure = new_figure(4.6 * len(databases) + 0.6, 3.5, "Figure 9: accuracy over \u03b2", conditions)
    for place, (database, found) in zip(
        figure.subplots(1, len(databases), squeeze=False)[0], databases.items(), strict=True
    ):
        betas = [float(name.split()[1]) for name in found]
        intervals = [each.intervals["accuracy"] for each in found.values()]
        middle, low, high = (
            np.array([100 * getattr(each, part) for each in intervals]) for part in ("value", "low", "high")
        )
        place.fill_between(
            betas, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval over subjects"
        )
        place.plot(betas, middle, color=BLUE, marker="o", markersize=4, label="ours")
        printed = {
            float(name.split()[1]): row[database].accuracy
            for name, row in PAPER["Figure 9"].items()
            if database in row and row[database].accuracy is not None
        }
        if printed:
            place.plot(
                list(printed),
                list(printed.values()),
                linestyle="",
                marker="D",
                color=VERMILION,
                label="paper",
            )
        simulated = " (simulated)" if next(iter(found.values())).first.simulated else ""
        place.set_title(f"{NAMES.get(database, database)}{simulated}")
        place.set_xlabel("\u03b2")
        place.set_ylabel("ACC, %")
        place.set_xticks(np.arange(1, 11) / 10)
        place.grid(axis="y", color="#e5e5e5")
        place.legend(frameon=False, fontsize=8)
    return figure


def figure_confusion(named: Mapping[str, Pooled], title: str, conditions: str) -> Figure:
    """Confusion matrices, rows the truth: share of the true class as colour, numbers of samples as text."""
    figure = new_figure(3.4 * len(named) + 0.8, 3.9, title, conditions)
    axes: Sequence = figure.subplots(1, len(named), squeeze=False)[0]
    image = None
    for place, (name, found) in zip(axes, named.items(), strict=True):
        counts = found.metrics.confusion
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = place.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[i, j] > 0.55 else BLACK
                place.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
        ticks = range(len(found.classes))
        wide = max(map(len, found.classes)) > 4
        place.set_xticks(ticks, found.classes, rotation=40 if wide else 0, ha="right" if wide else "center")
        place.set_yticks(ticks, found.classes)
        place.set_xlabel("said")
        place.set_title(name)
        place.spines[:].set_visible(False)
        place.tick_params(length=0)
    axes[0].set_ylabel("true class")
    assert image is not None
    figure.colorbar(image, ax=list(axes), shrink=0.75, label="part of the true class", pad=0.01)
    return figure
