"""Retraining the engine on a database: fit, export, and what is held out. The data are drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from database_trees import manifest
from safetensors.numpy import load_file

from streamer.engine import load_engine
from streamer.errors import OutputError
from train.__main__ import main
from train.checkpoint import load_checkpoint
from train.datasets import load
from train.loop import FitConfig
from train.recorded import RecordedData, split_subjects
from train.tracker_noise import load_noise


def flags(root: Path, out: Path, *more: str) -> list[str]:
    tiny = ["--samples", "256", "--epochs", "3", "--batch", "64", "--setting", "objective"]
    where = ["--dataset", "manifest", "--root", str(root), "--out", str(out), "--classes", "I", "III"]
    return ["fit", *where, *tiny, *more]


def test_from_a_manifest_to_an_engine(tmp_path):
    root, run, engine = manifest(tmp_path / "data"), tmp_path / "run", tmp_path / "two-classes"
    assert main(flags(root, run, "--epochs", "15")) == 0
    assert main(["export", "--checkpoint", str(run), "--out", str(engine)]) == 0
    loaded = load_engine(engine)
    assert loaded.manifest.classes == ("I", "III")
    assert loaded.manifest.class_names == {"I": "happiness", "III": "anger"}
    assert loaded.manifest.training["simulated"] is False
    assert "32 samples of 8 subjects of manifest" in loaded.manifest.training["data"]
    card = (engine / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "simulated" not in card
    assert "| III (anger) | 12 | 2 | 2 |" in card and "| subjects | 6 | 1 | 1 |" in card
    metrics = json.loads((run / "metrics.json").read_text())["validation"]
    assert metrics["samples"] == 4 and metrics["subjects"] == 1
    assert metrics["accuracy"] == 1.0, "a smile and a lowered brow are told apart at once"


def test_the_setting_gives_the_names(tmp_path):
    root, run = manifest(tmp_path / "data"), tmp_path / "run"
    command = flags(root, run)
    command[command.index("--setting") + 1] = "self-report"
    place = command.index("--classes")
    command[place + 1 : place + 3] = ["happiness", "anger"]
    assert main(command) == 0
    assert load_checkpoint(run).class_names == {"happiness": "happiness", "anger": "anger"}
    assert load_checkpoint(run).classes == ("happiness", "anger")


def test_who_is_held_out_changes_nothing_that_is_learnt(tmp_path):
    """Other landmarks and labels of the held-out subjects: the same weights, bit for bit."""
    root = manifest(tmp_path / "data")
    assert main(flags(root, tmp_path / "first")) == 0
    samples = load("manifest", root).samples
    label = np.array([("I", "III").index(sample.objective or "") for sample in samples])
    fold = split_subjects([s.person for s in samples], label, ("I", "III"), 0.15, 0)
    for kind, changes in (("test", True), ("train", False)):
        for k in getattr(fold, kind).tolist():
            path = samples[k].landmarks
            assert path is not None
            points = np.load(path)["landmarks"]
            np.savez(path, landmarks=points + np.random.default_rng(k).normal(0.0, 2.0, points.shape))
        assert main(flags(root, tmp_path / kind)) == 0
        one, other = (load_file(tmp_path / run / "weights.safetensors") for run in ("first", kind))
        assert all(np.array_equal(one[name], other[name]) for name in one) is changes


def test_simulated_expressions_beside_recorded_ones(tmp_path):
    root = manifest(tmp_path / "data")
    assert main(flags(root, tmp_path / "run", "--simulated-share", "0.5")) == 0
    info = load_checkpoint(tmp_path / "run").info["data"]
    assert info["simulated"] is True and info["recorded_is_simulated"] is False
    assert "50% of each epoch simulated" in info["what"]
    config = FitConfig(
        tmp_path, "manifest", root, classes=("I", "III"), samples=200, simulated_share=0.5, cache=tmp_path
    )
    epoch = RecordedData(config, load_noise(), progress=False).epoch(0)
    assert epoch.features.shape == (200, 3, 14, 4) and epoch.units.shape[1] == 16
    assert set(epoch.label.tolist()) == {0, 1}
    # A simulated face is no recorded one: among the recorded, only so many faces occur.
    faces = {onset.numpy().tobytes() for onset in epoch.features[:100, 0]}
    assert len(faces) <= 24 < len({onset.numpy().tobytes() for onset in epoch.features[100:, 0]})
    happy = epoch.label == 0
    assert epoch.units[:, 6][happy].mean() > 0.5 > epoch.units[:, 6][~happy].float().mean()  # AU12
    assert torch.isfinite(epoch.features).all()


def test_a_simulated_tree_is_called_so(tmp_path, capsys):
    root = manifest(tmp_path / "data")
    (root / "simulated.json").write_text('{"simulated": true}')
    assert main(flags(root, tmp_path / "run")) == 0
    assert "held-out subjects' samples (SIMULATED data)" in capsys.readouterr().out
    assert main(["export", "--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "engine")]) == 0
    assert load_engine(tmp_path / "engine").manifest.training["simulated"] is True
    card = (tmp_path / "engine" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("**Trained on a simulated database") and "Measured on simulated subjects" in card


def test_some_expressions_have_no_coded_action_units(tmp_path, capsys):
    root = manifest(tmp_path / "data")
    (sheet,) = root.glob("*.csv")
    head, *rows = sheet.read_text().splitlines()
    bare = [row.rpartition(",")[0] + "," for row in rows]
    half = [row if k % 2 else other for k, (row, other) in enumerate(zip(rows, bare, strict=True))]
    sheet.write_text("\n".join([head, *half]) + "\n")
    assert main(flags(root, tmp_path / "run")) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]
    assert metrics["samples"] == 4 and metrics["action_units"]["AU4"]["positives"] == 1
    sheet.write_text("\n".join([head, *bare]) + "\n")
    assert main(flags(root, tmp_path / "none")) == 2
    assert "give --au-loss none" in capsys.readouterr().err
    assert main(flags(root, tmp_path / "none", "--au-loss", "none")) == 0


def test_one_expression_under_two_subjects_is_refused(tmp_path, capsys):
    root = manifest(tmp_path / "data", 4)
    (sheet,) = root.glob("*.csv")
    sheet.write_text(re.sub(r"s\d(-\w+-\d\.npz)", r"s0\1", sheet.read_text()))
    assert main(flags(root, tmp_path / "run")) == 2
    assert "under another name" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, capsys):
    root = manifest(tmp_path / "data")
    (tmp_path / "run" / "weights.safetensors").mkdir(parents=True)
    assert main(flags(root, tmp_path / "run")) == OutputError.exit_code
    assert "the checkpoint cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("subjects", "classes", "asked", "message"),
    [
        (2, ("I", "III"), "I III", "2 subjects: training, the temperature and measuring need"),
        (6, ("I", "III"), "I IX", "no sample has the class 'IX'"),
        (6, ("I",), "I III", "no sample has the class 'III'"),
        (6, ("I", "III"), "I", "take another setting"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path, capsys, subjects, classes, asked, message):
    root = manifest(tmp_path / "data", subjects, classes=classes)
    command = flags(root, tmp_path / "run")
    place = command.index("--classes")
    command[place + 1 : place + 3] = asked.split()
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--simulated-share", "1"], "--simulated-share must be 0 to 0.95"),
        (["--held-out", "0.5"], "--held-out above 0 and below 0.5"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--setting", "megc3", "--simulated-share", "0.5"], "setting megc3 has others"),
        (["--landmarks.node-set", "dlib68"], "an engine reads the nodes gm14"),
        (["--weight-decay", "-1"], "change --learning-rate or --weight-decay"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, capsys, more, message):
    root = manifest(tmp_path / "data", 3)
    assert main(flags(root, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_database_needs_a_root_and_its_flags_a_database(tmp_path, capsys):
    assert main(["fit", "--out", str(tmp_path), "--dataset", "casme2"]) == 2
    assert "--dataset and --root go together" in capsys.readouterr().err
    assert main(["fit", "--out", str(tmp_path), "--classes", "I", "II"]) == 2
    assert "add --dataset" in capsys.readouterr().err


def test_a_class_of_one_subject_is_trained_and_two_such_may_not_fit(tmp_path):
    persons = ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3
    label = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    for seed in range(5):
        fold = split_subjects(persons, label, ("I", "II"), 0.2, seed)
        assert "a" in {persons[k] for k in fold.train}
        parts = [{persons[k] for k in part} for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 4
    label[3:] = [2, 0, 0, 3, 0, 0, 4, 0, 0]
    with pytest.raises(
        Exception, match="no split of 4 subjects has all classes in training: II comes from 1"
    ):
        split_subjects(persons, label, ("I", "II", "III", "IV", "V"), 0.2, 0)
