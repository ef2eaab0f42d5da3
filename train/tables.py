"""The tables of the paper as what has to be trained for them: rows, and the run behind each cell.

Every cell of a table is a `RunSpec`; equal ones, in whatever tables, are one run. `train.tables_cells` makes
figures of their results, `train.tables_pages` makes pages of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from streamer.errors import UsageError
from train.folds import Protocol
from train.results import LAYERS, RunSpec
from train.scales import Scale, at_scale

TABLES: tuple[str, ...] = ("III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "cross")
"""Those of the paper, and `cross`: across databases, where two are given."""

FIGURES: tuple[str, ...] = ("5", "6", "7", "8", "9", "confusion")
"""Those of the paper, and the confusion matrices of its whole network."""

BETAS = {
    "full": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    "quick": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
}
"""Of Figure 9, by scale; the paper's are those of `full`."""

TSNE_GROUPS = 2
"""Figure 7 shows subjects that one network has not seen; with half of them held out there are enough."""


@dataclass(frozen=True)
class Plan:
    """What is reproduced, and under which conditions. JSON in the output folder."""

    databases: tuple[str, ...]
    scale: Scale = "quick"
    protocol: Protocol = "honest"
    validation_subjects: int = 0
    seeds: int = 1
    tables: tuple[str, ...] = TABLES
    figures: tuple[str, ...] = FIGURES
    magnification: Literal["none", "factor"] = "factor"
    """none: pictures were magnified before landmarks were found."""
    pictures: bool = True
    """Whether all samples have images; without them there is no ResNet18."""

    def spec(self, databases: str | Sequence[str], model: Any, **changes: Any) -> RunSpec:
        """The run of a model at this scale, seed 0."""
        names = (databases,) if isinstance(databases, str) else tuple(databases)
        spec = RunSpec(
            databases=names,
            model=model,
            protocol=self.protocol,
            validation_subjects=self.validation_subjects,
            magnification=self.magnification,
            **changes,
        )
        return at_scale(spec, self.scale)

    def seeded(self, spec: RunSpec) -> list[RunSpec]:
        """The same with every seed."""
        return [replace(spec, seed=seed) for seed in range(self.seeds)]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    name: as in `train.paper`. specs: column (a database) -> run; empty for other people's methods.
    against: name of the row that it is compared with, pairwise; empty: with none.
    """

    name: str
    specs: dict[str, RunSpec]
    against: str = ""


@dataclass(frozen=True)
class Table:
    """number: as in `TABLES`. columns: databases, or "all". notes: what differs from the paper's table."""

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


class _Builder:
    """Makes the rows of a plan's tables."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def row(self, name: str, model: str, against: str = "", **changes: Any) -> Row:
        specs = {database: self.plan.spec(database, model, **changes) for database in self.plan.databases}
        return Row(name, specs, against)

    def gts(self, name: str, layer: int, against: str = "", **changes: Any) -> Row:
        return self.row(name, "gts-gn", against, fusion_layer=layer, **changes)

    def whole(self, name: str, against: str = "", **changes: Any) -> Row:
        """The proposed method: fused after layer 2, LAM, AAU, beta 1."""
        return self.gts(name, 2, against, **{"lam": True, "au_loss": "aau", **changes})

    def table(self, number: str, title: str, rows: Sequence[Row], *notes: str) -> Table:
        return Table(number, title, self.plan.databases, tuple(rows), notes)

    def three(self) -> Table:
        pictures = (
            self.row("ResNet18 (S)", "resnet18-s", "SS-GN"),
            self.row("ResNet18 (ST)", "resnet18-st", "SS-GN"),
        )
        graphs = (self.row("GCN", "gcn", "SS-GN", type="A"), self.row("SS-GN", "ss-gn", type="A"))
        title = "ResNet18 (S), ResNet18 (ST), GCN and SS-GN"
        if not self.plan.pictures:
            return self.table(
                "III", title, graphs, "Without ResNet18: samples given as landmarks have no images."
            )
        notes = ["ResNet18 sees the pictures as they are, graphs displacements of three times their size."]
        if self.plan.magnification == "none":
            notes = ["Pictures were magnified before landmarks were found."]
        if self.plan.scale == "quick":
            notes.append("ResNet18 is trained on half of the subjects, the others on two thirds.")
        return self.table("III", title, (*pictures, *graphs), *notes)

    def four(self) -> Table:
        base = "GTS-GN (layer 1)"
        rows = (
            self.row("GCN + type A", "gcn", "SS-GN + type A", type="A"),
            self.row("SS-GN + type A", "ss-gn", type="A"),
            self.row("SS-GN + type B", "ss-gn", "SS-GN + type A", type="B"),
            self.gts(base, 1, "SS-GN + type B"),
            *(self.gts(f"GTS-GN (layer {n})", n, base) for n in range(2, LAYERS + 1)),
        )
        note = (
            "In the paper's part (a), GTS-GN + type B is that of layer 1 on CASME II and of layer 4 on SAMM."
        )
        return self.table("IV", "Node features, SS modules, and the layer of fusion", rows, note)

    def five(self) -> Table:
        rows = (
            self.gts("GTS-GN", 2),
            self.gts("GTS-GN + LAM", 2, "GTS-GN", lam=True),
            self.gts("GTS-GN + AAU", 2, "GTS-GN", au_loss="aau"),
            self.whole("GTS-GN + LAM + AAU", "GTS-GN"),
        )
        note = (
            "All our rows fuse after layer 2, as the paper's last row does; its others are of other layers "
            "(73.31 % is that of layer 1 in Table IV)."
        )
        return self.table("V", "LAM and AAU loss", rows, note)

    def six(self) -> Table:
        base = self.gts("GTS-GN", 1, lam=True)
        rows = [
            self.gts(f"AU loss {n}", 1, "GTS-GN", lam=True, au_loss="au", au_layer=n)
            for n in range(1, LAYERS + 1)
        ]
        note = "GTS-GN (layer 1) with LAM, which the paper's figures suggest; AU loss n constrains layer n."
        return self.table("VI", "AU loss at one layer", (base, *rows), note)

    def seven(self) -> Table:
        rows = []
        for layer in range(1, LAYERS + 1):
            base = f"layer {layer}, basic"
            rows.append(self.gts(base, layer, lam=True))
            rows.append(
                self.gts(f"layer {layer}, AU loss", layer, base, lam=True, au_loss="au", au_layer=layer)
            )
            if layer < LAYERS:
                rows.append(self.gts(f"layer {layer}, AAU loss", layer, base, lam=True, au_loss="aau"))
        note = (
            "With LAM. Our AU loss constrains the fusion layer; the paper seems to give its best layer. "
            "After fusion in layer 4 one layer is left, and AAU is AU."
        )
        return self.table("VII", "AU loss and AAU loss by layer of fusion", rows, note)

    def eight(self) -> Table:
        row = self.gts("GTS-GN (layer 1) + LAM + AAU", 1, lam=True, au_loss="aau")
        return self.table("VIII", "Learned weights of the AAU loss", (row,))

    def nine(self) -> Table:
        sets = {14: "gm14", 31: "dlib31", 68: "dlib68"}
        rows = [
            self.row(f"{n} points", "ss-gn", "" if n == 14 else "14 points", type="A", node_set=name)
            for n, name in sets.items()
        ]
        return self.table("IX", "Sets of landmarks", rows, "SS-GN, type A.")

    def ten(self) -> Table:
        row = self.whole("GTS-GN + LAM + AAU", setting="objective5")
        return self.table(
            "X", "Objective classes I to V", (row,), "The other methods: as the paper cites them."
        )

    def eleven(self) -> Table:
        row = self.whole("GTS-GN + LAM + AAU", setting="self-report")
        return self.table(
            "XI", "Emotions by self-report", (row,), "The other methods: as the paper cites them."
        )

    def cross(self) -> Table:
        both = self.plan.databases
        settings: dict[str, Any] = {
            "model": "gts-gn", "setting": "megc3", "fusion_layer": 2, "lam": True, "au_loss": "aau",
        }  # fmt: skip
        rows = [Row("both, each subject tested once", {"all": self.plan.spec(both, **settings)})]
        for tested in both:
            others = " and ".join(name for name in both if name != tested)
            spec = self.plan.spec(both, tested=tested, **settings)
            rows.append(Row(f"trained on {others}, tested on {tested}", {"all": spec}))
        note = "GTS-GN (layer 2) + LAM + AAU; negative, positive, surprise (MEGC). Not in the paper."
        return Table("cross", "Across databases, three classes", ("all",), tuple(rows), (note,))


def tables_of(plan: Plan) -> list[Table]:
    """The tables of a plan, in order.

    Raises:
        UsageError: one is unknown, or needs two databases.
    """
    unknown = [name for name in plan.tables if name not in TABLES]
    if unknown:
        raise UsageError(f"no table {', '.join(unknown)}; there are: {' '.join(TABLES)}")
    builder = _Builder(plan)
    makers = (
        builder.three, builder.four, builder.five, builder.six, builder.seven, builder.eight, builder.nine,
        builder.ten, builder.eleven, builder.cross,
    )  # fmt: skip
    wanted = [name for name in TABLES if name in plan.tables]
    if len(plan.databases) < 2 and "cross" in wanted:
        wanted.remove("cross")
    made = dict(zip(TABLES, makers, strict=True))
    return [made[name]() for name in wanted]


def figure_specs(plan: Plan) -> dict[str, dict[str, dict[str, RunSpec]]]:
    """Figure -> database -> name -> the runs that it is drawn of; Figure 8 needs none.

    Raises:
        UsageError: a figure is unknown.
    """
    unknown = [name for name in plan.figures if name not in FIGURES]
    if unknown:
        raise UsageError(f"no figure {', '.join(unknown)}; there are: {' '.join(FIGURES)}")
    builder = _Builder(plan)

    def lam(**changes: Any) -> dict[str, RunSpec]:
        return builder.gts("", 1, lam=True, **changes).specs

    whole = {
        "objective": builder.whole(""),
        "objective5": builder.whole("", setting="objective5"),
        "self-report": builder.whole("", setting="self-report"),
    }
    named: dict[str, dict[str, dict[str, RunSpec]]] = {
        "5": {"LAM": lam(au_loss="aau")},
        "6": {"LAM": lam(au_loss="aau")},
        "7": {"without AAU": lam(groups=TSNE_GROUPS), "with AAU": lam(groups=TSNE_GROUPS, au_loss="aau")},
        "8": {},
        "9": {f"beta {beta:g}": builder.whole("", beta=beta).specs for beta in BETAS[plan.scale]},
        "confusion": {name: row.specs for name, row in whole.items()},
    }
    return {
        figure: {
            database: {name: specs[database] for name, specs in named[figure].items()}
            for database in plan.databases
        }
        for figure in FIGURES
        if figure in plan.figures
    }


def runs_of(plan: Plan) -> list[RunSpec]:
    """All runs of a plan, each once, in the order of the tables and figures, with every seed."""
    tables = [spec for table in tables_of(plan) for row in table.rows for spec in row.specs.values()]
    figures = [
        spec
        for databases in figure_specs(plan).values()
        for specs in databases.values()
        for spec in specs.values()
    ]
    return [seeded for spec in dict.fromkeys((*tables, *figures)) for seeded in plan.seeded(spec)]
