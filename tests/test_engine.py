"""Engines: what they answer, and that nothing but a sound engine folder is ever loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import standin
from onnx import TensorProto, helper, numpy_helper
from standin import ACTION_UNITS, CLASSES, Builder, finished, tiny_model, value, write_engine

import streamer.engine
from streamer.engine import Manifest, OnnxEngine, load_engine
from streamer.errors import EngineError
from streamer.graph import NODE_SETS, FeatureSpec, build_graph, build_graphs
from streamer.manifest import MAX_MANIFEST_BYTES, FileEntry
from streamer.messages import GraphSample
from streamer.onnx_file import summarise

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound engine folder."""
    return write_engine(tmp_path / "stand-in")


def samples(count: int = 4, seed: int = 0) -> np.ndarray:
    """(count, 3, 14, 4) float32 features."""
    rng = np.random.default_rng(seed)
    rest = NODE_SETS["gm14"].rest
    nodes = rest + rng.normal(0, 0.02, (count, 3, *rest.shape))
    return build_graphs(nodes, FeatureSpec())


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest on disk behind everyone's back."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in a file, and the right checksum in the manifest, as somebody hostile would."""
    (folder / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(folder, lambda m: m["files"].update({name: entry}))


def refused(folder: Path, *words: str, device: Any = "cpu") -> str:
    """The message with which the engine is refused: one line that names the folder and says what to do."""
    with pytest.raises(EngineError) as caught:
        load_engine(folder, device).close()
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert re.search("export|restore|--engine|--device", message), f"no remedy in: {message}"
    assert len(message) < 1500
    for word in words:
        assert word in message, f"{word!r} not in: {message}"
    return message


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


# The model file


def bindings(**changes: Any) -> bytes:
    """A tiny model with other bindings than the manifest's."""
    b = tiny_model()
    names = {
        "features": "features",
        "scores": "scores",
        "action_units": "action_units",
        **changes.pop("names", {}),
    }
    for node in b.nodes:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    shapes = {
        "features": ("batch", 3, 14, 4),
        "scores": ("batch", 6),
        "action_units": ("batch", 12),
        **changes,
    }
    inputs = [value(names["features"], *shapes["features"])]
    outputs = [value(names[n], *shapes[n]) for n in ("scores", "action_units")]
    return b.model(inputs, outputs).SerializeToString()


def test_bindings_must_be_the_manifests(folder):
    replace_file(folder, "model.onnx", bindings())
    load_engine(folder).close()
    for model in (
        bindings(names={"features": "x"}),
        bindings(names={"scores": "logits"}),
        bindings(features=(1, 3, 14, 4)),
        bindings(features=("batch", 3, "nodes", 4)),
        bindings(features=("batch", 42, 4)),
        finished(tiny_model(classes=7), classes=7),
        finished(tiny_model(action_units=3), aus=3),
        finished(tiny_model(action_units=0), aus=0),
        finished(tiny_model(nodes=31), nodes=31),
    ):
        replace_file(folder, "model.onnx", model)
        refused(folder, "model.onnx")


def test_bindings_of_another_type_and_further_inputs_are_refused(folder):
    b = Builder()
    flat = b.op("Flatten", b.op("Cast", "features", to=TensorProto.FLOAT), axis=1)
    b.op("Softmax", b.op("MatMul", flat, b.weight(168, 6)), output="scores", axis=1)
    b.op("Sigmoid", b.op("MatMul", flat, b.weight(168, 12)), output="action_units")
    outputs = [value("scores", "batch", 6), value("action_units", "batch", 12)]
    features = value("features", "batch", 3, 14, 4, kind=TensorProto.DOUBLE)
    replace_file(folder, "model.onnx", b.model([features], outputs).SerializeToString())
    refused(folder, "tensor(double)")
    b = tiny_model()
    features = value("features", "batch", 3, 14, 4)
    replace_file(folder, "model.onnx", b.model([features, value("more", 1)], outputs).SerializeToString())
    refused(folder, "'more'")


def test_a_batch_axis_that_is_fixed_inside_is_found_at_loading(folder):
    """The declared shapes are right, but only the first of a batch is answered."""
    b = tiny_model()
    zero, one = b.constant(np.array([0])), b.constant(np.array([1]))
    b.nodes[0].input[0] = b.op("Slice", "features", zero, one, zero, output="first")
    b.nodes.insert(0, b.nodes.pop())
    replace_file(folder, "model.onnx", finished(b))
    refused(folder, "batch of 2")


def external(tensor: onnx.TensorProto, fields: str = "both") -> onnx.TensorProto:
    """The tensor, its data said to lie in another file (by both fields that can say so, or by one)."""
    out = onnx.TensorProto()
    out.CopyFrom(tensor)
    out.ClearField("raw_data")
    if fields != "external_data":
        out.data_location = TensorProto.EXTERNAL
    if fields != "data_location":
        out.external_data.add(key="location", value="weights.bin")
    return out


def model_with(place: str) -> onnx.ModelProto:
    """The tiny model with one more tensor, which lies in another file, in this place."""
    b = tiny_model()
    model = onnx.load_from_string(finished(b))
    here = numpy_helper.from_array(np.zeros(4, np.float32), "elsewhere")
    tensor = external(here)
    constant = helper.make_node("Constant", [], ["unused"], value=tensor)
    indices = numpy_helper.from_array(np.zeros(4, np.int64), "indices")
    sparse = helper.make_sparse_tensor(tensor, indices, [9])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place in ("external_data", "data_location"):
        model.graph.initializer.append(external(here, place))
    elif place == "constant":
        model.graph.node.append(constant)
    elif place == "function":
        function = helper.make_function(
            "local", "F", [], ["unused"], [constant], [helper.make_opsetid("", 18)]
        )
        model.functions.append(function)
    elif place == "sparse":
        model.graph.sparse_initializer.append(sparse)
    elif place == "sparse attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["unused"], sparse_value=sparse))
    elif place == "list attribute":
        node = helper.make_node("Constant", [], ["unused"])
        node.attribute.append(helper.make_attribute("values", [tensor]))
        model.graph.node.append(node)
    elif place == "sparse list attribute":
        node = helper.make_node("Constant", [], ["unused"])
        node.attribute.append(helper.make_attribute("values", [sparse]))
        model.graph.node.append(node)
    elif place == "training":
        model.training_info.add().initialization.initializer.append(tensor)
    elif place == "training step":
        model.training_info.add().algorithm.initializer.append(tensor)
    elif place == "default of a function":
        function = helper.make_function("local", "F", [], [], [], [helper.make_opsetid("", 18)])
        function.attribute_proto.append(helper.make_attribute("value", tensor))
        model.functions.append(function)
    return model


@pytest.mark.parametrize(
    "place",
    [
        *("initializer", "external_data", "data_location", "sparse", "function"),
        *("default of a function", "training", "training step"),
        *("constant", "list attribute", "sparse attribute", "sparse list attribute"),
    ],
)
def test_external_data_is_refused_wherever_it_hides(folder, place):
    model = model_with(place).SerializeToString()
    assert summarise(model).external_data
    (folder / "weights.bin").write_bytes(bytes(16))
    replace_file(folder, "model.onnx", model)
    refused(folder, "model.onnx", "another file")


def test_control_flow_is_refused(folder):
    b = tiny_model()
    branches: Any = {
        name: helper.make_graph(
            [helper.make_node("Identity", ["w0"], [name])], name, [], [value(name, 168, len(CLASSES))]
        )
        for name in ("then_branch", "else_branch")
    }
    b.op("If", b.constant(np.array(True)), **branches)
    replace_file(folder, "model.onnx", finished(b))
    refused(folder, "control flow")
    node = helper.make_node("If", ["c"], ["x"])
    node.attribute.append(helper.make_attribute("branches", list(branches.values())))
    b = tiny_model()
    b.nodes.append(node)
    assert summarise(b.model([], []).SerializeToString()).control_flow
    assert not summarise(tiny_model().model([], []).SerializeToString()).control_flow


def test_opset_must_be_the_manifests(folder):
    assert summarise((folder / "model.onnx").read_bytes()).opset == standin.OPSET
    b = tiny_model()
    outputs = [value("scores", "batch", 6), value("action_units", "batch", 12)]
    model = b.model([value("features", "batch", 3, 14, 4)], outputs, opset=17).SerializeToString()
    replace_file(folder, "model.onnx", model)
    refused(folder, "opset is 17", "18")
    edit(folder, lambda m: m.update(opset=17))
    load_engine(folder).close()


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"MZ" + bytes(200), b"<html></html>", b"\x80\x04N."])
def test_a_file_that_is_no_model_is_refused(folder, data):
    replace_file(folder, "model.onnx", data)
    refused(folder, "model.onnx", "no ONNX model")


def test_an_unknown_operator_is_refused(folder):
    b = tiny_model()
    b.nodes[0].op_type = "Flattten"
    model = b.model(
        [value("features", "batch", 3, 14, 4)],
        [value("scores", "batch", 6), value("action_units", "batch", 12)],
    )
    replace_file(folder, "model.onnx", model.SerializeToString())
    refused(folder, "ONNX Runtime cannot load it")


@pytest.mark.parametrize("word", [b"Flatten", b"features", b"Softmax", b"scores"])
def test_names_that_are_no_text_are_refused_quietly(folder, capfd, word):
    data = (folder / "model.onnx").read_bytes()
    assert word in data
    replace_file(folder, "model.onnx", data.replace(word, word[:-1] + b"\xe9"))
    refused(folder, "model.onnx")
    assert capfd.readouterr() == ("", "")


# Checksums


@pytest.mark.parametrize("name", ["model.onnx", "MODEL_CARD.md"])
def test_a_changed_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    for other, word in (
        (data[:-1], "bytes"),
        (data + b"\x00", "bytes"),
        (b"", "bytes"),
        (bytes([data[0] ^ 1]) + data[1:], "SHA-256"),
        (data[:-1] + bytes([data[-1] ^ 128]), "SHA-256"),
    ):
        (folder / name).write_bytes(other)
        refused(folder, name, word)
    (folder / name).unlink()
    refused(folder, name, "no such file")
    (folder / name).mkdir()
    refused(folder, name, "no such file")


def test_checksums_come_before_any_parsing(folder, monkeypatch):
    def parsed(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was parsed")

    monkeypatch.setattr(streamer.engine, "summarise", parsed)
    monkeypatch.setattr(streamer.engine.ort, "InferenceSession", parsed)
    model = bytearray((folder / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 4
    (folder / "model.onnx").write_bytes(model)
    refused(folder, "SHA-256")
    with pytest.raises(EngineError, match="SHA-256"):
        OnnxEngine(folder)


def test_swapped_files_are_refused(folder):
    model, card = folder / "model.onnx", folder / "MODEL_CARD.md"
    first, second = model.read_bytes(), card.read_bytes()
    model.write_bytes(second)
    card.write_bytes(first)
    refused(folder, "bytes")


def test_another_engines_model_is_refused(folder, tmp_path):
    b = tiny_model()
    b.weights.clear()
    b.rng = np.random.default_rng(1)
    b.weight(168, len(CLASSES))
    b.weight(168, len(ACTION_UNITS))
    other = write_engine(tmp_path / "other", finished(b))
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    refused(folder, "SHA-256")


def test_oversized_files_are_refused(folder):
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate((64 << 20) + 1)  # sparse: takes no room
    refused(folder, "model.onnx", "over")
    edit(folder, lambda m: m["files"]["model.onnx"].update(bytes=(64 << 20) + 1))
    refused(folder, "files.model.onnx.bytes")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_pipe_in_place_of_a_file_does_not_hang(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(EngineError):
        load_engine(folder)


# The manifest


def test_manifest_survives_a_round_trip(folder):
    manifest = Manifest.read(folder)
    assert manifest == standin.manifest_for(folder)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.as_dict()))) == manifest
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    manifest.write(folder)
    assert (folder / "manifest.json").read_text(encoding="utf-8") == text
    assert sorted(p.name for p in folder.iterdir()) == ["MODEL_CARD.md", "manifest.json", "model.onnx"]
    values = json.loads(text)
    assert values["inputs"] == [{"name": "features", "shape": ["batch", 3, 14, 4], "dtype": "float32"}]
    assert values["outputs"][0] == {"name": "scores", "shape": ["batch", 6], "dtype": "float32"}
    assert values["outputs"][1] == {"name": "action_units", "shape": ["batch", 12], "dtype": "float32"}
    assert values["features"]["node_set"] == "gm14" and values["class_names"]["III"] == "anger"


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("I", "I"), "class_names": {"I": "happiness"}},
        {"class_names": {"I": "happiness"}},
        {"training": {}},
        {"metrics": {"acc": math.nan}},
        {"files": {}},
        {"files": {"model.onnx": FileEntry("0" * 64, 5)}},
        {"metrics": {"long": ["x" * 9000] * 200}},
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, changes):
    with pytest.raises(EngineError):
        write_engine(tmp_path, **changes)
    assert not list(tmp_path.glob("manifest*"))


KEYS = [*standin.Manifest.__dataclass_fields__, "inputs", "outputs"]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(folder, key):
    edit(folder, lambda m: m.pop(key))
    refused(folder, "manifest.json", f"'{key}'", "missing")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "wrong", [True, 3.5, -1, "\x1b[2J", [[]], {"a": {"b": math.pi}, "c": "\x1b"}, 10**400]
)
def test_a_value_of_another_type_is_refused(folder, key, wrong):
    if key == "metrics" and isinstance(wrong, dict):
        wrong = {"a": 10**400}  # metrics are free, but not so free
    edit(folder, lambda m: m.update({key: wrong}))
    message = refused(folder, "manifest.json", key)
    assert message.isprintable()


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    *path, last, value = path_and_value

    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for key in path:
            target = target[key]
        target[last] = value

    return change


SHA = "a" * 64


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("extra", 1), "'extra'"),
        (put("format_version", 2), "format_version"),
        (put("format_version", 0), "format_version"),
        (put("format_version", True), "format_version"),
        (put("name", ""), "name"),
        (put("name", "../evil"), "name"),
        (put("runtime", "openvino"), "runtime"),
        (put("runtime_version", "10.0"), "runtime_version"),
        (put("compute_capability", "8.9"), "compute_capability"),
        (put("opset", 6), "opset"),
        (put("opset", 18.0), "opset"),
        (put("dtype", "int8"), "dtype"),
        (put("classes", ["I"]), "classes"),
        (put("classes", [*CLASSES, "I"]), "classes"),
        (put("classes", [f"c{i}" for i in range(65)]), "classes"),
        (put("classes", ["I", "II", "III", "IV", "V", "a b"]), "classes"),
        (put("classes", 0, None), "classes"),
        (put("class_names", "VIII", "none"), "class_names.VIII"),
        (put("class_names", "I", ""), "class_names.I"),
        (put("class_names", "I", "bell\x07"), "class_names.I"),
        (put("class_names", "I", "x" * 61), "class_names.I"),
        (put("action_units", ["AU1", "AU1"]), "action_units"),
        (put("action_units", ["1"]), "action_units"),
        (put("action_units", ["AU01"]), "action_units"),
        (put("features", "node_set", "gm15"), "features"),
        (put("features", "node_set", "x" * 100_000), "features"),
        (put("features", "angle", "atan3"), "features"),
        (put("features", "zoom", 1), "features"),
        (put("features", "factor", 10**400), "features"),
        (put("features", "factor", 0), "features"),
        (put("features", "node_set", "dlib31"), "inputs"),
        (put("inputs", 0, "shape", [1, 3, 14, 4]), "inputs"),
        (put("inputs", 0, "shape", ["batch", 3.0, 14, 4]), "inputs"),
        (put("inputs", 0, "dtype", "float16"), "inputs"),
        (put("inputs", 0, "extra", 1), "inputs"),
        (put("outputs", 0, "name", "logits"), "outputs"),
        (put("outputs", []), "outputs"),
        (put("torch_version", ""), "torch_version"),
        (put("files", "model.onnx", {"sha256": SHA}), "files.model.onnx.bytes"),
        (put("files", "model.onnx", {"sha256": SHA, "bytes": 1, "mode": 7}), "files.model.onnx.mode"),
        (put("files", "model.onnx", "sha256", "A" * 64), "files.model.onnx.sha256"),
        (put("files", "model.onnx", "sha256", "a" * 63), "files.model.onnx.sha256"),
        (put("files", "model.onnx", "bytes", -1), "files.model.onnx.bytes"),
        (put("files", "model.onnx", "bytes", True), "files.model.onnx.bytes"),
        (
            put("files", "weights.safetensors", {"sha256": SHA, "bytes": (64 << 20) + 1}),
            "weights.safetensors",
        ),
        (put("files", "notes.txt", {"sha256": SHA, "bytes": (4 << 20) + 1}), "notes.txt"),
        (put("files", {f"f{i}": {"sha256": SHA, "bytes": 1} for i in range(33)}), "files"),
        (put("files", {"MODEL_CARD.md": {"sha256": SHA, "bytes": 1}}), "files"),
        (put("training", "simulated", "yes"), "training.simulated"),
        (put("training", "seed", -1), "training.seed"),
        (put("training", "protocol", None), "training.protocol"),
        (put("training", "data", ""), "training.data"),
        (put("training", "notes", {"a": [[[[[[[[[1]]]]]]]]]}), "training"),
        (put("metrics", "acc", 10**30), "metrics"),
        (put("metrics", "log", "x" * 10_001), "metrics"),
    ],
)
def test_every_wrong_value_is_named(folder, change, word):
    edit(folder, change)
    refused(folder, "manifest.json", word)


@pytest.mark.parametrize(
    "name",
    [
        *("../model.onnx", "/etc/passwd", "..", ".", "", "sub/model.onnx", "..\\model.onnx", "C:model.onnx"),
        *(".hidden", "a\nb", "a\x00b", "manifest.json", "Manifest.JSON", "x" * 65, "modèle.onnx", "~"),
    ],
)
def test_file_names_cannot_leave_the_folder(folder, name):
    (folder.parent / "model.onnx").write_bytes(b"outside")
    edit(folder, put("files", name, {"sha256": SHA, "bytes": 1}))
    refused(folder, "manifest.json", "files")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"\xff\xfe{}", "JSON"),
        (b'{"metrics": NaN}', "NaN"),
        (b'{"metrics": -Infinity}', "Infinity"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 50_000, "JSON"),
        (b'{"format_version": ' + b"9" * 5000 + b"}", "JSON"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "over"),
    ],
)
def test_what_is_no_manifest_is_refused(folder, text, word):
    (folder / "manifest.json").write_bytes(text)
    refused(folder, "manifest.json", word)


def test_a_number_too_large_for_a_float_is_refused(folder):
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    (folder / "manifest.json").write_text(
        text.replace('"metrics": {}', '"metrics": {"acc": 1e999}'), encoding="utf-8"
    )
    refused(folder, "metrics")


def test_free_keys_are_kept(tmp_path):
    training = {"data": "simulated", "simulated": True, "seed": 3, "protocol": "LOSO", "epochs": 40}
    metrics = {"ACC": 0.5, "UF1": None, "per_class": {"I": [1, 2.5]}}
    manifest = load_engine(write_engine(tmp_path, training=training, metrics=metrics)).manifest
    assert manifest.training == training and manifest.metrics == metrics


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


@pytest.mark.parametrize("found", [False, True])
def test_cuda_says_that_there_is_no_gpu_engine(folder, monkeypatch, found):
    monkeypatch.setattr(streamer.engine, "_cuda_device_found", lambda: found)
    with pytest.raises(
        EngineError, match="the GPU engine is not part of this version; use --device cpu"
    ) as caught:
        load_engine(folder, "cuda")
    assert ("no CUDA device was found" in str(caught.value)) is not found


class Driver:
    """A CUDA driver library with so many devices."""

    def __init__(self, devices: int, status: int = 0) -> None:
        self.devices, self.status = devices, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0


@pytest.mark.parametrize(
    ("driver", "found"),
    [(None, False), (Driver(0), False), (Driver(1, status=100), False), (Driver(1), True)],
)
def test_a_cuda_device_counts_if_the_driver_shows_one(monkeypatch, driver, found):
    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(streamer.engine.ctypes, "CDLL", load)
    assert streamer.engine._cuda_device_found() is found


TENSORRT: dict[str, Any] = {"runtime": "tensorrt-rtx", "runtime_version": "1.2", "compute_capability": "8.9"}


@pytest.mark.parametrize(("device", "warnings"), [("auto", 1), ("cpu", 0)])
def test_a_tensorrt_engine_falls_back_to_its_onnx_file(tmp_path, caplog, device, warnings):
    write_engine(tmp_path, **TENSORRT)
    edit(tmp_path, put("files", "model.engine", {"sha256": SHA, "bytes": 5}))  # as if built elsewhere
    with caplog.at_level(logging.WARNING):
        engine = load_engine(tmp_path, device)
    assert isinstance(engine, OnnxEngine) and engine.manifest.runtime == "tensorrt-rtx"
    assert len(caplog.records) == warnings
    if warnings:
        assert "tensorrt-rtx" in caplog.text and "CPU" in caplog.text


def test_the_fall_back_is_checked_like_any_engine(tmp_path, caplog):
    write_engine(tmp_path, **TENSORRT)
    model = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(model[:-1] + b"?")
    refused(tmp_path, "SHA-256", device="auto")
    (tmp_path / "model.onnx").write_bytes(model)
    edit(tmp_path, lambda m: m["files"].pop("model.onnx"))
    refused(tmp_path, "GPU engine is not part of this version", device="auto")
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("runtime_version", None), "runtime_version"),
        (put("compute_capability", None), "compute_capability"),
        (put("compute_capability", "sm_89"), "compute_capability"),
        (put("features", "node_set", "gm99"), "features"),
    ],
)
def test_a_tensorrt_manifest_must_say_what_it_was_built_for(tmp_path, change, word):
    write_engine(tmp_path, **TENSORRT)
    edit(tmp_path, change)
    refused(tmp_path, word, device="auto")


# Hostile bytes


@pytest.mark.parametrize("seed", range(40))
def test_fuzz_files_that_do_not_match_their_checksum(folder, seed):
    rng = np.random.default_rng(seed)
    name = ["model.onnx", "MODEL_CARD.md"][seed % 2]
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(mutated(data, rng))
    if (folder / name).read_bytes() != data:
        refused(folder, name)


@pytest.mark.parametrize("seed", range(60))
def test_fuzz_models_with_a_right_checksum(folder, seed):
    """Hostile bytes, fitting manifest: refused with a clear error, or a working engine; never a crash."""
    data = (folder / "model.onnx").read_bytes()
    replace_file(folder, "model.onnx", mutated(data, np.random.default_rng(seed)))
    works_or_is_refused(folder)


@pytest.mark.parametrize("seed", range(120))
def test_fuzz_manifests(folder, seed):
    rng = np.random.default_rng(seed)
    path = folder / "manifest.json"
    if seed % 2:
        path.write_bytes(mutated(path.read_bytes(), rng))
    else:
        edit(folder, lambda m: shuffle_one(m, rng))
    works_or_is_refused(folder)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat, insert or zero a piece. Most of a model is weights, so the ends get their share."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        near_end = rng.random() < 0.7
        at = int(rng.integers(0, min(300, len(out)) if near_end else len(out)))
        at = len(out) - 1 - at if near_end and rng.random() < 0.5 else at
        size = int(rng.integers(1, 40))
        match rng.integers(0, 5):
            case 0:
                out[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del out[at:]
            case 2:
                out[at:at] = out[at : at + size]
            case 3:
                out[at:at] = rng.bytes(size)
            case _:
                out[at : at + size] = bytes(size)
        if not out:
            return b""
    return bytes(out)


def shuffle_one(manifest: dict[str, Any], rng: np.random.Generator) -> None:
    """Put a value of one place in another place of the manifest."""
    places: list[tuple[Any, Any]] = []
    todo: list[Any] = [manifest]
    while todo:
        node = todo.pop()
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                todo.append(node[key])
    source, source_key = places[int(rng.integers(len(places)))]
    target, target_key = places[int(rng.integers(len(places)))]
    target[target_key] = json.loads(json.dumps(source[source_key]))


def works_or_is_refused(folder: Path) -> None:
    try:
        engine = load_engine(folder, "auto")
        result = engine.classify(GraphSample(samples(1)[0]))
    except EngineError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    assert all(0.0 <= p <= 1.0 for p in (*result.scores.values(), *result.action_units.values()))


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
