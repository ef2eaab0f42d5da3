"""The arrays that runs are trained on, from databases on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.errors import SourceError
from streamer.graph import build_graphs
from streamer.sources.images import read_image
from tests.database_trees import manifest
from train.landmark_sources import open_detector
from train.landmarks import LandmarkConfig
from train.loso import LosoConfig, loso
from train.pictures import augmented, to_input
from train.results import RunSpec
from train.simulated_database import SimulateDatabaseConfig, simulate_database
from train.sweep_data import Source, SweepData, code_digest, key_frames

SPEC = RunSpec(("manifest",), model="ss-gn", type="A", setting="objective5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 samples of six subjects, given as landmarks."""
    return manifest(tmp_path_factory.mktemp("data"), subjects=6, repeats=3)


def data_of(root: Path, tmp_path: Path) -> SweepData:
    return SweepData([Source("manifest", root)], cache=tmp_path, progress=False)


def test_graphs_labels_and_units(root: Path, tmp_path: Path):
    sweep = data_of(root, tmp_path)
    data = sweep.of(SPEC)
    assert data.inputs.shape == (36, 4, 3, 14, 4) and not data.simulated
    assert len(set(data.persons)) == 6 and set(data.label) == {0, 2}
    assert data.units.shape == (36, len(data.unit_names)) and "AU12" in data.unit_names
    assert np.array_equal(data.units[:, data.unit_names.index("AU12")] == 1, data.label == 0)
    nodes = sweep._extracted["manifest", "gm14"].nodes
    assert np.array_equal(data.inputs[:, 0], build_graphs(nodes[:, 0], SPEC.features))
    larger = sweep.of(replace(SPEC, node_set="dlib31"))
    assert larger.inputs.shape == (36, 4, 3, 31, 4) and larger.digest != data.digest
    assert sweep.of(SPEC).digest == data.digest
    with pytest.raises(SourceError, match="no folder was given for the database samm"):
        sweep.of(RunSpec(("samm",)))
    with pytest.raises(SourceError, match="has no images"):
        sweep.of(RunSpec(("manifest",), model="resnet18-s", setting="objective5"))


def test_the_code_that_decides_counts_and_its_comments_do_not(monkeypatch: pytest.MonkeyPatch):
    read = Path.read_text
    changes = {"": code_digest()}
    for name, added in (("comment", "\n# why\n"), ("code", "\nX = 1\n")):
        monkeypatch.setattr(Path, "read_text", lambda path, added=added, **k: read(path, **k) + added)
        changes[name] = code_digest.__wrapped__()
    assert changes["comment"] == changes[""] != changes["code"]


def test_one_command_trains_and_reports(root: Path, tmp_path: Path):
    config = LosoConfig("manifest", root, tmp_path / "out", setting="objective5", cache=tmp_path / "cache")
    config = replace(
        config, model="ss-gn", epochs=40, scale="quick", lam=False, run=replace(config.run, workers=1)
    )
    text = loso(config)
    lines = text.splitlines()
    assert "ss-gn A: 36 samples, 6 subjects, 3 folds" in lines[0] and "40 epochs" in lines[0]
    assert "SIMULATED" not in text and "protocol honest" in lines[1]
    accuracy = float(lines[2].split()[1])
    assert accuracy > 0.8  # the classes are easy to tell
    assert loso(config) == text


def test_what_resnet18_sees(tmp_path: Path):
    tree = tmp_path / "tree"
    simulate_database(SimulateDatabaseConfig(tree, clips=1, key_frames_only=True, workers=1))
    config = LandmarkConfig(crops=(), frames="key")
    sweep = SweepData([Source("casme2", tree)], config, tmp_path / "cache", progress=False)
    sweep.measure([RunSpec(("casme2",))])
    sample = sweep._extracted["casme2", "gm14"].samples[0]
    detector = open_detector("tracker")
    colour, moments = key_frames(sample, 64, config, detector)
    assert colour.shape == moments.shape == (3, 64, 64) and colour.dtype == np.uint8
    grey = cv2.cvtColor(np.ascontiguousarray(colour.transpose(1, 2, 0)[..., ::-1]), cv2.COLOR_BGR2GRAY)
    assert np.array_equal(grey, moments[1])  # both show the apex
    assert colour[0].mean() > colour[2].mean()  # red first: skin
    assert sample.frames is not None
    path = next(iter(sample.frames.glob("*.jpg")))
    picture = read_image(path)
    assert picture is not None and picture.width / 64 > 1.2  # the face fills the square, not the image
    changes = (
        np.abs(moments[1].astype(int) - moments[0]).mean(),
        np.abs(moments[2].astype(int) - moments[0]).mean(),
    )
    assert changes[1] > 0 and 0 < changes[0] < 30


def test_augmentation_moves_the_three_channels_alike():
    import torch

    picture = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    picture[:, :, 8:16, 8:20] = 200
    once = augmented(picture, np.random.default_rng(0))
    assert torch.equal(once, augmented(picture, np.random.default_rng(0)))
    assert once.shape == picture.shape and once.dtype == torch.float32
    assert float((once[:, 0] - once[:, 2]).abs().mean()) < 0.1  # noise alone tells channels apart
    assert float((once[0] - once[1]).abs().mean()) > 0.1  # pictures are moved differently
    assert float((once.mean((1, 2, 3)) - to_input(picture).mean((1, 2, 3))).abs().max()) < 0.6
