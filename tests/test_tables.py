"""Tables and figures: what they train, what a cell says, and the pages that are written."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from run_results import EACH, PEOPLE, drawn_results, drawn_run, write_results

from streamer.errors import UsageError
from train.__main__ import main
from train.figures import embedded, neighbours_alike
from train.figures_face import strongest_edges
from train.paper import PAPER
from train.report import html_page, markdown_grid
from train.reproduce import PLAN_FILE
from train.reproduce_pages import conditions, table_section, write_figures
from train.results import SweepResults
from train.tables import FIGURES, TABLES, Plan, runs_of, tables_of
from train.tables_cells import Grid, Pooled, cells_of, csv_rows, pooled
from train.tables_costs import seconds_a_sample

ONE, BOTH = Plan(("casme2",)), Plan(("casme2", "samm"))


def test_rows_are_those_of_the_paper():
    for table in tables_of(BOTH):
        if table.number in PAPER:
            printed = set(PAPER[table.number])
            own = {row.name for row in table.rows}
            assert own <= printed, table.number
            assert own == printed or table.number in ("X", "XI")
        names = {row.name for row in table.rows}
        assert all(row.against in names for row in table.rows if row.against), table.number


def test_every_run_is_trained_once():
    runs = runs_of(ONE)
    assert len(set(runs)) == len(runs)
    cells = [spec for table in tables_of(ONE) for row in table.rows for spec in row.specs.values()]
    assert len(cells) > len(set(cells)), "tables share runs"
    assert set(cells) <= set(runs)
    assert {spec.seed for spec in runs_of(replace(ONE, seeds=3))} == {0, 1, 2}
    assert len(runs_of(replace(ONE, seeds=3))) == 3 * len(runs)


def test_scales_and_protocols_reach_every_run():
    quick, full = runs_of(ONE), runs_of(replace(ONE, scale="full", protocol="paper"))
    assert all(spec.groups for spec in quick)
    assert {spec.groups for spec in full} == {0, 2}, "2: the halves of Figure 7"
    assert {spec.protocol for spec in full} == {"paper"}
    assert {spec.picture for spec in full if spec.reads_pictures} == {224}
    assert sum(spec.au_loss == "aau" and spec.fusion_layer == 2 for spec in full) > 10, "beta 0.1 to 1"


def test_across_databases_needs_two():
    assert "cross" not in {table.number for table in tables_of(ONE)}
    cross = next(table for table in tables_of(BOTH) if table.number == "cross")
    assert [row.specs["all"].tested for row in cross.rows] == ["", "casme2", "samm"]
    with pytest.raises(UsageError, match="no table XII; there are: III"):
        tables_of(replace(ONE, tables=("XII",)))
    with pytest.raises(UsageError, match="no figure 12"):
        runs_of(replace(ONE, figures=("12",)))


def test_without_pictures_there_is_no_resnet():
    specs = runs_of(replace(ONE, pictures=False))
    assert specs and not any(spec.reads_pictures for spec in specs)


def test_a_cell_says_ours_the_papers_and_the_difference():
    results = drawn_results(ONE)
    table = next(t for t in tables_of(ONE) if t.number == "V")
    first, *_, last = cells_of(table, results, ONE)
    assert first.ours is not None and first.paper == (73.31, 0.717)
    truth = first.ours.truth
    accuracy = (first.ours.predicted == truth).mean()
    assert accuracy == pytest.approx(27 / 36)  # 7 of each ten, and 6 of 6
    assert first.difference("accuracy") == pytest.approx(100 * accuracy - 73.31)
    assert first.difference("uar") is None
    assert last.comparison is not None
    assert last.comparison["accuracy"].difference == pytest.approx(30 / 36 - 27 / 36)
    interval = last.ours.intervals["accuracy"] if last.ours else None
    assert interval is not None and interval.low <= 30 / 36 <= interval.high


def test_seeds_are_pooled_and_do_not_count_as_persons():
    plan = replace(ONE, seeds=2)
    spec = next(spec for spec in runs_of(plan) if spec.lam and spec.seed == 0)
    results = drawn_results(plan)
    both = pooled(results, plan, spec)
    assert len(both.truth) == 2 * PEOPLE * EACH and both.subjects == PEOPLE
    one = Pooled((results[spec],))
    assert both.metrics.accuracy == pytest.approx(one.metrics.accuracy)
    assert both.intervals["accuracy"].low == pytest.approx(one.intervals["accuracy"].low, abs=0.02)


def test_other_samples_are_not_compared():
    spec = runs_of(ONE)[-1]
    one, other = drawn_run(spec), drawn_run(replace(spec, setting="objective5"))
    with pytest.raises(ValueError, match="different samples"):
        Pooled((one,)).compared_with(Pooled((other,)))


def test_rows_are_compared_on_the_samples_that_both_have():
    spec = runs_of(ONE)[-1]
    whole, worse = drawn_run(spec), drawn_run(spec, right=0.5)
    lost = set(whole.folds[0].test[:2].tolist())  # say, of 68 points only some were seen in two samples
    left = [k for k in range(len(whole.header.samples)) if k not in lost]
    header = replace(
        whole.header,
        samples=tuple(whole.header.samples[k] for k in left),
        persons=tuple(whole.header.persons[k] for k in left),
        label=whole.header.label[left],
    )
    fewer = replace(whole, header=header, tested=np.arange(len(left)), scores=whole.scores[left])
    found = Pooled((fewer,)).compared_with(Pooled((worse,)))["accuracy"].difference
    right = [(run.predicted == run.truth)[left].mean() for run in (whole, worse)]
    assert found == pytest.approx(right[0] - right[1]) and found > 0


def test_methods_of_others_stand_beside_their_databases_alone():
    for database, beside in (("samm", 4), ("casme2", 5), ("manifest", 0)):
        plan = replace(Plan((database,)), tables=("X",), figures=())
        (table,) = tables_of(plan)
        assert len(cells_of(table, drawn_results(plan), plan)) == beside + 1


def test_a_subjects_name_stays_in_its_cell():
    rows = (("a|b\n<script>", "1"),)
    text = markdown_grid(Grid("t", (("", ("subject",)), ("", ("x",))), rows), "t")
    assert text.splitlines()[-1] == "| a\\|b &lt;script&gt; | 1 |"


def test_conditions_say_all_that_a_reader_must_know():
    spec = runs_of(ONE)[3]
    quick = conditions([drawn_run(spec)], ONE)
    assert quick.startswith("SIMULATED data. CASME II, objective: 36 samples of 6 subjects. Protocol honest")
    assert f"Scale quick: 3 folds, {spec.epochs} epochs, seed 0" in quick
    plan = replace(ONE, scale="full", protocol="paper", seeds=3)
    runs = runs_of(plan)
    said = conditions([drawn_run(runs[0], simulated=False), drawn_run(runs[9], simulated=False)], plan)
    assert "SIMULATED" not in said and "which flatters" in said
    assert "seeds 0 to 2, pooled" in said and "224-pixel pictures" in said
    inner = conditions([drawn_run(runs_of(ONE)[3])], replace(ONE, validation_subjects=4))
    assert "epoch chosen on 4 inner subjects" in inner


def test_csv_holds_unrounded_figures():
    results = drawn_results(ONE)
    table = next(t for t in tables_of(ONE) if t.number == "X")
    lines = csv_rows(cells_of(table, results, ONE), ONE)
    ours = [line for line in lines if line[1] == "GTS-GN + LAM + AAU"]
    assert len(ours) == 3 and ours[0][4] == "accuracy"
    assert ours[0][8] == pytest.approx(0.8721) and ours[0][5] == pytest.approx(30 / 36)
    assert len(lines) == 3 + 2 * 5, "accuracy and F1 of five other methods"


def test_what_people_perform_is_not_called_simulated():
    results = drawn_results(ONE, simulated=False)
    for table in tables_of(ONE):
        section = table_section(table, results, ONE)
        assert "imulated" not in section.conditions + str(section.grids)
        marked = table_section(table, drawn_results(ONE), ONE)
        assert "SIMULATED" in marked.conditions and "(simulated)" in str(marked.grids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An output folder with all runs of two databases, and its pages."""
    out = tmp_path_factory.mktemp("out")
    results = drawn_results(BOTH)
    write_results(results, out)
    keys = [result.header.key for result in results]
    (out / PLAN_FILE).write_text(json.dumps(asdict(BOTH) | {"runs": keys}))
    assert main(["tables", "--out", str(out)]) == 0
    assert main(["figures", "--out", str(out)]) == 0
    return out


def test_every_table_is_written(folder):
    for number in TABLES:
        text = (folder / "tables" / f"table_{number}.md").read_text()
        assert "SIMULATED" in text and "Protocol honest" in text
        if number != "VIII":
            rows = list(csv.DictReader((folder / "tables" / f"table_{number}.csv").read_text().splitlines()))
            assert {row["figure"] for row in rows} >= {"accuracy", "macro_f1"}
    eight = (folder / "tables" / "table_VIII.md").read_text()
    assert "| mean | 0.4000 | 0.3000 | 0.2000 | 0.1000 | 0.6329 | 0.3172 | 0.0029 | 0.0464 |" in eight
    assert "163,262 | 163,710 | -0.3 %" in (folder / "tables" / "table_III.md").read_text()


def test_every_figure_is_written(folder):
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    by_database = {f"figure_{n}_{d}" for n in ("5", "6", "7", "confusion") for d in BOTH.databases}
    assert names == by_database | {"figure_8", "figure_9"} and set(FIGURES) >= {"8", "9"}
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5, f"{name} shows something"
        assert (folder / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")


def test_seeds_that_are_pooled_are_said_beside_the_counts(tmp_path):
    plan = Plan(("casme2",), tables=(), figures=("confusion",), seeds=2)
    (section,) = write_figures(tmp_path, plan, drawn_results(plan))
    assert "Each sample counts 2 times, once a seed." in section.conditions


def test_a_folder_without_runs_is_one_clear_line(tmp_path, capsys):
    assert main(["tables", "--out", str(tmp_path)]) == 2
    assert "run `python -m train reproduce` first" in capsys.readouterr().err
    keys = ["lost"] * len(runs_of(ONE))
    (tmp_path / PLAN_FILE).write_text(json.dumps(asdict(ONE) | {"runs": keys}))
    assert main(["figures", "--out", str(tmp_path)]) == 2
    assert "train it" in capsys.readouterr().err
    for damage in ({"runs": keys[1:]}, {"scale": "huge"}, {"seeds": "many"}):
        (tmp_path / PLAN_FILE).write_text(json.dumps(asdict(ONE) | {"runs": keys} | damage))
        assert main(["figures", "--out", str(tmp_path)]) == 2
        assert "run `python -m train reproduce` first" in capsys.readouterr().err


def test_the_page_loads_nothing_and_escapes(folder):
    results = drawn_results(ONE)
    section = table_section(tables_of(ONE)[2], results, ONE)
    hostile = replace(section, title="<script>alert(1)</script>", picture=folder / "figures" / "figure_8.svg")
    page = html_page("GTS-GN", ["mark"], ["about"], [hostile])
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page and 'src="data:image/svg+xml;base64,' in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_edges_and_neighbours():
    matrix = np.zeros((4, 4))
    matrix[2, 0], matrix[1, 3], matrix[3, 3] = 3.0, 2.0, 9.0
    assert strongest_edges(matrix, 2) == [(0, 2, 3.0), (1, 3, 2.0)]
    points = np.array([[0.0, 0], [0, 1], [9, 0], [9, 1]])
    assert neighbours_alike(points, np.array([0, 0, 1, 1]), 1) == 1.0
    assert neighbours_alike(points, np.array([0, 1, 0, 1]), 1) == 0.0
    assert neighbours_alike(points[:2], np.array([0, 1])) == 0.0, "nobody is a neighbour of oneself"
    assert np.isnan(neighbours_alike(points[:1], np.array([0])))


@pytest.mark.parametrize("features", [np.ones((1, 8)), np.eye(2), np.ones((6, 8))])
def test_too_little_to_embed(features):
    assert not embedded(features).any()


def test_calls_take_turns():
    order: list[str] = []
    seconds_a_sample({"a": lambda: order.append("a"), "b": lambda: order.append("b")})
    runs = [order[0]] + [now for before, now in itertools.pairwise(order) if now != before]
    assert len(runs) > 20 and runs[:4] == ["a", "b", "a", "b"]


def test_results_of_another_plan_are_missing():
    results = drawn_results(ONE)
    with pytest.raises(KeyError):
        SweepResults(results.out, results.results[:3])[runs_of(ONE)[-1]]
