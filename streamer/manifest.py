"""The manifest of an engine: engines/<name>/manifest.json, read strictly.

It says what the engine is, what it eats and what it says, with a checksum of every file beside it. An
engine folder may come from anywhere, so nothing in it is believed before it is checked: sizes first, then
checksums, then types and values. Every problem is an `EngineError` that names the file, the key and the
remedy. `docs/engines.md` explains the keys one by one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamer.errors import EngineError
from streamer.graph import FeatureSpec, node_set_named
from streamer.strict_json import NAME, REMEDY, Keys, parse, read_bounded, short

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"
ENGINE_FILE = "model.engine"
BATCH_ENGINE_FILE = "model_batch.engine"
"""Serialised TensorRT engines: for one expression, and for batches."""

MAX_MANIFEST_BYTES = 1 << 20
# By suffix. A GTS-GN has under a megabyte of weights; these bounds are there to stop what is no engine.
MAX_FILE_BYTES = {".onnx": 64 << 20, ".safetensors": 64 << 20, ".engine": 256 << 20}
MAX_OTHER_FILE_BYTES = 4 << 20

Runtime = Literal["onnx", "tensorrt", "tensorrt-rtx"]
_RUNTIMES = ("onnx", "tensorrt", "tensorrt-rtx")
_DTYPES = ("float32", "float16")
_AU = re.compile(r"AU[1-9][0-9]?", re.ASCII)
_CAPABILITY = {
    "tensorrt": re.compile(r"[0-9]{1,2}\.[0-9]", re.ASCII),
    "tensorrt-rtx": re.compile(r"[0-9]{1,2}\.[0-9]\+?", re.ASCII),
}
_CAPABILITY_TEXT = {"tensorrt": 'like "8.9"', "tensorrt-rtx": 'like "8.9", or "8.0+" for that and later ones'}
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """sha256: 64 lower-case hexadecimal digits. bytes: exact size."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """The entry of a file on disk."""
        data = path.read_bytes()
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class Binding:
    """One tensor that goes in or comes out. shape: "batch" or a size, axis by axis."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, eq=True)
class Manifest:
    """What an engine is. Field by field in `docs/engines.md`.

    classes: class ids in the order of the output `scores`; class_names: id -> usual reading.
    action_units: names ("AU1") in the order of the output `action_units`; empty = no such output.
    features: the form of the node features that the engine was trained on.
    runtime_version, compute_capability: of a TensorRT build, None for "onnx".
    training: data, simulated, seed, protocol, and whatever else is worth keeping. metrics: free.
    """

    name: str
    opset: int
    classes: tuple[str, ...]
    class_names: dict[str, str]
    action_units: tuple[str, ...]
    features: FeatureSpec
    torch_version: str
    files: dict[str, FileEntry]
    training: dict[str, Any]
    metrics: dict[str, Any]
    runtime: Runtime = "onnx"
    runtime_version: str | None = None
    compute_capability: str | None = None
    dtype: Literal["float32", "float16"] = "float32"
    format_version: int = FORMAT_VERSION

    @property
    def inputs(self) -> tuple[Binding, ...]:
        """features: (batch, 3, nodes, 4) float32, see `streamer.graph`."""
        nodes = len(node_set_named(self.features.node_set))
        return (Binding("features", ("batch", 3, nodes, 4), "float32"),)

    @property
    def outputs(self) -> tuple[Binding, ...]:
        """scores: (batch, classes), softmax; action_units: (batch, aus), sigmoid; both probabilities."""
        scores = Binding("scores", ("batch", len(self.classes)), "float32")
        if not self.action_units:
            return (scores,)
        return (scores, Binding("action_units", ("batch", len(self.action_units)), "float32"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values in the order of the file."""
        return {
            "format_version": self.format_version,
            "name": self.name,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "compute_capability": self.compute_capability,
            "opset": self.opset,
            "dtype": self.dtype,
            "classes": list(self.classes),
            "class_names": dict(self.class_names),
            "action_units": list(self.action_units),
            "features": self.features.as_dict(),
            "inputs": _bindings_as_list(self.inputs),
            "outputs": _bindings_as_list(self.outputs),
            "torch_version": self.torch_version,
            "files": {
                name: {"sha256": entry.sha256, "bytes": entry.bytes} for name, entry in self.files.items()
            },
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, values: Any, where: str = MANIFEST_FILE) -> Manifest:
        """The manifest of these plain values; `where` is named in errors.

        Raises: EngineError for an unknown or missing key, and for a value that cannot be right.
        """
        return _parse(Keys(values, where))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check `folder`/manifest.json. The other files are left alone: see `verify`.

        Raises: EngineError.
        """
        path = folder / MANIFEST_FILE
        data = read_bounded(path, MAX_MANIFEST_BYTES)
        return cls.from_dict(parse(data, path), str(path))

    def write(self, folder: Path) -> Path:
        """Check this manifest, and the files that it lists, and write `folder`/manifest.json.

        Returns the path. Raises: EngineError if `read` and `verify` would refuse the result.
        """
        path = folder / MANIFEST_FILE
        Manifest.from_dict(self.as_dict(), str(path))
        self.verify(folder)
        text = json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        if len(text.encode()) > MAX_MANIFEST_BYTES:
            raise EngineError(
                f"{path}: over {MAX_MANIFEST_BYTES} bytes; keep less in 'training' and 'metrics'"
            )
        partial = path.with_suffix(".json.partial")
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
        return path

    def verify(self, folder: Path, names: Iterable[str] | None = None) -> None:
        """Check size and SHA-256 of the listed files (of those in `names` only, if given).

        Raises: EngineError naming the first file that differs.
        """
        for name in self.files if names is None else names:
            self.read_file(folder, name)

    def read_file(self, folder: Path, name: str) -> bytes:
        """The bytes of a listed file, after its size and SHA-256 have been checked.

        Raises: EngineError.
        """
        path = folder / name
        entry = self.files.get(name)
        if entry is None:
            raise EngineError(f"{folder / MANIFEST_FILE}: key 'files' does not list {name}; {REMEDY}")
        data = read_bounded(path, _max_bytes(name))
        if len(data) != entry.bytes:
            raise EngineError(f"{path}: has {len(data)} bytes, the manifest says {entry.bytes}; {REMEDY}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise EngineError(f"{path}: its SHA-256 is not the manifest's, the file was changed; {REMEDY}")
        return data


def _bindings_as_list(bindings: Iterable[Binding]) -> list[dict[str, Any]]:
    return [{"name": b.name, "shape": list(b.shape), "dtype": b.dtype} for b in bindings]


def _max_bytes(name: str) -> int:
    return MAX_FILE_BYTES.get(Path(name).suffix, MAX_OTHER_FILE_BYTES)


_KEYS = (
    *("format_version", "name", "runtime", "runtime_version", "compute_capability", "opset", "dtype"),
    *("classes", "class_names", "action_units", "features", "inputs", "outputs", "torch_version"),
    *("files", "training", "metrics"),
)


def _parse(keys: Keys) -> Manifest:
    # The version comes first: a later format may differ in everything else.
    version = keys.integer("format_version", 0, 1 << 31)
    if version != FORMAT_VERSION:
        raise EngineError(
            f"{keys.where}: key 'format_version' is {version}, this version of the recogniser reads"
            f" {FORMAT_VERSION}; export the engine again (python -m train export) or update the recogniser"
        )
    keys.exactly(_KEYS)
    runtime: Runtime = keys.choice("runtime", _RUNTIMES)
    runtime_version = compute_capability = None
    if runtime == "onnx":
        for key in ("runtime_version", "compute_capability"):
            if keys.get(key) is not None:
                raise keys.error(key, "must be null for the runtime onnx")
    else:
        runtime_version = keys.text("runtime_version", 40)
        compute_capability = keys.pattern(
            "compute_capability", _CAPABILITY[runtime], _CAPABILITY_TEXT[runtime]
        )
    classes = keys.list_of("classes", NAME, "class ids", 2, 64)
    class_names = keys.object("class_names")
    class_names.exactly(classes)
    try:
        features = FeatureSpec.from_dict(keys.object("features").values)
    except ValueError as error:
        raise keys.error("features", f"is not usable: {str(error)[:200]}") from error
    training = keys.object("training")
    training.text("data", 2000)
    training.boolean("simulated")
    training.integer("seed", 0, (1 << 63) - 1)
    training.text("protocol", 2000)
    manifest = Manifest(
        name=keys.name("name"),
        opset=keys.integer("opset", 7, 99),
        classes=classes,
        class_names={key: class_names.text(key, 60) for key in classes},
        action_units=keys.list_of("action_units", _AU, 'action units like "AU12"', 0, 64),
        features=features,
        torch_version=keys.text("torch_version", 60),
        files=_parse_files(keys.object("files")),
        training=keys.free("training"),
        metrics=keys.free("metrics"),
        runtime=runtime,
        runtime_version=runtime_version,
        compute_capability=compute_capability,
        dtype=keys.choice("dtype", _DTYPES),
    )
    if runtime == "onnx" and ONNX_FILE not in manifest.files:
        raise keys.error("files", f"does not list {ONNX_FILE}, which the runtime onnx needs")
    # The bindings follow from the rest; they are written out for people and for other programs.
    for key, expected in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        if not _same(keys.get(key), _bindings_as_list(expected)):
            raise keys.error(
                key, f"must be {json.dumps(_bindings_as_list(expected))} for these features and classes"
            )
    return manifest


def _parse_files(files: Keys) -> dict[str, FileEntry]:
    if not 1 <= len(files.values) <= 32:
        raise EngineError(f"{files.where}: key 'files' must list 1 to 32 files; {REMEDY}")
    entries = {}
    for name in files.values:
        # Plain names only: no folder, no "..", no drive, and not the manifest, which cannot hold its own sum.
        if not NAME.fullmatch(name) or name.lower() == MANIFEST_FILE:
            raise EngineError(
                f"{files.where}: key 'files' lists {short(name)};"
                f" must be plain file names of the same folder; {REMEDY}"
            )
        entry = files.object(name)
        entry.exactly(("sha256", "bytes"))
        sha256 = entry.pattern("sha256", _SHA256, "64 lower-case hexadecimal digits")
        entries[name] = FileEntry(sha256, entry.integer("bytes", 0, _max_bytes(name)))
    return entries


def _same(value: Any, expected: Any) -> bool:
    """Equal in type too: in Python 3 == 3.0 and 1 == True."""
    if type(value) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(_same, value, expected))
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_same(value[k], expected[k]) for k in expected)
    return value == expected
