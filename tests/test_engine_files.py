"""Nothing but a sound engine folder is ever loaded: the model file, checksums, hostile bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import standin
from engine_folders import edit, refused, replace_file, samples
from onnx import TensorProto, helper, numpy_helper
from standin import ACTION_UNITS, CLASSES, Builder, finished, tiny_model, value, write_engine

from streamer.engine import OnnxEngine, load_engine
from streamer.errors import EngineError
from streamer.messages import GraphSample
from streamer.onnx_file import summarise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound engine folder."""
    return write_engine(tmp_path / "stand-in")


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

    monkeypatch.setattr("streamer.engines.onnx_runtime.check_model", parsed)
    monkeypatch.setattr("streamer.engines.onnx_runtime.ort.InferenceSession", parsed)
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
