"""From nothing to an engine: simulation, fit, export. The fits are tiny; they show the machinery."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamer.engine import Manifest, OnnxEngine
from streamer.errors import OutputError, UsageError
from streamer.graph import FeatureSpec, build_graph, build_graphs
from train.__main__ import main
from train.export import ExportConfig, export, largest_difference
from train.loop import (
    FitConfig,
    fit,
    fit_temperature,
    learning_rate_factor,
    load_checkpoint,
    predict,
)
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
    assert loaded.info["training_data"] == "simulated"
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
    with pytest.raises(UsageError, match="only GTS-GN becomes an engine"):
        export(ExportConfig(tmp_path, tmp_path / "engine"))
    assert not (tmp_path / "engine").exists()


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
            "simulated expressions have the nodes gm14",
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
    loaded, engine = load_checkpoint(checkpoint), OnnxEngine(engine_folder)
    assert largest_difference(engine, loaded, 50) < 1e-4
    with torch.no_grad():
        loaded.model.get_parameter("fused.1.taps").mul_(1.01)
    assert largest_difference(engine, loaded, 50) > 1e-4


def test_check_passes_on_a_new_export_and_fails_on_a_changed_file(engine_folder, checkpoint, capsys):
    command = [
        "export",
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(engine_folder),
        "--check",
    ]
    assert main(command) == 0  # a second export: byte for byte the first
    card = engine_folder / "MODEL_CARD.md"
    text = card.read_text()
    card.write_text(text + "\n")
    try:
        with pytest.raises(OutputError, match=r"MODEL_CARD\.md: differs from a new export"):
            export(ExportConfig(checkpoint, engine_folder, check=True))
        assert card.read_text() == text + "\n"
    finally:
        card.write_text(text)


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
