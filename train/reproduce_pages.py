"""From results to the files of an output folder: tables/, figures/ and report.html."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from train import figures
from train.report import Section, html_page, write_section, write_text
from train.results import RunResult, SweepResults
from train.tables import TSNE_GROUPS, Plan, Table, figure_specs, tables_of
from train.tables_cells import (
    NAMES,
    accuracy_grid,
    cells_of,
    comparison_grid,
    csv_rows,
    pooled,
)
from train.tables_costs import costs_grid, weights_grid

PROTOCOLS = {
    "honest": "protocol honest: nothing is chosen on the test subjects",
    "paper": "protocol PAPER: the best epoch is chosen on the test subjects, which flatters by points",
}

FIGURE_TEXTS = {
    "5": "Values that the layers of GTS-GN (layer 1) with LAM and AAU loss added to the adjacency of the 14 "
    "nodes; mean over the folds. Layer 1 has a matrix for each of the two streams.",
    "6": "Between which nodes the learned adjacency is largest, in the first and in the last layer; a wider "
    "line is a larger value. A drawn face; the picture's left is the person's right.",
    "7": "Each point is a sample of a subject whom the network has not seen. Beside the layer: how many of a "
    "sample's five nearest neighbours are of its class, in the features themselves.",
    "8": "The 14 landmarks with the edges of the graph, and the sets of 31 and 68 points. A drawn face.",
    "9": "GTS-GN (layer 2) with LAM and AAU loss; \u03b2 weighs the AAU loss. All values are shown, none was "
    "chosen.",
    "confusion": "GTS-GN (layer 2) with LAM and AAU loss in the three class settings; numbers of samples.",
}


def _listed(values: Iterable[object]) -> str:
    return " or ".join(str(value) for value in sorted(set(values), key=str))


def conditions(results: Sequence[RunResult], plan: Plan) -> str:
    """In one line: data, protocol, scale, folds, epochs, seeds; "SIMULATED" first where the data are."""
    simulated = any(result.simulated for result in results)
    data = dict.fromkeys(
        f"{' + '.join(NAMES.get(name, name) for name in result.spec.databases)}, {result.spec.setting}: "
        f"{len(result.header.samples)} samples of {len(set(result.header.persons))} subjects"
        for result in results
    )
    chosen = PROTOCOLS[plan.protocol]
    if plan.protocol == "honest":
        inner = plan.validation_subjects
        chosen += f"; epoch chosen on {inner} inner subjects" if inner else ", the number of epochs is fixed"
    graphs = _listed(result.spec.epochs for result in results if not result.spec.reads_pictures)
    pictures = _listed(result.spec.epochs for result in results if result.spec.reads_pictures)
    side = _listed(result.spec.picture for result in results if result.spec.reads_pictures)
    epochs = f"{graphs} epochs" if graphs else ""
    if pictures:
        epochs += f"{', ' if epochs else ''}ResNet18 {pictures} epochs of {side}-pixel pictures"
    seeds = "seed 0" if plan.seeds == 1 else f"seeds 0 to {plan.seeds - 1}, pooled"
    folds = _listed(len(result.folds) for result in results)
    return (
        f"{'SIMULATED data. ' if simulated else ''}{'; '.join(data)}. {chosen[0].upper()}{chosen[1:]}. "
        f"Scale {plan.scale}: {folds} folds, {epochs}, {seeds}."
    )


def _of_table(table: Table, results: SweepResults, plan: Plan) -> list[RunResult]:
    return [results[spec] for row in table.rows for spec in row.specs.values()]


def table_section(table: Table, results: SweepResults, plan: Plan) -> Section:
    """One table with its differences and, for III and VIII, what else belongs to it."""
    runs = _of_table(table, results, plan)
    title = f"Table {table.number}: {table.title}" if table.number != "cross" else table.title
    name = f"table_{table.number}"
    said = conditions(runs, plan)
    if table.number == "VIII":
        (row,) = table.rows
        grids = [weights_grid(column, pooled(results, plan, spec)) for column, spec in row.specs.items()]
        return Section(name, title, said, tuple(grids))
    cells = cells_of(table, results, plan)
    simulated = {
        column: any(cell.ours.first.simulated for cell in cells if cell.ours and cell.column == column)
        for column in table.columns
    }
    grids = [accuracy_grid(table, cells, simulated)]
    differences = comparison_grid(table, cells, simulated)
    if differences is not None:
        grids.append(differences)
    if table.number == "III":
        grids.append(costs_grid())
    return Section(name, title, said, tuple(grids), cells=tuple(csv_rows(cells, plan)))


def write_tables(out: Path, plan: Plan, results: SweepResults) -> list[Section]:
    """OUT/tables/table_V.md, .csv and so on.

    Raises:
        OutputError: they cannot be written.
    """
    sections = [table_section(table, results, plan) for table in tables_of(plan)]
    for section in sections:
        write_section(section, out / "tables")
    return sections


def write_figures(out: Path, plan: Plan, results: SweepResults) -> list[Section]:
    """OUT/figures/figure_5_casme2.png, .svg and so on; Figures 8 and 9 are one for all databases.

    Raises:
        OutputError: they cannot be written.
    """
    folder, sections = out / "figures", []

    def add(number: str, database: str, figure: figures.Figure, said: str, title: str) -> None:
        name = f"figure_{number}" + (f"_{database}" if database else "")
        _, svg = figures.save(figure, folder, name)
        where = f" ({NAMES.get(database, database)})" if database else ""
        sections.append(Section(name, f"{title}{where}", said, picture=svg, text=FIGURE_TEXTS[number]))

    for number, databases in figure_specs(plan).items():
        title = "Confusion matrices" if number == "confusion" else f"Figure {number}"
        if number == "8":
            add(
                number,
                "",
                figures.figure_8("Average landmarks; no data."),
                "Average landmarks; no data.",
                title,
            )
            continue
        runs = {
            database: {name: pooled(results, plan, spec) for name, spec in specs.items()}
            for database, specs in databases.items()
        }
        if number == "9":
            said = conditions([each.first for named in runs.values() for each in named.values()], plan)
            add(number, "", figures.figure_9(runs, said), said, title)
            continue
        for database, named in runs.items():
            said = conditions([each.first for each in named.values()], plan)
            first = {name: each.first for name, each in named.items()}
            if number == "7":
                said += f" Here {TSNE_GROUPS} folds, of which the larger is shown."
                figure = figures.figure_7(first, said)
            elif number == "confusion":
                if plan.seeds > 1:
                    said += f" Each sample counts {plan.seeds} times, once a seed."
                figure = figures.figure_confusion(named, f"{title}, {NAMES.get(database, database)}", said)
            else:
                draw = figures.figure_5 if number == "5" else figures.figure_6
                figure = draw(first["LAM"], said)
            add(number, database, figure, said, title)
    return sections


def write_report(
    out: Path, plan: Plan, results: SweepResults, sections: Sequence[Section], failed: Sequence[str]
) -> Path:
    """OUT/report.html. failed: samples that could not be measured.

    Raises:
        OutputError: it cannot be written.
    """
    names = " and ".join(NAMES.get(name, name) for name in plan.databases)
    marks = []
    if results.simulated:
        marks.append(
            "Simulated: nobody performed what these samples show. The figures say whether the program works, "
            "nothing about people. The paper's figures beside them are of real recordings."
        )
    if plan.protocol == "paper":
        marks.append(f"{PROTOCOLS['paper'][0].upper()}{PROTOCOLS['paper'][1:]}.")
    if plan.scale == "quick":
        marks.append("Quick scale: a small version of every table. Publish figures of --scale full.")
    minutes = sum(result.seconds for result in results) / 60
    versions = ", ".join(f"{key} {value}" for key, value in results.results[0].header.versions.items())
    what = (
        "The tables and figures of the GTS-GN paper, ours beside the paper's. Predictions are pooled over "
        "the folds. In brackets: 95 % bootstrap interval over subjects. F1 is the macro F1 (UF1)."
    )
    how = (
        f"{len(results)} runs, {minutes:.0f} minutes of training in sum. {date.today().isoformat()}, "
        f"{platform.machine()}, {versions}."
    )
    about = [what, how]
    if failed:
        about.append(f"Left out, {len(failed)} samples: {'; '.join(failed[:20])}")
    simulated = " (simulated)" if results.simulated else ""
    page = html_page(f"GTS-GN on {names}{simulated}", marks, about, sections)
    return write_text(out / "report.html", page)
