"""From images to nodes: on a small simulated database, whose truth is known."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from streamer.errors import SourceError, UsageError
from streamer.graph import NODE_SETS
from streamer.sources.base import Picture
from streamer.sources.images import read_image
from streamer.tracking import MediaPipeTracker
from train import landmarks
from train.__main__ import main
from train.datasets import Database, Sample, load
from train.datasets.check import unreadable
from train.landmark_sources import magnified, open_detector, track
from train.landmarks import LandmarkConfig, cache_key, cropped, extract, extract_node_sets, files_of
from train.magnify import Magnifier, magnify
from train.simulated_database import SimulateDatabaseConfig, simulate_database

WHOLE = LandmarkConfig(crops=())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject's two clips, whole."""
    out = tmp_path_factory.mktemp("simulated") / "casme2"
    simulate_database(SimulateDatabaseConfig(out, clips=2, workers=1, peak=(0.02, 0.02)))
    return out


@pytest.fixture(scope="module")
def database(tree: Path) -> Database:
    return load("casme2", tree)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("landmarks")


def moved(nodes: np.ndarray) -> np.ndarray:
    """(..., n, 2) from onset to apex."""
    return nodes[..., 1, :, :] - nodes[..., 0, :, :]


def test_nodes_of_all_views(database: Database, cache: Path):
    config = LandmarkConfig(crops=(3.0, 4.0))
    result = extract(database.samples, config, cache, progress=False)
    assert result.nodes.shape == (2, 3, 3, 14, 2) and result.nodes.dtype == np.float32
    assert not result.failed and not result.found
    for views in result.nodes:
        peak = np.linalg.norm(moved(views[0]), axis=1).max()
        assert 0.008 < peak < 0.025, "simulated with a peak of 0.02, of which a part is seen"
        # Where a view puts the nodes differs by the landmark model's jitter; how they move, hardly.
        rest = np.abs(views[1:, 0] - views[0, 0]).max()
        assert 0.001 < rest < 0.06
        motion = np.linalg.norm(moved(views[1:]) - moved(views[0]), axis=(1, 2)) / np.linalg.norm(
            moved(views[0])
        )
        assert ((motion > 0.0) & (motion < 0.35)).all()
        # The offset lies on the way back: a part of the apex, as the live spotter gives it.
        back = views[:, 2] - views[:, 0]
        assert np.linalg.norm(back) < 0.6 * np.linalg.norm(moved(views))


def test_a_missing_apex_is_found(database: Database, tree: Path, cache: Path):
    truth = json.loads((tree / "simulated.json").read_text(encoding="utf-8"))["truth"]
    without = [replace(sample, apex=None) for sample in database.samples]
    result = extract(without, WHOLE, cache, progress=False)
    assert result.found == (0, 1)
    for sample, known in zip(result.samples, truth, strict=True):
        assert sample.apex is not None and abs(sample.apex - known["apex"]) <= 4, "within 20 ms"


def test_key_frames_alone_and_few_frames(database: Database, cache: Path, tmp_path: Path):
    sample = database.samples[1]
    full = extract([sample], WHOLE, cache, progress=False).nodes[0, 0]
    quick = extract([sample], replace(WHOLE, frames="key"), cache, progress=False).nodes[0, 0]
    difference = np.linalg.norm(moved(quick) - moved(full)) / np.linalg.norm(moved(full))
    assert 0.0 < difference < 0.5
    assert sample.paths is not None
    for path in sample.paths:
        assert path is not None
        shutil.copy(path, tmp_path / path.name)
    alone = replace(sample, frames=tmp_path)
    assert np.array_equal(extract([alone], WHOLE, cache, progress=False).nodes[0, 0], quick)
    with pytest.raises(SourceError, match="2 images from onset to offset: too few"):
        (tmp_path / f"reg_img{sample.apex}.jpg").unlink()
        extract([replace(alone, apex=None)], WHOLE, cache, progress=False)


def test_larger_node_sets_move_alike(database: Database, cache: Path):
    sample = database.samples[0]
    small = extract([sample], WHOLE, cache, progress=False).nodes[0, 0]
    large = extract([sample], replace(WHOLE, node_set="dlib68"), cache, progress=False).nodes[0, 0]
    assert large.shape == (3, 68, 2)
    same = large[:, NODE_SETS["gm14"].dlib]
    assert np.abs(same[0] - small[0]).max() < 0.01
    difference = np.linalg.norm(moved(same) - moved(small)) / np.linalg.norm(moved(small))
    assert difference < 0.1
    middle = extract([sample], replace(WHOLE, node_set="dlib31"), cache, progress=False).nodes[0, 0]
    both = large[:, NODE_SETS["dlib31"].dlib]
    assert np.linalg.norm(moved(both) - moved(middle)) < 0.1 * np.linalg.norm(moved(middle))


def _first_image(sample: Sample) -> np.ndarray:
    assert sample.paths is not None
    image = cv2.imread(str(sample.paths[0]))
    assert image is not None
    return image


# -- what is kept --------------------------------------------------------------------------------------


def test_kept_results_are_used_and_damage_is_mended(database: Database, tmp_path: Path):
    config = replace(WHOLE, frames="key")
    sample = database.samples[0]
    first = extract([sample], config, tmp_path, progress=False)
    (kept,) = tmp_path.glob("*/*.npz")
    # Moved elsewhere the images are the same, and nothing is measured again.
    changed = np.load(kept)["nodes"] + np.float32(1.0)
    np.savez(kept, nodes=changed, apex=np.int64(sample.apex or 0))
    assert np.array_equal(extract([sample], config, tmp_path, progress=False).nodes[0], changed)
    for damage in (b"", kept.read_bytes()[:500], b"no archive"):
        kept.write_bytes(damage)
        again = extract([sample], config, tmp_path, progress=False)
        assert np.array_equal(again.nodes, first.nodes)
    np.savez(kept, nodes=np.array([{"a": 1}], dtype=object), apex=np.int64(3))  # a pickle inside
    assert np.array_equal(extract([sample], config, tmp_path, progress=False).nodes, first.nodes)


def test_other_images_or_settings_are_other_results(database: Database, tmp_path: Path):
    config = replace(WHOLE, frames="key")
    sample = database.samples[0]
    extract([sample], config, tmp_path, progress=False)
    extract([sample], replace(config, node_set="dlib31"), tmp_path, progress=False)
    extract(
        [replace(sample, apex=(sample.apex or 0) + 1)],
        replace(config, frames="all"),
        tmp_path,
        progress=False,
    )
    assert len(list(tmp_path.glob("*/*.npz"))) == 3


def test_the_key_is_of_the_images_bytes_not_of_their_place(database: Database, tmp_path: Path):
    sample = database.samples[0]
    files = files_of(sample, WHOLE)
    assert len(files) == sample.offset - sample.onset + 1
    copies = [(number, Path(shutil.copy(path, tmp_path / path.name))) for number, path in files]
    assert cache_key(sample, WHOLE, files) == cache_key(sample, WHOLE, copies)
    copies[3][1].write_bytes(copies[3][1].read_bytes() + b"\0")
    assert cache_key(sample, WHOLE, files) != cache_key(sample, WHOLE, copies)
    assert cache_key(sample, WHOLE, files) != cache_key(replace(sample, fps=100.0), WHOLE, files)


def test_nodes_of_a_selection(database: Database, cache: Path):
    result = extract(database.samples, replace(WHOLE, frames="key"), cache, progress=False)
    assert np.array_equal(result.of(database.samples[::-1]), result.nodes[::-1])


def test_an_image_that_is_damaged_or_shows_no_face(database: Database, tmp_path: Path):
    sample = database.samples[0]
    assert sample.paths is not None and sample.frames is not None
    folder = tmp_path / "frames"
    folder.mkdir()
    for path in sample.paths:
        assert path is not None
        shutil.copy(path, folder / path.name)
    damaged = folder / f"reg_img{sample.offset}.jpg"
    damaged.write_bytes(b"\xff\xd8 cut")
    broken = replace(sample, frames=folder)
    result = extract([broken, sample], replace(WHOLE, frames="all"), tmp_path / "cache", progress=False)
    assert result.samples == (sample,)
    assert str(damaged) in result.failed[0] and "unpack" in result.failed[0]
    for path in folder.iterdir():
        cv2.imwrite(str(path), np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(
        SourceError, match="row 2: casme2/sub01/.*the whole image: the landmark model sees no face"
    ):
        extract([broken], WHOLE, tmp_path / "cache", progress=False)


def test_given_landmarks(tmp_path: Path):
    rest = np.zeros((68, 2), np.float32)
    rest[:] = NODE_SETS["dlib68"].rest * 100 + 300
    points = np.stack([rest, rest, rest])
    points[1, 57] += (0, 5)
    np.savez(tmp_path / "a.npz", landmarks=points)
    (tmp_path / "m.csv").write_text("subject,landmarks,objective_class\nanna,a.npz,II\n", encoding="utf-8")
    database = load("manifest", tmp_path)
    result = extract(database.samples, LandmarkConfig(crops=(3.0,)), tmp_path / "cache", progress=False)
    assert result.nodes.shape == (1, 2, 3, 14, 2)
    assert np.allclose(moved(result.nodes[0, 1])[13], (0, 0.05), atol=1e-3)
    np.savez(tmp_path / "a.npz", landmarks=points[:2])
    with pytest.raises(SourceError, match="m.csv, row 2.*a.npz"):
        extract(database.samples, LandmarkConfig(), tmp_path / "cache", progress=False)
    assert unreadable(database.samples[0]) == []
    np.savez_compressed(tmp_path / "a.npz", landmarks=points)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SourceError, match="m.csv, row 2.*a.npz"):
        extract(database.samples, LandmarkConfig(), tmp_path / "cache", progress=False)
    assert unreadable(database.samples[0]) == [tmp_path / "a.npz"]


def test_a_crop_repeats_the_edge_and_keeps_the_pixels(database: Database):
    sample = database.samples[0]
    picture = read_image(files_of(sample, WHOLE)[0][1])
    assert picture is not None and picture.grey is not None and callable(picture.image)
    part = cropped(picture, (-10, 20, 100))
    assert part.grey is not None and part.grey.shape == (100, 100)
    assert np.array_equal(part.grey[:, 10:], picture.grey[20:120, :90])
    assert (part.grey[:, :10] == part.grey[:, 10:11]).all()
    assert callable(part.image) and np.array_equal(part.image()[:, 10:], picture.image()[20:120, :90])


def test_a_face_lost_on_the_way_is_an_error(database: Database):
    sample = database.samples[0]
    image = _first_image(sample)
    blank = np.full_like(image, 127)
    view = [(sample.onset, Picture.of(image)), (sample.onset + 1, Picture.of(blank))]
    tracked = track(sample, view, "gm14", open_detector("tracker"))
    with pytest.raises(ValueError, match=f"cannot be followed in image {sample.onset + 1}"):
        tracked.nodes(sample, sample.onset + 1)


def test_magnified_key_frames(database: Database, tmp_path: Path):
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file(Magnifier().state_dict(), weights)
    with pytest.raises(ValueError, match="only key frames"):
        LandmarkConfig(magnifier=weights)
    config = LandmarkConfig(crops=(), frames="key", magnifier=weights)
    sample = database.samples[0]
    pictures = [Picture.of(np.full((16, 16, 3), 60 * k, np.uint8)) for k in range(3)]
    network = open_detector("tracker", weights).magnifier
    assert network is not None
    onset, apex, _ = (picture.image for picture in magnified(pictures, network, 3.0))
    assert not callable(onset) and not callable(apex) and onset.shape == apex.shape == (16, 16, 3)
    assert np.array_equal(onset, magnify(network, onset * 0, onset * 0, 1.0)), "nothing of it moves"
    assert not np.array_equal(apex, onset)
    # An untrained network leaves no face to see, and that is said; no network at all is said before.
    folder = tmp_path / "small"
    folder.mkdir()
    paths = tuple(folder / f"reg_img{number}.jpg" for number in (sample.onset, sample.apex, sample.offset))
    for path in paths:
        cv2.imwrite(str(path), np.full((48, 48, 3), 128, np.uint8))
    small = replace(sample, frames=folder, paths=paths)
    with pytest.raises(SourceError, match="sub01.*the landmark model sees no face"):
        extract([small], config, tmp_path / "cache", progress=False)
    weights.unlink()
    with pytest.raises(UsageError, match="no magnifier"):
        extract([small], config, tmp_path / "cache", progress=False)


# -- dlib, and the command -----------------------------------------------------------------------------


def test_dlib_missing_is_said(monkeypatch: pytest.MonkeyPatch, database: Database, tmp_path: Path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "dlib" else find(name, *a)
    )
    with pytest.raises(UsageError, match="pip install 'gtsgn-streamer\\[dlib\\]'"):
        extract(database.samples, LandmarkConfig(source="dlib"), tmp_path, progress=False)


def test_dlib_points(database: Database, tmp_path: Path):
    pytest.importorskip("dlib")
    result = extract(
        database.samples[:1], LandmarkConfig(source="dlib", crops=(4.0,)), tmp_path, progress=False
    )
    assert result.nodes.shape == (1, 2, 3, 14, 2)
    tracker = extract(database.samples[:1], WHOLE, tmp_path, progress=False).nodes[0, 0, 0]
    # The two models mean nearly the same places of a face; on the brows they differ most.
    distance = np.linalg.norm(result.nodes[0, 0, 0] - tracker, axis=1)
    assert np.median(distance) < 0.15 and distance.max() < 0.3


def test_the_command(tree: Path, cache: Path, capsys: pytest.CaptureFixture[str]):
    command = ["landmarks", "--dataset", "casme2", "--root", str(tree), "--cache", str(cache)]
    assert main([*command, "--landmarks.crops"]) == 0
    out = capsys.readouterr().out
    assert "2 samples of casme2 measured in 1 views (SIMULATED)" in out and "left out: 0" in out
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--landmarks.crops", "1"])
    assert stopped.value.code == 2 and "crops (1.0,)" in capsys.readouterr().err


def test_the_landmark_model_sees_each_picture_once_for_all_node_sets(database, tmp_path, monkeypatch):
    monkeypatch.setattr(landmarks, "_detector", None)
    looks: list[int] = []
    detect = MediaPipeTracker.detect

    def counted(self: MediaPipeTracker, image: np.ndarray) -> list[np.ndarray]:
        looks.append(1)
        return detect(self, image)

    monkeypatch.setattr(MediaPipeTracker, "detect", counted)
    sample, config = database.samples[0], LandmarkConfig(crops=(3.0,))
    alone = extract([sample], config, tmp_path / "alone", progress=False)
    once = len(looks)
    assert once > 0
    monkeypatch.setattr(landmarks, "_detector", None)
    both = extract_node_sets([sample], config, ("gm14", "dlib31"), tmp_path / "both", progress=False)
    assert len(looks) == 2 * once
    np.testing.assert_array_equal(both["gm14"].nodes, alone.nodes)
    assert both["dlib31"].nodes.shape == (1, 2, 3, 31, 2)
