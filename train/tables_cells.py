"""What the results say, cell by cell: ours with its interval, the paper's, the difference, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from train.metrics import (
    ClassMetrics,
    Comparison,
    Interval,
    bootstrap_intervals,
    class_metrics,
    compare_models,
)
from train.paper import PAPER, Figures
from train.results import RunResult, RunSpec, SweepResults
from train.tables import Plan, Row, Table


@dataclass(frozen=True, eq=False)
class Pooled:
    """Results of one run with one or more seeds, their predictions pooled over folds and seeds.

    Intervals draw persons, each with the predictions of all seeds, so a seed does not count as a person.
    """

    results: tuple[RunResult, ...]

    @property
    def first(self) -> RunResult:
        return self.results[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.first.classes

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """(seeds x tested samples,) class indices."""
        return np.concatenate([result.truth for result in self.results])

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(seeds x tested samples,) class indices."""
        return np.concatenate([result.predicted for result in self.results])

    @cached_property
    def persons(self) -> tuple[str, ...]:
        """Whose sample each is."""
        return tuple(person for result in self.results for person in result.persons)

    @cached_property
    def samples(self) -> tuple[tuple[int, str], ...]:
        """(number of the seed, name of the sample) of each."""
        return tuple(
            (number, result.header.samples[k])
            for number, result in enumerate(self.results)
            for k in result.tested.tolist()
        )

    @property
    def subjects(self) -> int:
        """How many were tested."""
        return len(set(self.first.persons))

    @cached_property
    def metrics(self) -> ClassMetrics:
        """Pooled over everything."""
        return class_metrics(self.truth, self.predicted, len(self.classes))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % bootstrap intervals over subjects of accuracy, macro_f1 and uar."""
        return bootstrap_intervals(self.persons, self.truth, self.predicted, len(self.classes))

    def compared_with(self, other: Pooled) -> dict[str, Comparison]:
        """This minus `other`, paired by subject, on the samples that both have: with 68 points a face is
        lost in which 14 are still seen.

        Raises:
            ValueError: they have no samples in common, or name them otherwise.
        """
        places = {sample: k for k, sample in enumerate(other.samples)}
        own = np.array([k for k, sample in enumerate(self.samples) if sample in places], np.int64)
        theirs = np.array([places[self.samples[k]] for k in own], np.int64)
        same = self.classes == other.classes and np.array_equal(self.truth[own], other.truth[theirs])
        if not same or not len(own):
            raise ValueError(f"{self.first.spec.name} and {other.first.spec.name}: different samples")
        persons = [self.persons[k] for k in own]
        return compare_models(
            persons, self.truth[own], other.predicted[theirs], self.predicted[own], len(self.classes)
        )


def pooled(results: SweepResults, plan: Plan, spec: RunSpec) -> Pooled:
    """The results of a run with all seeds of the plan."""
    return Pooled(tuple(results[seeded] for seeded in plan.seeded(spec)))


@dataclass(frozen=True, eq=False)
class Cell:
    """One row of a table in one column.

    ours: None for other people's methods. paper: None where it says nothing (our own tables, other
    databases). comparison: with the row's `against`, where there is one.
    """

    table: Table
    row: Row
    column: str
    ours: Pooled | None
    paper: Figures | None
    comparison: dict[str, Comparison] | None

    def difference(self, figure: str) -> float | None:
        """Ours minus the paper's: percent points of accuracy, or macro F1."""
        theirs = self.paper and (self.paper.accuracy if figure == "accuracy" else self.paper.f1)
        if self.ours is None or theirs is None or figure == "uar":
            return None
        scale = 100.0 if figure == "accuracy" else 1.0
        return scale * self.ours.intervals[figure].value - theirs


def cells_of(table: Table, results: SweepResults, plan: Plan) -> list[Cell]:
    """All cells, row by row; the paper's other methods (Tables X, XI) come first."""
    printed = PAPER.get(table.number, {})
    own = {row.name for row in table.rows}
    cited = [
        Row(name, {})
        for name, figures in printed.items()
        if table.number in ("X", "XI")
        and name not in own
        and any(any(figures.get(column, ())) for column in table.columns)
    ]
    by_name: dict[tuple[str, str], Pooled] = {
        (row.name, column): pooled(results, plan, spec)
        for row in table.rows
        for column, spec in row.specs.items()
    }
    cells = []
    for row in (*cited, *table.rows):
        for column in table.columns:
            ours = by_name.get((row.name, column))
            base = by_name.get((row.against, column))
            if ours is not None and base is not None and ours.classes != base.classes:
                base = None  # with samples lost, a class can have become too rare
            cells.append(
                Cell(
                    table,
                    row,
                    column,
                    ours,
                    printed.get(row.name, {}).get(column),
                    ours.compared_with(base) if ours is not None and base is not None else None,
                )
            )
    return cells


@dataclass(frozen=True)
class Grid:
    """A table as text, whatever page it is put on.

    header: groups of columns as (title, columns' names); the first group is the rows' names.
    """

    title: str
    header: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


NAMES = {
    "casme2": "CASME II",
    "samm": "SAMM",
    "casme3": "CAS(ME)3 A",
    "mmew": "MMEW",
    "fourdme": "4DME",
    "smic": "SMIC",
    "manifest": "own data",
    "all": "both databases",
}
"""How a column is called on a page."""


def interval_text(interval: Interval, percent: bool) -> str:
    """Such as "72.9 [65.1, 79.8]" or "0.716 [0.640, 0.783]"."""
    if percent:
        return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def accuracy_grid(table: Table, cells: Sequence[Cell], simulated: dict[str, bool]) -> Grid:
    """Accuracy and macro F1 of every row, ours, the paper's and the difference. simulated: by column."""
    has_paper = any(cell.paper for cell in cells)
    figures = ("ACC %", "paper", "diff.", "F1", "paper", "diff.") if has_paper else ("ACC %", "F1", "UAR")
    header: list[tuple[str, tuple[str, ...]]] = [("", ("",))]
    for column in table.columns:
        mark = " (simulated)" if simulated[column] else ""
        header.append((f"{NAMES.get(column, column)}{mark}", figures))
    rows: dict[str, list[str]] = {}
    for cell in cells:
        line = rows.setdefault(cell.row.name, [cell.row.name])
        for figure in ("accuracy", "macro_f1") if has_paper else ("accuracy", "macro_f1", "uar"):
            percent = figure == "accuracy"
            line.append("" if cell.ours is None else interval_text(cell.ours.intervals[figure], percent))
            if has_paper:
                theirs = cell.paper and (cell.paper.accuracy if percent else cell.paper.f1)
                off = cell.difference(figure)
                line.append("" if theirs is None else f"{theirs:.2f}" if percent else f"{theirs:.3f}")
                line.append("" if off is None else f"{off:+.1f}" if percent else f"{off:+.3f}")
    title = f"Table {table.number}: {table.title}" if table.number != "cross" else table.title
    return Grid(title, tuple(header), tuple(tuple(line) for line in rows.values()), table.notes)


def comparison_grid(table: Table, cells: Sequence[Cell], simulated: dict[str, bool]) -> Grid | None:
    """Row against row; None where the table compares nothing."""
    compared = [cell for cell in cells if cell.comparison is not None]
    if not compared:
        return None
    header: list[tuple[str, tuple[str, ...]]] = [("", ("", "against"))]
    for column in table.columns:
        mark = " (simulated)" if simulated[column] else ""
        header.append((f"{NAMES.get(column, column)}{mark}", ("ACC points", "p", "F1", "p")))
    rows: dict[str, list[str]] = {}
    for cell in compared:
        assert cell.comparison is not None
        line = rows.setdefault(cell.row.name, [cell.row.name, cell.row.against])
        for figure in ("accuracy", "macro_f1"):
            found, scale = cell.comparison[figure], 100.0 if figure == "accuracy" else 1.0
            digits = 1 if figure == "accuracy" else 3
            low, high = scale * found.low, scale * found.high
            line.append(f"{scale * found.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]")
            line.append(f"{found.p:.3f}")
    note = (
        "Row minus the row it stands against, on the samples that both have; 95 % bootstrap interval and "
        "randomisation test, both over subjects. p is not corrected for the number of tests."
    )
    lines = tuple(tuple(line) for line in rows.values())
    return Grid(f"Table {table.number}: paired differences", tuple(header), lines, (note,))


CSV_HEADER = (
    "table", "row", "database", "simulated", "figure", "value", "low", "high", "paper", "difference",
    "against", "paired_difference", "paired_low", "paired_high", "paired_p", "samples", "subjects", "folds",
    "seeds", "scale", "protocol", "run",
)  # fmt: skip


def csv_rows(cells: Sequence[Cell], plan: Plan) -> list[list[object]]:
    """One line a cell and figure, values unrounded; see `CSV_HEADER`."""
    lines: list[list[object]] = []
    for cell in cells:
        for figure in ("accuracy", "macro_f1", "uar"):
            paper = None
            if cell.paper is not None and figure != "uar":
                accuracy = cell.paper.accuracy
                paper = (
                    (accuracy / 100 if accuracy is not None else None)
                    if figure == "accuracy"
                    else cell.paper.f1
                )
            if cell.ours is None:
                if paper is not None:
                    lines.append(
                        [cell.table.number, cell.row.name, cell.column, "", figure, *[""] * 3, paper]
                    )
                continue
            found, first = cell.ours.intervals[figure], cell.ours.first
            paired: list[object] = ["", "", "", "", ""]
            if cell.comparison is not None:
                other = cell.comparison[figure]
                paired = [cell.row.against, other.difference, other.low, other.high, other.p]
            lines.append(
                [
                    cell.table.number, cell.row.name, cell.column, first.simulated, figure,
                    found.value, found.low, found.high,
                    "" if paper is None else paper, "" if paper is None else found.value - paper,
                    *paired, len(first.tested), cell.ours.subjects, len(first.folds), len(cell.ours.results),
                    plan.scale, plan.protocol, first.header.key,
                ]
            )  # fmt: skip
    return [line + [""] * (len(CSV_HEADER) - len(line)) for line in lines]
