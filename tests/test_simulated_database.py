"""A simulated database has the original's form, says what it is, and goes on after an interruption."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.sources.images import numbered_images
from train.__main__ import main
from train.datasets import Sample, load
from train.datasets.action_units import objective_class, parse_action_units
from train.simulated_database import SimulateDatabaseConfig, simulate_database
from train.simulated_plan import LIKES, plan

PEAK = (0.006, 0.025)


@pytest.mark.parametrize("like", ["casme2", "samm"])
def test_counts_are_the_originals(like: str):
    form, performances = LIKES[like], plan(like, 0, PEAK)
    assert len(performances) == {"casme2": 255, "samm": 159}[like]
    assert len({p.subject for p in performances}) == {"casme2": 26, "samm": 32}[like]
    assert Counter(p.objective for p in performances) == form.objective
    assert Counter(p.emotion for p in performances) == form.emotions
    assert sum(not p.apex_given for p in performances) == form.missing_apexes
    assert len({p.folder for p in performances}) == len(performances)
    for p in performances:
        assert p.onset < p.apex < p.offset and PEAK[0] <= p.peak <= PEAK[1]
        assert objective_class(parse_action_units("+".join(p.activation)).numbers) == p.objective


def test_a_plan_is_a_function_of_its_seed():
    assert plan("samm", 3, PEAK) == plan("samm", 3, PEAK) != plan("samm", 4, PEAK)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAMM, four clips, key frames alone."""
    out = tmp_path_factory.mktemp("simulated") / "samm"
    simulate_database(config(out))
    return out


def config(out: Path, **changes: object) -> SimulateDatabaseConfig:
    settings: dict[str, object] = {"like": "samm", "key_frames_only": True, "clips": 4, "workers": 1}
    return SimulateDatabaseConfig(out, **(settings | changes))  # pyright: ignore[reportArgumentType]


def test_the_tree_loads_as_the_original(tree: Path):
    database = load("samm", tree)
    assert database.simulated and len(database.samples) == 4
    assert not database.missing and not database.repaired
    expected = plan("samm", 0, PEAK)[:4]
    for sample, performance in zip(database.samples, expected, strict=True):
        assert (sample.subject, sample.clip) == (performance.subject, performance.clip)
        assert (sample.onset, sample.offset) == (performance.onset, performance.offset)
        assert sample.objective == performance.objective and sample.simulated
        assert set(sample.units) == set(performance.activation)
    sample = database.samples[0]
    assert sample.paths is not None and sample.paths[0].name == f"006_{sample.onset:05d}.jpg"
    image = cv2.imread(str(sample.paths[0]), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.shape == (400, 480), "grey, as SAMM is"


def test_it_says_that_it_is_simulated(tree: Path):
    assert "nobody performed" in (tree / "README.md").read_text(encoding="utf-8")
    mark = json.loads((tree / "simulated.json").read_text(encoding="utf-8"))
    assert mark["simulated"] is True and len(mark["truth"]) == 4
    from python_calamine import CalamineWorkbook

    sheets = CalamineWorkbook.from_path(str(tree / "SAMM_Micro_FACS_Codes_v2.xlsx"))
    assert "SIMULATED" in str(sheets.get_sheet_by_index(0).to_python()[0][0])
    assert sheets.sheet_names == ["Sheet1", "simulated"]


def test_only_what_is_missing_is_rendered_again(tree: Path):
    folders = sorted(path for path in tree.glob("006/*") if path.is_dir())
    assert len(folders) == 4
    images = [path for folder in folders for _, path in numbered_images(folder)]
    before = {path: path.read_bytes() for path in images}
    victim = folders[1]
    partial = victim.with_name(f".{victim.name}.partial")
    victim.rename(partial)  # as a killed run leaves it
    next(partial.iterdir()).write_bytes(b"half an ima")
    others = {path: path.stat().st_mtime_ns for path in images if path.parent != victim}
    assert simulate_database(config(tree)) == 4
    assert {path: path.read_bytes() for path in images} == before
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert not partial.exists()


def test_a_beginning_that_was_cut_off_goes_on(tmp_path: Path):
    settings = config(tmp_path, like="casme2", clips=1, key_frames_only=True)
    simulate_database(settings)
    sheet = tmp_path / "CASME2-coding-20140508.xlsx"
    written = sheet.read_bytes()
    for path in (sheet, tmp_path / "README.md"):
        path.unlink()
    simulate_database(settings)
    assert len(sheet.read_bytes()) == len(written) and (tmp_path / "README.md").is_file()


def test_a_subject_keeps_its_looks_and_key_frames_move(tmp_path: Path):
    simulate_database(config(tmp_path, like="casme2", peak=(0.02, 0.02), clips=6))
    samples = load("casme2", tmp_path).samples
    assert {sample.subject for sample in samples} == {"sub01", "sub02"}

    def image(sample: Sample, which: int) -> np.ndarray:
        assert sample.paths is not None
        picture = cv2.imread(str(sample.paths[which]))
        assert picture is not None and picture.shape == (340, 280, 3)
        return picture.astype(np.float32)

    looks = np.array([image(sample, 0).mean((0, 1)) for sample in samples])
    first = np.array([sample.subject == "sub01" for sample in samples])
    within = max(np.ptp(looks[first], axis=0).max(), np.ptp(looks[~first], axis=0).max())
    between = np.abs(looks[first].mean(0) - looks[~first].mean(0)).max()
    assert within < 5 < between
    assert np.abs(image(samples[0], 0) - image(samples[0], 1)).mean() > 1


def test_it_never_mixes_with_anything(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UsageError, match="made with other settings"):
        simulate_database(config(tree, seed=5))
    (tmp_path / "CASME2-coding-20140508.xlsx").write_bytes(b"the real one")
    command = ["simulate", "--out", str(tmp_path), "--workers", "1"]
    assert main(command) == 2
    assert "is not empty and no simulated database" in capsys.readouterr().err
    assert (tmp_path / "CASME2-coding-20140508.xlsx").read_bytes() == b"the real one"
    with pytest.raises(UsageError, match="--seed must be at least 0"):
        simulate_database(config(tmp_path / "c", seed=-1))
    with pytest.raises(UsageError, match="--peak"):
        simulate_database(config(tmp_path / "c", peak=(0.02, 0.01)))
