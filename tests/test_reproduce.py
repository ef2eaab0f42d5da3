"""`python -m train reproduce` from a folder on disk to pages, small; the data are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from database_trees import manifest

from train.__main__ import main
from train.reproduce import read_plan
from train.sweep import _locked


def command(root: Path, out: Path, *more: str) -> list[str]:
    where = ["--dataset", "manifest", "--root", str(root), "--out", str(out), "--cache", str(out / "cache")]
    return ["reproduce", *where, "--tables", "X", "--figures", "8", "--workers", "1", *more]


def test_from_a_manifest_to_a_report_and_again(tmp_path, capsys):
    root, out = manifest(tmp_path / "data", subjects=6), tmp_path / "out"
    assert main(command(root, out, "--tables", "X", "cross")) == 0
    said = capsys.readouterr().out
    assert "1 tables in" in said and "no table across databases, which needs two" in said
    table = (out / "tables" / "table_X.md").read_text()
    assert "own data, objective5: 24 samples of 6 subjects. Protocol honest" in table
    assert "SIMULATED" not in table and "(simulated)" not in table
    assert "| GTS-GN + LAM + AAU | " in table
    page = (out / "report.html").read_text()
    assert "Quick scale" in page and "Simulated" not in page and 'src="data:image/svg+xml' in page
    plan, keys = read_plan(out)
    assert keys == [path.name for path in (out / "runs").iterdir()]
    assert plan.databases == ("manifest",) and not plan.pictures, "landmarks have no pictures"
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/fold_*")}
    assert len(kept) == 3
    assert main(command(root, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/fold_*")} == kept, "not trained again"
    assert main(["tables", "--out", str(out)]) == 0
    assert (out / "tables" / "table_X.md").read_text() == table


def test_pages_are_of_the_runs_that_the_last_command_asked_for(tmp_path, capsys):
    root, out = manifest(tmp_path / "data", subjects=6), tmp_path / "out"
    assert main(command(root, out)) == 0
    (sheet,) = root.glob("*.csv")
    rows = sheet.read_text().splitlines()
    sheet.write_text("\n".join(rows[:-1]) + "\n")
    assert main(command(root, out)) == 0
    assert len(list((out / "runs").iterdir())) == 2, "the run of before is there, too"
    assert main(["tables", "--out", str(out)]) == 0
    assert "23 samples of 6 subjects" in (out / "tables" / "table_X.md").read_text()
    plan = read_plan(out)
    with _locked(out):
        assert main(command(root, out, "--seeds", "2")) == 2
    assert "another command is at work" in capsys.readouterr().err
    assert read_plan(out) == plan, "a command that is refused changes nothing"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--root", "a", "b"], "1 databases, 2 folders and 0 sheets: give one --root for each"),
        (["--dataset", "manifest", "manifest", "--root", "a", "a"], "several different ones"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tables", "XII"], "no table XII; there are: III IV"),
        (["--figures", "4"], "no figure 4; there are: 5 6"),
        (["--tables", "X", "V", "XI"], "error: table V, table XI cannot be made of these data (setting obj"),
        (["--seeds", "2", "--validation-subjects", "2"], "table X cannot be made of these data (3 subjects"),
        (["--tables", "cross"], "nothing of what is asked for needs a network"),
        (["--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_done(tmp_path, capsys, more, message):
    root, out = manifest(tmp_path / "data", subjects=3), tmp_path / "out"
    assert main(command(root, out, *more)) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
