"""From nothing to an engine: simulation, fit, export. The fits are tiny; they show the machinery."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from streamer.engine import ENGINES_FOLDER, FileEntry, Manifest, OnnxEngine, load_engine
from streamer.errors import EngineError, OutputError, UsageError
from streamer.graph import FeatureSpec, build_graph, build_graphs
from train.__main__ import main
from train.checkpoint import load_checkpoint
from train.export import ExportConfig, export
from train.export.difference import TOLERANCE, folded_difference, largest_difference
from train.export.onnx_graph import to_onnx
from train.export.source import read_source
from train.export.tensorrt_engines import installed
from train.fit import fit
from train.loop import FitConfig, fit_temperature, learning_rate_factor, predict
from train.models import ModelConfig

TINY = FitConfig(out=Path(), samples=768, epochs=4, validation_samples=400, batch=64, threads=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    fit(replace(TINY, out=folder), progress=False)
    return folder


@pytest.fixture(scope="module")
def engine_folder(checkpoint) -> Path:
    folder = checkpoint.parent / "gtsgn-tiny"
    export(ExportConfig(checkpoint, folder))
    return folder


def test_a_tiny_fit_beats_chance_by_far(checkpoint):
    metrics = json.loads((checkpoint / "metrics.json").read_text())["validation"]
    assert metrics["accuracy"] > 0.4  # chance: 1/6
    assert metrics["mean_average_precision"] > 0.3
    assert sum(map(sum, metrics["confusion"])) == metrics["samples"] == 400
    assert sum(part["samples"] for part in metrics["by_amplitude"].values()) == 400


def test_one_seed_gives_one_network(checkpoint, tmp_path):
    fit(replace(TINY, out=tmp_path / "again"), progress=False)
    for name in ("weights.safetensors", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (checkpoint / name).read_bytes()


def test_another_seed_gives_another_network(checkpoint, tmp_path):
    fit(replace(TINY, out=tmp_path, seed=1, samples=64, epochs=1), progress=False)
    one, other = load_checkpoint(checkpoint).model, load_checkpoint(tmp_path).model
    assert not torch.equal(one.get_parameter("low.0.theta"), other.get_parameter("low.0.theta"))


def test_checkpoint_says_what_it_was_trained_with(checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert not loaded.model.training
    assert loaded.features == TINY.features
    assert loaded.info["data"]["simulated"] is True
    assert loaded.info["fit"]["samples"] == 768
    assert sum(loaded.metrics["aau_weights"]) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["ss-gn", "gcn"])
def test_baselines_train_without_action_units(name, tmp_path):
    config = replace(
        TINY,
        out=tmp_path,
        samples=128,
        epochs=1,
        au_loss="none",
        model=ModelConfig(name),
    )
    metrics = fit(config, progress=False)
    assert "action_units" not in metrics["validation"]
    assert load_checkpoint(tmp_path).action_units == ()
    export(ExportConfig(tmp_path, tmp_path / "engine"))
    assert load_engine(tmp_path / "engine").manifest.action_units == ()
    title = {"ss-gn": "SS-GN", "gcn": "plain GCN"}[name]
    assert title in (tmp_path / "engine" / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 32}, "--batch at least 2 and at most --samples"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"epochs": 0}, "--epochs and --validation-samples must be at least 1"),
        ({"model": ModelConfig("gcn")}, "needs a network with action-unit heads"),
        ({"model": ModelConfig(fusion_layer=7)}, r"fusion_layer must be 1\.\.4"),
        (
            {"features": FeatureSpec(node_set="dlib68")},
            "an engine reads the nodes gm14",
        ),
        ({"features": FeatureSpec(type="A")}, "needs features of type B"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        fit(replace(TINY, out=tmp_path, **change), progress=False)


def test_temperature_is_found_again():
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(20_000, 5, generator=generator)
    label = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits, label) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(2.5 * logits, label) == pytest.approx(2.5, rel=0.05)


def test_learning_rate_rises_for_a_tenth_and_falls_to_zero():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert np.argmax(factors) == 9 and max(factors) == 1.0
    assert factors[0] == pytest.approx(0.1) and factors[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))


def test_engine_folder_is_whole_and_says_what_it_is(engine_folder, checkpoint):
    manifest = Manifest.read(engine_folder)
    manifest.verify(engine_folder)
    assert manifest.name == "gtsgn-tiny"
    assert manifest.classes == ("I", "II", "III", "IV", "V", "VII")
    assert manifest.training["simulated"] is True and manifest.training["seed"] == 0
    assert manifest.features == load_checkpoint(checkpoint).features
    assert sorted(p.name for p in engine_folder.iterdir()) == [
        "MODEL_CARD.md",
        "manifest.json",
        "model.onnx",
        "weights.safetensors",
    ]
    first_line = (engine_folder / "MODEL_CARD.md").read_text().splitlines()[0]
    assert "rained on simulated micro-expressions" in first_line


def test_graph_has_plain_products_only_and_no_trace_of_this_machine(engine_folder):
    import onnx

    data = (engine_folder / "model.onnx").read_bytes()
    kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert "MatMul" in kinds
    assert not kinds & {"Einsum", "BatchNormalization", "Conv", "Gather", "If", "Loop"}
    assert not re.search(rb"\.py|/home|/tmp|File ", data)


def test_checkpoint_onnx_and_engine_agree(engine_folder, checkpoint):
    loaded, engine = load_checkpoint(checkpoint), OnnxEngine(engine_folder)
    nodes = np.random.default_rng(5).normal(scale=0.5, size=(64, 3, 14, 2)).astype(np.float32)
    features = build_graphs(nodes, loaded.features)
    eager = predict(loaded.model, torch.from_numpy(features))
    scores, units = engine.classify_batch(features)
    np.testing.assert_allclose(scores, torch.softmax(eager.classes / loaded.temperature, 1), atol=1e-4)
    np.testing.assert_allclose(units, torch.sigmoid(eager.action_units[-1]), atol=1e-4)
    for k in range(8):
        said = engine.classify(build_graph(nodes[k], loaded.features))
        np.testing.assert_allclose(list(said.scores.values()), scores[k], atol=1e-5)
        np.testing.assert_allclose(list(said.action_units.values()), units[k], atol=1e-5)


def test_comparison_sees_a_weight_that_is_off(engine_folder, checkpoint):
    source, engine = read_source(checkpoint), OnnxEngine(engine_folder)
    assert largest_difference(engine, source, 50) < 1e-4
    with torch.no_grad():
        source.model.get_parameter("fused.1.taps").mul_(1.01)
    assert largest_difference(engine, source, 50) > 1e-4


def test_a_second_export_gives_the_same_bytes(engine_folder, checkpoint, tmp_path):
    again = tmp_path / engine_folder.name
    export(ExportConfig(checkpoint, again))
    for path in engine_folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_an_engine_folder_is_a_source_too(engine_folder, tmp_path):
    """Under another name the model card's heading and the manifest's name change, and nothing else."""
    renamed = tmp_path / "renamed"
    export(ExportConfig(engine_folder, renamed))
    for name in ("model.onnx", "weights.safetensors"):
        assert (renamed / name).read_bytes() == (engine_folder / name).read_bytes()
    card = (engine_folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (renamed / "MODEL_CARD.md").read_text(encoding="utf-8") == card.replace(
        "# gtsgn-tiny", "# renamed"
    )
    one, other = Manifest.read(engine_folder).as_dict(), Manifest.read(renamed).as_dict()
    assert {key for key in one if one[key] != other[key]} == {"name", "files"}


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Other bytes in a file of the folder, and a manifest to match."""
    (folder / name).write_bytes(data)
    manifest = Manifest.read(folder)
    replace(manifest, files=manifest.files | {name: FileEntry.of(folder / name)}).write(folder)


def test_check_reports_every_artifact(engine_folder, checkpoint, capsys):
    arguments = ["export", "--checkpoint", str(checkpoint), "--out", str(engine_folder), "--check"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for name in ("manifest.json", "weights.safetensors", "NumpyEngine", "OnnxEngine"):
        assert name in said
    assert len(re.findall(r"difference [0-9.]+e-0[5-9]", said)) == 2


def test_check_names_what_is_not_the_sources(engine_folder, checkpoint, tmp_path):
    def refused(folder: Path, error: type[Exception], words: str) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(error, match=words):
            export(ExportConfig(checkpoint, folder, check=True))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    folder = copied(engine_folder, tmp_path / "card")
    (folder / "MODEL_CARD.md").write_text("another", encoding="utf-8")
    refused(folder, EngineError, "MODEL_CARD.md: has 7 bytes")

    folder = copied(engine_folder, tmp_path / "classes")
    manifest = Manifest.read(folder)
    replace(manifest, classes=manifest.classes[::-1]).write(folder)
    refused(folder, OutputError, "key 'classes' of the manifest is not the source's")

    folder = copied(engine_folder, tmp_path / "weights")
    source = read_source(checkpoint)
    with torch.no_grad():
        source.model.get_parameter("fused.1.taps").mul_(1.01)
    rewrite(folder, "weights.safetensors", save(dict(source.model.state_dict())))
    refused(folder, OutputError, "its weights are not the source's")

    folder = copied(engine_folder, tmp_path / "onnx")
    rewrite(folder, "model.onnx", to_onnx(source.folded()))
    refused(folder, OutputError, "model.onnx: a probability differs by")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_shipped_network_bears_what_a_gpu_computes_in(dtype):
    assert folded_difference(read_source(ENGINES_FOLDER / "gtsgn-simulated"), dtype) < TOLERANCE[dtype] / 3


def test_float16_is_for_tensorrt(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="--dtype float16 is for"):
        export(ExportConfig(checkpoint, tmp_path / "half", dtype="float16"))


@pytest.mark.skipif(bool(installed()), reason="Torch-TensorRT is installed: tests/test_tensorrt.py has more")
@pytest.mark.parametrize(("to", "package"), [("trt", "torch-tensorrt"), ("trt-rtx", "torch-tensorrt-rtx")])
def test_without_its_library_tensorrt_is_refused_in_one_line(checkpoint, tmp_path, to, package):
    with pytest.raises(UsageError, match=f"{package} is not installed: pip install"):
        export(ExportConfig(checkpoint, tmp_path / "engine", to=to))
    assert not (tmp_path / "engine").exists()


def test_retrained_exported_again_and_swapped_by_name_alone(checkpoint, tmp_path, monkeypatch):
    """Another seed's network in a new folder of engines/: found by name, other answers, no code change."""
    fit(replace(TINY, out=tmp_path / "run", seed=1, samples=64, epochs=1), progress=False)
    monkeypatch.setattr("streamer.engine.ENGINES_FOLDER", tmp_path / "engines")
    export(ExportConfig(checkpoint, tmp_path / "engines" / "old"))
    export(ExportConfig(tmp_path / "run", tmp_path / "engines" / "new"))
    features = np.random.default_rng(0).normal(size=(4, 3, 14, 4)).astype(np.float32)
    answers = {name: load_engine(name).classify_batch(features)[0] for name in ("old", "new")}
    assert np.abs(answers["old"] - answers["new"]).max() > 0.05


def test_export_of_no_checkpoint_is_one_clear_line(tmp_path, capsys):
    code = main(
        [
            "export",
            "--checkpoint",
            str(tmp_path / "none"),
            "--out",
            str(tmp_path / "engine"),
        ]
    )
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "no usable checkpoint" in error and "python -m train fit" in error


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    for name in ("config.json", "metrics.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UsageError, match="no usable checkpoint"):
        load_checkpoint(tmp_path)


def test_interrupt_leaves_the_old_checkpoint(checkpoint, monkeypatch, capsys):
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.loop.build_graphs", interrupted)
    assert (
        main(
            [
                "fit",
                "--out",
                str(checkpoint),
                "--samples",
                "64",
                "--batch",
                "64",
                "--epochs",
                "1",
            ]
        )
        == 130
    )
    assert {p.name: p.read_bytes() for p in checkpoint.iterdir()} == before
