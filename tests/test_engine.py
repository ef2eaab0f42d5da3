"""Engines: what they answer, how they are found, and what loading one brings in."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import standin
from engine_folders import refused, samples
from onnx import numpy_helper
from standin import ACTION_UNITS, CLASSES, finished, tiny_model, write_engine

import streamer.engine
from streamer.engine import load_engine
from streamer.errors import EngineError
from streamer.graph import NODE_SETS, FeatureSpec, build_graph
from streamer.landmarker_model import find_landmarker
from streamer.messages import GraphSample

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound engine folder."""
    return write_engine(tmp_path / "stand-in")


# What an engine answers


def test_classify_gives_the_models_probabilities_by_name(folder):
    model = onnx.load(folder / "model.onnx")
    w, v = (numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer)
    engine = load_engine(folder)
    features = samples(5)
    for one in features:
        flat = one.reshape(-1).astype(np.float64)
        logits, units = flat @ w, flat @ v
        scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        result = engine.classify(GraphSample(one))
        assert tuple(result.scores) == CLASSES and tuple(result.action_units) == ACTION_UNITS
        np.testing.assert_allclose(list(result.scores.values()), scores, atol=1e-5)
        np.testing.assert_allclose(list(result.action_units.values()), 1 / (1 + np.exp(-units)), atol=1e-5)


def test_batch_equals_single_calls_and_results_are_not_overwritten(folder):
    engine = load_engine(folder)
    features = samples(6)
    singles = [engine.classify(GraphSample(one)) for one in features]
    scores, action_units = engine.classify_batch(features)
    assert scores.dtype == action_units.dtype == np.float32
    assert scores.shape == (6, len(CLASSES)) and action_units.shape == (6, len(ACTION_UNITS))
    np.testing.assert_allclose(scores, [list(s.scores.values()) for s in singles], atol=1e-6)
    np.testing.assert_allclose(action_units, [list(s.action_units.values()) for s in singles], atol=1e-6)
    kept = scores.copy()
    engine.classify_batch(features[::-1])
    engine.classify(GraphSample(features[3]))
    assert (scores == kept).all()
    # float64 and an odd memory layout are fine, an empty batch too.
    again, _ = engine.classify_batch(np.asfortranarray(features.astype(np.float64)))
    np.testing.assert_allclose(again, scores, atol=1e-6)
    assert [r.shape for r in engine.classify_batch(features[:0])] == [
        (0, len(CLASSES)),
        (0, len(ACTION_UNITS)),
    ]


def test_a_network_of_gtsgn_shape_runs_and_repeats_itself_exactly(tmp_path):
    engine = load_engine(write_engine(tmp_path, finished(standin.gtsgn_model())))
    nodes = np.repeat(NODE_SETS["gm14"].rest[None], 3, axis=0).copy()
    nodes[1, 10] += (-0.01, -0.02)
    sample = build_graph(nodes, engine.manifest.features)
    first = engine.classify(sample)
    engine.classify(GraphSample(samples(1)[0]))
    assert engine.classify(sample) == first
    assert sum(first.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_an_engine_without_action_units(tmp_path):
    write_engine(tmp_path, finished(tiny_model(action_units=0), aus=0), action_units=())
    engine = load_engine(tmp_path)
    features = samples(2)
    assert engine.classify(GraphSample(features[0])).action_units == {}
    assert engine.classify_batch(features)[1].shape == (2, 0)


def test_an_engine_for_another_node_set(tmp_path):
    spec = FeatureSpec(node_set="dlib31")
    write_engine(tmp_path, finished(tiny_model(nodes=31), nodes=31), features=spec)
    engine = load_engine(tmp_path)
    nodes = np.repeat(NODE_SETS["dlib31"].rest[None], 3, axis=0)
    assert engine.manifest.features == spec
    assert set(engine.classify(build_graph(nodes, spec)).scores) == set(CLASSES)


def test_an_engine_for_nodes_that_the_caller_has_not_is_refused(folder, tmp_path):
    load_engine(folder, node_set="gm14").close()
    spec = FeatureSpec(node_set="dlib31")
    other = write_engine(tmp_path / "31", finished(tiny_model(nodes=31), nodes=31), features=spec)
    with pytest.raises(EngineError, match="reads the nodes dlib31, and here are gm14; use another engine"):
        load_engine(other, node_set="gm14")


def test_an_engine_of_other_classes_answers_in_its_own(tmp_path):
    classes = ("happiness", "surprise", "other")
    names = {name: name for name in classes}
    write_engine(tmp_path, finished(tiny_model(classes=3), classes=3), classes=classes, class_names=names)
    assert tuple(load_engine(tmp_path).classify(GraphSample(samples(1)[0])).scores) == classes


def test_wrong_features_are_the_callers_mistake(folder):
    engine = load_engine(folder)
    features = samples(2)
    with pytest.raises(ValueError, match="shape"):
        engine.classify(GraphSample(features))
    with pytest.raises(ValueError, match="shape"):
        engine.classify_batch(features[0])
    with pytest.raises(ValueError, match="shape"):
        engine.classify_batch(features[..., :2])
    features[1, 2, 3, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        engine.classify(GraphSample(features[1]))
    with pytest.raises(ValueError, match="not finite"):
        engine.classify_batch(features)


def test_a_closed_engine_says_so(folder):
    engine = load_engine(folder)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.classify(GraphSample(samples(1)[0]))
    with pytest.raises(EngineError, match="closed"):
        engine.classify_batch(samples(1))


@pytest.mark.parametrize(
    ("output", "operator", "word"),
    [
        ("scores", "Identity", "probabilities"),  # logits
        ("scores", "Sigmoid", "sum to 1"),
        ("action_units", "Identity", "probabilities"),
        ("scores", "Sqrt", "probabilities"),  # NaN
        ("action_units", "Sqrt", "probabilities"),
    ],
)
def test_outputs_that_are_no_probabilities_are_refused(tmp_path, output, operator, word):
    """Checked on the zeros of the first run, on single samples and on batches."""
    b = tiny_model()
    for node in b.nodes:
        if node.output[0] == output:
            node.op_type = operator
            del node.attribute[:]
    shifted = b.op("Sub", "features", b.constant(np.array(2.0, np.float32)), output="shifted")
    b.nodes.insert(0, b.nodes.pop())
    b.nodes[1].input[0] = shifted
    write_engine(tmp_path, finished(b))
    refused(tmp_path, "model.onnx", word)


@pytest.mark.parametrize("operator", ["Identity", "Sqrt"])
@pytest.mark.parametrize("output", ["scores", "action_units"])
def test_outputs_that_go_wrong_later_are_refused_then(tmp_path, operator, output):
    """Less the sum of the squared features, or its root, which is NaN: right for zeros alone."""
    b = tiny_model()
    next(node for node in b.nodes if node.output[0] == output).output[0] = "right"
    square = b.op("Mul", "t0", "t0")
    wrong = b.op(operator, b.op("Neg", b.op("ReduceSum", square, b.constant(np.array([1])), keepdims=1)))
    b.op("Add", "right", wrong, output=output)
    engine = load_engine(write_engine(tmp_path, finished(b)))
    with pytest.raises(EngineError, match="probabilities"):
        engine.classify(GraphSample(samples(1)[0]))
    with pytest.raises(EngineError, match="probabilities"):
        engine.classify_batch(samples(3))


def test_rounding_above_one_is_clipped(tmp_path):
    b = tiny_model()
    for node in b.nodes:
        if node.output[0] in ("scores", "action_units"):
            node.output[0] = "raw " + node.output[0]
    for name in ("scores", "action_units"):
        b.op("Add", f"raw {name}", b.constant(np.array(1e-4, np.float32)), output=name)
    engine = load_engine(write_engine(tmp_path, finished(b)))
    strong = np.full((2, 3, 14, 4), 900.0, np.float32)
    results = engine.classify(GraphSample(strong[0]))
    assert max(results.scores.values()) == 1.0 == max(results.action_units.values())
    scores, action_units = engine.classify_batch(strong)
    assert scores.max() == 1.0 == action_units.max()


# load_engine


def test_an_engine_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    engines = tmp_path / "engines"
    for name in ("alpha", "beta"):
        write_engine(engines / name, name=name)
    (engines / "no-engine").mkdir()
    monkeypatch.setattr(streamer.engine, "ENGINES_FOLDER", engines)
    assert load_engine("alpha").manifest.name == "alpha"
    assert load_engine(engines / "beta").manifest.name == "beta"
    assert load_engine(str(engines / "beta"), "cpu").manifest.name == "beta"
    monkeypatch.chdir(engines)
    assert load_engine("./beta").manifest.name == "beta"
    for unknown in (
        "gamma",
        "no-engine",
        str(engines / "alpha" / "model.onnx"),
        "",
        "x" * 5000,
        "a\x00b",
        "~nobody/x",
    ):
        with pytest.raises(EngineError, match="known engines: alpha, beta") as caught:
            load_engine(unknown)
        assert "\n" not in str(caught.value)


def test_no_engines_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(streamer.engine, "ENGINES_FOLDER", tmp_path / "none")
    with pytest.raises(EngineError, match="known engines: none"):
        load_engine("gtsgn-simulated")


# What loading an engine brings in

LOAD_WATCHED = """
import sys

def watch(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit("something was unpickled")

sys.addaudithook(watch)
from streamer.engine import load_engine
load_engine(sys.argv[1]).close()
print(sorted({"torch", "onnx", "train", "torch_tensorrt"} & set(sys.modules)))
"""


def test_loading_needs_no_torch_and_unpickles_nothing(folder):
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WATCHED, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_a_live_run_with_the_cpu_engine_never_imports_torch():
    """From the command line to the last event."""
    code = (
        "import sys\n"
        "from streamer.__main__ import main\n"
        "assert main(['--source', 'sample', '--max-frames', '2', '--device', 'cpu', *sys.argv[1:]]) == 0\n"
        "found = {'torch', 'onnx', 'train', 'safetensors', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(found)}' if found else 0)\n"
    )
    command = [sys.executable, "-c", code, "--engine", "auto", "--landmarker", str(find_landmarker(None))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"type":"stream_ended"' in done.stdout
