"""The spotting benchmark's figures as JSON, Markdown and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamer.bench.clips import write_json
from streamer.errors import OutputError, StreamerError

KEY_FRAMES = ("onset", "apex", "offset")

COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("found", lambda f: f"{f['found']} of {f['found'] + f['missed']}"),
    ("false", lambda f: f"{f['false']}"),
    ("recall", lambda f: number(f["recall"])),
    ("precision", lambda f: number(f["precision"])),
    ("F1", lambda f: number(f["f1"])),
    ("onset, apex, offset ms", lambda f: ", ".join(number(f[f"{k}_ms"], 0) for k in KEY_FRAMES)),
    ("class right", lambda f: number(f["accuracy"])),
    ("class F1", lambda f: number(f["macro_f1"])),
    ("STRS", lambda f: number(f["strs"])),
)
"""Columns of the tables of injected expressions: heading and cell."""

SETS = {
    "tuning": "Tuning set: the faces, footage and action units that the program was adjusted with",
    "held-out": "Held-out set: faces, footage, action units, asymmetry and course in time that nothing was "
    "adjusted with",
    "own": "The footage named with --source",
}

EXPLANATION = """\
Everything here is **simulated**: action units move the skin of still faces (rendered clips) and of real
footage, so that the truth is exact. No person performed these expressions. Every clip is an encoded file that
went through the program as a user's file would.

Base: 640x480, 30 frames a second, 80 to 150 pixels between the eyes, head sway, blinks at random, sensor
noise of 2 grey levels, H.264 (crf 20, medium), peak 1 % of the inter-ocular distance, expressions of 0.2 to
0.5 s of random classes I to V, 2.5 to 4 s apart. Each axis changes one thing.

Found: IoU of [onset, offset] >= 0.5, one to one, summed over clips. Milliseconds: median absolute errors over
the found. Class right, class F1: accuracy and macro F1 over I to V of the found. STRS: F1 times class F1.
"""


def number(value: float | None, decimals: int = 2) -> str:
    """A figure for a table; "-" where there is none."""
    return "-" if value is None else f"{value:.{decimals}f}"


def write(figures: dict[str, Any], out: Path | None) -> str:
    """The report as Markdown; with `out`, also written beside it: JSON, Markdown and plots.

    Raises:
        OutputError: a file cannot be written. StreamerError: matplotlib is missing.
    """
    plots: list[str] = []
    if out is not None:
        write_json(out, figures)
        plots = draw(figures, out)
    text = markdown(figures, plots)
    if out is not None:
        try:
            out.with_suffix(".md").write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{out.with_suffix('.md')} cannot be written ({error.strerror})") from error
    return text


def markdown(figures: dict[str, Any], plots: Sequence[str] = ()) -> str:
    """The whole report. plots: names of picture files beside it."""
    about = figures["machine"]
    measured = (about["date"], about["processor"], about["system"], about["versions"])
    lines = [
        "# Spotting (simulated expressions)",
        "",
        f"`{figures['command']}`; engine {figures['engine']}, code {figures['code']}.",
        f"Measured on {'; '.join(measured)}.",
        "",
        EXPLANATION,
    ]
    lines += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots]
    lines += [""] if plots else []
    for set_name in dict.fromkeys(row["set"] for row in figures["rows"]):
        rows = [row for row in figures["rows"] if row["set"] == set_name]
        lines += [f"## {SETS[set_name]}", ""]
        for axis in dict.fromkeys(row["axis"] for row in rows):
            about_axis = figures["axes"][axis]
            unit = f" ({about_axis['unit']})" if about_axis["unit"] else ""
            lines += [f"### {about_axis['title'].capitalize()}{unit}", ""]
            lines += _table([row for row in rows if row["axis"] == axis])
            lines.append("")
    lines += _confidence(figures["confidence"])
    if figures["left_out"]:
        lines += ["## Left out", "", *(f"- {reason}" for reason in figures["left_out"]), ""]
    return "\n".join(lines)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    kind = rows[0]["kind"]
    if kind == "slow":
        head = ["point", "detector", "slow expressions", "reported as macro", "micro events over them"]
        cells = [
            [row["point"], name, str(f["slow"]), str(f["as_macro"]), str(f["as_micro"])]
            for row in rows
            for name, f in row["detectors"].items()
        ]
        return _lines(head, cells)
    several = any(len(row["detectors"]) > 1 for row in rows)
    during = list(
        dict.fromkeys(
            activity for row in rows for f in row["detectors"].values() for activity in f.get("during", {})
        )
    )
    if kind == "uninjected":
        head = ["condition", "detector", "minutes", "false", "false a minute", "of them blinks"]
        head += [f"while {activity}" for activity in during]
        cells = [
            [
                row["point"],
                name,
                number(f["minutes"], 1),
                str(f["false"]),
                number(f["false_per_minute"], 1),
                str(f["blinks"]),
                *(_false_during(f, activity) for activity in during),
            ]
            for row in rows
            for name, f in row["detectors"].items()
        ]
        return _lines(head, cells)
    head = ["point", *(["detector"] if several else []), *(name for name, _ in COLUMNS)]
    head += [f"found while {activity}" for activity in during]
    cells = [
        [
            row["point"],
            *([name] if several else []),
            *(cell(f) for _, cell in COLUMNS),
            *(_found_during(f, activity) for activity in during),
        ]
        for row in rows
        for name, f in row["detectors"].items()
    ]
    return _lines(head, cells)


def _found_during(f: dict[str, Any], activity: str) -> str:
    part = f.get("during", {}).get(activity)
    return f"{part['found']} of {part['found'] + part['missed']}, {part['false']} false" if part else "-"


def _false_during(f: dict[str, Any], activity: str) -> str:
    part = f.get("during", {}).get(activity)
    return f"{part['false']} in {part['minutes'] * 60:.0f} s" if part else "-"


def _lines(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    rule = "|" + "---|" * len(head)
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in cells)]


def _confidence(by_set: dict[str, Any]) -> list[str]:
    if not by_set:
        return []
    lines = [
        "## Confidence of events",
        "",
        "All candidates (sensitivity at its most) of the axes displacement, uninjected and real, by the",
        "confidence that they came with: the share that was true (how many there were).",
        "",
    ]
    head = ["set", *(f"{k / 10:.1f}" for k in range(10)), "calibration error"]
    cells = [
        [
            set_name,
            *(f"{number(true)} ({count})" if count else "-" for count, _, true in known["bins"]),
            number(known["error"]),
        ]
        for set_name, known in by_set.items()
    ]
    return [*lines, *_lines(head, cells), ""]


# --- Plots -----------------------------------------------------------------------------------------------

COLOURS = ("#0b6e99", "#d9730d", "#8a5fb4", "#4d8b31", "#a0506a", "#6b6b6b")


def draw(figures: dict[str, Any], out: Path) -> list[str]:
    """Write the plots beside `out`; their file names.

    Raises:
        StreamerError: matplotlib is missing.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise StreamerError(f"{error.name} is missing: pip install -e '.[bench]'") from error
    names = []
    for part, make in (
        ("displacement", _plot_displacement),
        ("conditions", _plot_conditions),
        ("timing", _plot_timing),
        ("classes", _plot_classes),
        ("confidence", _plot_confidence),
    ):
        with pyplot.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
            figure = make(figures, pyplot)
            if figure is None:
                continue
            path = out.with_name(f"{out.stem}_{part}.png")
            try:
                figure.savefig(path, dpi=110, bbox_inches="tight")
            except OSError as error:
                raise OutputError(f"{path} cannot be written ({error.strerror})") from error
            finally:
                pyplot.close(figure)
            names.append(path.name)
    return names


def _series(
    figures: dict[str, Any], axis: str, set_name: str, detector: str, key: str
) -> tuple[list[float], list[float]]:
    """Values of the axis and of one figure, where there is one."""
    pairs = [
        (row["value"], row["detectors"][detector][key])
        for row in figures["rows"]
        if row["axis"] == axis and row["set"] == set_name and detector in row["detectors"]
    ]
    pairs = [pair for pair in pairs if pair[1] is not None]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _sets(figures: dict[str, Any], axis: str) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in figures["rows"] if row["axis"] == axis))


def _detectors(figures: dict[str, Any], axis: str) -> list[str]:
    return list(dict.fromkeys(d for row in figures["rows"] if row["axis"] == axis for d in row["detectors"]))


def _plot_displacement(figures: dict[str, Any], pyplot: Any) -> Any:
    axes = [axis for axis in ("displacement", "real") if _sets(figures, axis)]
    panels = [(axis, set_name) for axis in axes for set_name in _sets(figures, axis)]
    if not panels:
        return None
    figure, places = pyplot.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3.0), sharey=True, squeeze=False
    )
    for place, (axis, set_name) in zip(places[0], panels, strict=True):
        for k, detector in enumerate(_detectors(figures, axis)):
            x, y = _series(figures, axis, set_name, detector, "f1")
            width = 2.2 if k == 0 else 1.2
            place.plot(x, y, "o-", color=COLOURS[k % len(COLOURS)], lw=width, ms=4, label=detector)
        kind = "still faces" if axis == "displacement" else "real footage"
        place.set(title=f"{kind}, {set_name} set", xlabel="peak, % of inter-ocular distance")
        place.set_ylim(-0.03, 1.03)
        place.set_xlim(left=0)
        place.grid(alpha=0.3)
    places[0][0].set_ylabel("F1 of spotting")
    places[0][-1].legend(fontsize=7, frameon=False, loc="best")
    figure.suptitle("Simulated expressions: F1 over their size", y=1.04)
    return figure


def _plot_conditions(figures: dict[str, Any], pyplot: Any) -> Any:
    axes = [
        axis
        for axis in figures["axes"]
        if axis not in ("displacement", "real")
        and any(row["axis"] == axis and row["kind"] == "micro" for row in figures["rows"])
    ]
    if not axes:
        return None
    columns = min(4, len(axes))
    count = -(-len(axes) // columns)
    figure, places = pyplot.subplots(
        count, columns, figsize=(3.0 * columns, 2.6 * count), sharey=True, squeeze=False
    )
    for place in places.flat[len(axes) :]:
        place.axis("off")
    for place, axis in zip(places.flat, axes, strict=False):
        for k, (key, style) in enumerate((("recall", "o-"), ("precision", "s--"), ("f1", "^:"))):
            x, y = _series(figures, axis, "tuning", "streamer", key)
            place.plot(x, y, style, color=COLOURS[k], lw=1.4, ms=4, label={"f1": "F1"}.get(key, key))
        about = figures["axes"][axis]
        place.set_title(about["title"], fontsize=9)
        place.set_xlabel(_wrapped(about["unit"]), fontsize=8)
        place.set_ylim(-0.03, 1.03)
        place.grid(alpha=0.3)
    places.flat[0].legend(fontsize=7, frameon=False, loc="lower left")
    figure.suptitle("Simulated expressions of 1 % of the inter-ocular distance, one condition changed")
    figure.tight_layout()
    return figure


def _wrapped(text: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _plot_timing(figures: dict[str, Any], pyplot: Any) -> Any:
    axes = [axis for axis in ("displacement", "rate") if "tuning" in _sets(figures, axis)]
    if not axes:
        return None
    figure, places = pyplot.subplots(1, len(axes), figsize=(3.6 * len(axes), 2.8), squeeze=False)
    for place, axis in zip(places[0], axes, strict=True):
        for k, key in enumerate(KEY_FRAMES):
            x, y = _series(figures, axis, "tuning", "streamer", f"{key}_ms")
            place.plot(x, y, "o-", color=COLOURS[k], lw=1.4, ms=4, label=key)
        about = figures["axes"][axis]
        place.set(title=about["title"], xlabel=about["unit"], ylabel="median absolute error, ms")
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
    places[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def _plot_classes(figures: dict[str, Any], pyplot: Any) -> Any:
    """Confusion of the found expressions of at least 1 %, by set."""
    order = ("I", "II", "III", "IV", "V", "VI", "VII")
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for row in figures["rows"]:
        known = row["detectors"].get("streamer", {})
        if row["axis"] == "displacement" and row["value"] >= 1 and known.get("confusion"):
            table = tables.setdefault(row["set"], {})
            for true, said in known["confusion"].items():
                for label, count in said.items():
                    cells = table.setdefault(true, {})
                    cells[label] = cells.get(label, 0) + count
    if not tables:
        return None
    figure, places = pyplot.subplots(1, len(tables), figsize=(3.4 * len(tables), 3.0), squeeze=False)
    for place, (set_name, table) in zip(places[0], tables.items(), strict=True):
        trues = [label for label in order if label in table]
        saids = [label for label in order if label in trues or any(label in said for said in table.values())]
        counts = [[table[true].get(said, 0) for said in saids] for true in trues]
        shares = [[count / max(1, sum(row)) for count in row] for row in counts]
        place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                colour = "white" if shares[i][j] > 0.5 else "black"
                place.text(j, i, str(count or ""), ha="center", va="center", color=colour, fontsize=9)
        place.set_xticks(range(len(saids)), saids)
        place.set_yticks(range(len(trues)), trues)
        place.set(title=f"{set_name} set", xlabel="said", ylabel="true")
    figure.suptitle("Classes of the found expressions, 1 % and larger (simulated)")
    figure.tight_layout()
    return figure


def _plot_confidence(figures: dict[str, Any], pyplot: Any) -> Any:
    by_set = figures["confidence"]
    if not by_set:
        return None
    figure, places = pyplot.subplots(1, 2, figsize=(7.6, 3.2))
    places[0].plot([0, 1], [0, 1], color="0.7", lw=1)
    for k, (set_name, known) in enumerate(by_set.items()):
        bins = [row for row in known["bins"] if row[0]]
        label = f"{set_name}: error {number(known['error'])}"
        places[0].plot([r[1] for r in bins], [r[2] for r in bins], "o-", color=COLOURS[k], label=label)
        for j, (name, rows) in enumerate(known["tradeoff"].items()):
            style = ("-", "--", ":", "-.")[j % 4]
            places[1].plot(
                [row[2] for row in rows],
                [row[1] for row in rows],
                style,
                color=COLOURS[k],
                lw=1.4,
                label=f"{set_name}, {name}",
            )
    places[0].set(xlabel="confidence", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    places[1].set(xlabel="false events a minute, nothing injected", ylabel="recall", ylim=(0, 1.03))
    places[1].set_xscale("symlog", linthresh=1)
    places[1].set_xticks([0, 1, 2, 5, 10, 20, 50], ["0", "1", "2", "5", "10", "20", "50"])
    places[1].set_xlim(left=0)
    for place in places:
        place.grid(alpha=0.3)
        if place.get_legend_handles_labels()[0]:
            place.legend(fontsize=6.5, frameon=False)
    figure.tight_layout()
    return figure
