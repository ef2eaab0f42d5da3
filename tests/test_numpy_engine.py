"""The NumPy engine: it answers as ONNX Runtime does, from the weights alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from engine_folders import edit, replace_file, samples
from safetensors.numpy import load, save
from test_engine_files import mutated

from streamer.engine import ENGINES_FOLDER, OnnxEngine
from streamer.engines.numpy_reference import NumpyEngine
from streamer.errors import EngineError
from streamer.messages import GraphSample

SHIPPED = ENGINES_FOLDER / "gtsgn-simulated"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped engine without its model.onnx."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("manifest.json", "weights.safetensors"):
        shutil.copy(SHIPPED / name, copy)
    return copy


def test_it_answers_as_onnx_runtime_does(folder):
    reference, onnx = NumpyEngine(folder), OnnxEngine(SHIPPED)
    features = samples(1000)
    for ours, theirs in zip(reference.classify_batch(features), onnx.classify_batch(features), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert ours.dtype == np.float32
    for one in features[:20]:
        ours, theirs = reference.classify(GraphSample(one)), onnx.classify(GraphSample(one))
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)
        assert ours.action_units == pytest.approx(theirs.action_units, abs=1e-5)


def test_extreme_features_overflow_nothing(folder):
    scores, units = NumpyEngine(folder).classify_batch(samples(2) * np.float32(1e6))
    assert np.isfinite(scores).all() and np.isfinite(units).all()


def test_it_is_held_to_its_manifest(folder):
    engine = NumpyEngine(folder)
    with pytest.raises(ValueError, match="shape"):
        engine.classify_batch(samples(1)[0])
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.classify(GraphSample(samples(1)[0]))
    edit(folder, lambda m: m["training"].pop("temperature"))
    with pytest.raises(EngineError, match=r"no training\.temperature"):
        NumpyEngine(folder)


def test_weights_of_other_outputs_are_refused(folder):
    weights = load((folder / "weights.safetensors").read_bytes())
    for name in ("weight", "bias"):
        weights[f"classes.linear.{name}"] = weights[f"classes.linear.{name}"][:5].copy()
    replace_file(folder, "weights.safetensors", save(weights))
    with pytest.raises(EngineError, match="5 classes and 16 action units, the manifest says"):
        NumpyEngine(folder)


def test_changed_weights_are_refused_before_they_are_parsed(folder, monkeypatch):
    def parsed(data: bytes) -> None:
        raise AssertionError("the weights were parsed")

    monkeypatch.setattr("streamer.engines.numpy_reference.load", parsed)
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[len(data) // 2] ^= 4
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(EngineError, match="SHA-256"):
        NumpyEngine(folder)


@pytest.mark.parametrize("seed", range(60))
def test_fuzz_weights_with_a_right_checksum(folder, seed):
    """Hostile bytes, fitting manifest: refused with a clear error, or a working engine; never a crash."""
    data = (folder / "weights.safetensors").read_bytes()
    replace_file(folder, "weights.safetensors", mutated(data, np.random.default_rng(seed)))
    try:
        result = NumpyEngine(folder).classify(GraphSample(samples(1)[0]))
    except EngineError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    assert all(0.0 <= p <= 1.0 for p in (*result.scores.values(), *result.action_units.values()))
