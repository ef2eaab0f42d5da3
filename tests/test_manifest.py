"""The manifest: strict, bounded, and every mistake in it is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import standin
from engine_folders import SHA, edit, put, refused
from standin import CLASSES, write_engine

from streamer.engine import Manifest, load_engine
from streamer.errors import EngineError
from streamer.manifest import MAX_MANIFEST_BYTES, FileEntry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound engine folder."""
    return write_engine(tmp_path / "stand-in")


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


TENSORRT: dict[str, Any] = {"runtime": "tensorrt-rtx", "runtime_version": "1.5", "compute_capability": "8.0+"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (put("runtime_version", None), "runtime_version"),
        (put("compute_capability", None), "compute_capability"),
        (put("compute_capability", "sm_89"), "compute_capability"),
        (put("compute_capability", "8.0-"), "compute_capability"),
        (put("runtime", "tensorrt"), "compute_capability"),  # which builds for one capability alone
        (put("features", "node_set", "gm99"), "features"),
    ],
)
def test_a_tensorrt_manifest_must_say_what_it_was_built_for(tmp_path, change, word):
    write_engine(tmp_path, **TENSORRT)
    edit(tmp_path, change)
    refused(tmp_path, word, device="auto")
