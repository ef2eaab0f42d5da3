"""python -m train reproduce: the paper's tables and figures from a database on disk, by one command.

    python -m train reproduce --dataset casme2 --root /data/CASME2 --out out/casme2 --scale quick

Landmarks are measured (and kept), every run that a table or figure needs is trained (and kept), and pages are
written. What is there already is not done again: an interrupted command goes on where it stopped, and
`python -m train tables` and `figures` write those of an output folder anew without reading the database; the
report is written anew by the first command, which trains nothing that is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from streamer.errors import UsageError
from train.datasets import Sample, load
from train.datasets.check import DatabaseName
from train.folds import Protocol
from train.landmarks import LandmarkConfig
from train.loso import ExecutorConfig, ExecutorFlags, open_executor
from train.report import write_text
from train.reproduce_pages import write_figures, write_report, write_tables
from train.results import RunSpec, SweepResults, load_run
from train.scales import Scale
from train.sweep import check_samples, run_sweep
from train.sweep_data import Source, SweepData
from train.tables import FIGURES, TABLES, Plan, figure_specs, runs_of, tables_of

PLAN_FILE = "reproduction.json"


@dataclass(frozen=True)
class ReproduceConfig:
    """Train and write the paper's tables and figures on your copy of a database."""

    dataset: tuple[DatabaseName, ...]
    """Which database, or two of them side by side; manifest: a CSV file of your own."""
    root: tuple[Path, ...]
    """Folder that each was unpacked into, in the same order."""
    out: Path
    """Folder for everything that comes of it."""
    sheet: tuple[Path, ...] = ()
    """Their annotations, if they do not lie there."""
    scale: Scale = "quick"
    """quick: a small version of every table, in minutes. full: each subject left out once, in hours."""
    protocol: Protocol = "honest"
    """honest: nothing is chosen on the test subject. paper: the best epoch is, which flatters; every page
    says so."""
    validation_subjects: int = 0
    """honest: choose the epoch on so many inner subjects of each fold; 0 = a fixed number of epochs."""
    seeds: int = 1
    """Runs of each network, with other weights and orders, pooled."""
    tables: tuple[str, ...] = TABLES
    """Which tables: III to XI, and cross (two databases)."""
    figures: tuple[str, ...] = FIGURES
    """Which figures: 5 to 9, and confusion."""
    cache: Path = Path("out/landmarks")
    """Folder that measured landmarks are kept in."""
    run: ExecutorFlags = field(default_factory=ExecutorConfig)
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)
    """How nodes are found; the node set is each run's own."""


@dataclass(frozen=True)
class TablesConfig:
    """Write the tables of an output folder anew from what was trained there; nothing is trained."""

    out: Path
    """Folder that `python -m train reproduce` wrote."""


@dataclass(frozen=True)
class FiguresConfig:
    """Write the figures of an output folder anew from what was trained there; nothing is trained."""

    out: Path
    """Folder that `python -m train reproduce` wrote."""


def _plan(config: ReproduceConfig, samples: Sequence[Sample]) -> Plan:
    return Plan(
        databases=tuple(config.dataset),
        scale=config.scale,
        protocol=config.protocol,
        validation_subjects=config.validation_subjects,
        seeds=config.seeds,
        tables=config.tables,
        figures=config.figures,
        magnification="factor" if config.landmarks.magnifier is None else "none",
        pictures=all(sample.frames is not None for sample in samples),
    )


def _check_plan(plan: Plan, samples: Sequence[Sample]) -> None:
    """What the sheets alone can tell is said before anything is measured.

    Raises:
        UsageError: a table or figure cannot be made of these samples.
    """
    users: dict[RunSpec, list[str]] = {}
    for table in tables_of(plan):
        for row in table.rows:
            for spec in row.specs.values():
                users.setdefault(spec, []).append(f"table {table.number}")
    for figure, databases in figure_specs(plan).items():
        for specs in databases.values():
            for spec in specs.values():
                users.setdefault(spec, []).append(f"figure {figure}")
    reasons, names = [], []
    for spec, wanted in users.items():
        try:
            check_samples(spec, [sample for sample in samples if sample.database in spec.databases])
        except UsageError as error:
            reasons.append(str(error))
            names += wanted
    if reasons:
        raise UsageError(
            f"{', '.join(dict.fromkeys(names))} cannot be made of these data ({reasons[0]}): leave them out, "
            f"see --tables and --figures"
        )


def _sources(config: ReproduceConfig) -> list[Source]:
    """Raises: UsageError."""
    names, roots = config.dataset, config.root
    if len(names) != len(roots) or (config.sheet and len(config.sheet) != len(names)):
        raise UsageError(
            f"{len(names)} databases, {len(roots)} folders and {len(config.sheet)} sheets: give one --root "
            f"for each --dataset, and no --sheet or one for each"
        )
    if not names or len(set(names)) < len(names):
        raise UsageError("--dataset: name one database or several different ones")
    if config.seeds < 1:
        raise UsageError("--seeds must be at least 1")
    sheets = config.sheet or (None,) * len(names)
    return [Source(*each) for each in zip(names, roots, sheets, strict=True)]


def reproduce(config: ReproduceConfig, progress: bool = True) -> str:
    """Measure, train and write; returns a few lines for the user.

    Raises:
        UsageError: flags that do not fit together. Others as `train.sweep.run_sweep`.
    """
    sources = _sources(config)
    samples = [s for source in sources for s in load(source.database, source.root, source.sheet).samples]
    plan = _plan(config, samples)
    runs = runs_of(plan)  # what is asked for wrongly is said before hours are spent
    if not runs:
        raise UsageError(
            "nothing of what is asked for needs a network: name another table or figure (Figure 8 shows no "
            "results, and the table cross needs two databases)"
        )
    _check_plan(plan, samples)
    executor = open_executor(config.run)
    data = SweepData(sources, config.landmarks, config.cache, config.run.workers, progress)
    data.measure(runs)
    results = run_sweep(runs, data, config.out, executor, progress)
    kept = asdict(plan) | {"runs": [result.header.key for result in results]}
    write_text(config.out / PLAN_FILE, json.dumps(kept, indent=1) + "\n")
    return _pages(config.out, plan, results, "all", tuple(data.failed))


def read_plan(out: Path) -> tuple[Plan, list[str]]:
    """The plan of an output folder, and the names of its runs, in order.

    Raises:
        UsageError: there is none.
    """
    try:
        values = json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))
        keys = values.pop("runs")
        lists = ("databases", "tables", "figures")
        plan = Plan(**(values | {name: tuple(values[name]) for name in lists}))
        if len(keys) != len(runs_of(plan)):
            raise ValueError("it names other runs than its tables and figures have")
        return plan, keys
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{out}: no {PLAN_FILE} that can be read ({error}): run `python -m train reproduce` first"
        ) from error


def pages(config: TablesConfig | FiguresConfig) -> str:
    """Tables or figures from the runs that are in the folder; nothing is trained.

    Raises:
        UsageError: no plan, or a run is missing.
    """
    plan, keys = read_plan(config.out)
    what = "tables" if isinstance(config, TablesConfig) else "figures"
    runs = zip(runs_of(plan), keys, strict=True)
    results = tuple(load_run(config.out, spec, key) for spec, key in runs)
    return _pages(config.out, plan, SweepResults(config.out, results), what, ())


def _pages(out: Path, plan: Plan, results: SweepResults, what: str, failed: tuple[str, ...]) -> str:
    tables = write_tables(out, plan, results) if what != "figures" else []
    figures = write_figures(out, plan, results) if what != "tables" else []
    lines = []
    if tables:
        lines.append(f"{len(tables)} tables in {out / 'tables'}")
    if figures:
        lines.append(f"{len(figures)} figures in {out / 'figures'}")
    if what != "figures" and "cross" in plan.tables and len(plan.databases) < 2:
        lines.append("no table across databases, which needs two")
    if what == "all":
        lines.append(f"all of it on one page: {write_report(out, plan, results, tables + figures, failed)}")
    simulated = "SIMULATED data: " if results.simulated else ""
    return simulated + "; ".join(lines)
