"""The manifest of an engine: engines/<name>/manifest.json, read strictly.

It says what the engine is, what it eats and what it says, with a checksum of every file beside it. An
engine folder may come from anywhere, so nothing in it is believed before it is checked: sizes first, then
checksums, then types and values. Every problem is an `EngineError` that names the file, the key and the
remedy. `docs/engines.md` explains the keys one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from streamer.errors import EngineError
from streamer.graph import FeatureSpec, node_set_named

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"

MAX_MANIFEST_BYTES = 1 << 20
# By suffix. A GTS-GN has under a megabyte of weights; these bounds are there to stop what is no engine.
MAX_FILE_BYTES = {".onnx": 64 << 20, ".safetensors": 64 << 20, ".engine": 256 << 20}
MAX_OTHER_FILE_BYTES = 4 << 20

Runtime = Literal["onnx", "tensorrt", "tensorrt-rtx"]
_RUNTIMES = ("onnx", "tensorrt", "tensorrt-rtx")
_DTYPES = ("float32", "float16")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_AU = re.compile(r"AU[1-9][0-9]?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REMEDY = "restore the folder or export the engine again (python -m train export)"
_MAX_DEPTH = 8


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
        return _parse(_Keys(values, where))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check `folder`/manifest.json. The other files are left alone: see `verify`.

        Raises: EngineError.
        """
        path = folder / MANIFEST_FILE
        data = _read_bounded(path, MAX_MANIFEST_BYTES)
        try:
            values = json.loads(
                data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
            )
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise EngineError(f"{path}: not a JSON manifest ({reason}); {_REMEDY}") from error
        return cls.from_dict(values, str(path))

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
            raise EngineError(f"{folder / MANIFEST_FILE}: key 'files' does not list {name}; {_REMEDY}")
        data = _read_bounded(path, _max_bytes(name))
        if len(data) != entry.bytes:
            raise EngineError(f"{path}: has {len(data)} bytes, the manifest says {entry.bytes}; {_REMEDY}")
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise EngineError(f"{path}: its SHA-256 is not the manifest's, the file was changed; {_REMEDY}")
        return data


def _bindings_as_list(bindings: Iterable[Binding]) -> list[dict[str, Any]]:
    return [{"name": b.name, "shape": list(b.shape), "dtype": b.dtype} for b in bindings]


def _max_bytes(name: str) -> int:
    return MAX_FILE_BYTES.get(Path(name).suffix, MAX_OTHER_FILE_BYTES)


def _read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes."""
    try:
        if not path.is_file():  # a directory, a pipe, or nothing
            raise EngineError(f"{path}: there is no such file; {_REMEDY}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from error
    if len(data) > limit:
        raise EngineError(f"{path}: over {limit} bytes, which is no engine's size; {_REMEDY}")
    return data


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return keys


class _Keys:
    """One JSON object of the manifest, read key by key; an error names the file and the key."""

    def __init__(self, values: Any, where: str, prefix: str = "") -> None:
        self.where = where
        self.prefix = prefix
        if not isinstance(values, Mapping):
            name = f"key '{prefix[:-1]}'" if prefix else "the manifest"
            raise EngineError(f"{where}: {name} must be an object; {_REMEDY}")
        self.values = values

    def error(self, key: str, problem: str) -> EngineError:
        return EngineError(f"{self.where}: key '{self.prefix}{key}' {problem}; {_REMEDY}")

    def exactly(self, keys: Iterable[str]) -> None:
        known = list(keys)
        for key in self.values:
            if key not in known:
                name = _short(self.prefix + str(key))
                raise EngineError(f"{self.where}: unknown key {name}; known: {', '.join(known)}; {_REMEDY}")
        for key in known:
            self.get(key)

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(key, "is missing")
        return self.values[key]

    def text(self, key: str, longest: int = 200) -> str:
        value = self.get(key)
        if not _is_text(value, longest):
            raise self.error(key, f"is {_short(value)}; must be printable text of 1 to {longest} characters")
        return value

    def name(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self.error(
                key, f"is {_short(value)}; must be 1 to 64 letters, digits, dots, dashes, underscores"
            )
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if type(value) is not int or not low <= value <= high:  # a bool is no number here
            raise self.error(key, f"is {_short(value)}; must be an integer from {low} to {high}")
        return value

    def boolean(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.error(key, f"is {_short(value)}; must be true or false")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> Any:
        value = self.get(key)
        if value not in allowed:
            raise self.error(key, f"is {_short(value)}; must be one of {', '.join(allowed)}")
        return value

    def pattern(self, key: str, pattern: re.Pattern[str], meaning: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(key, f"is {_short(value)}; must be {meaning}")
        return value

    def list_of(
        self, key: str, pattern: re.Pattern[str], meaning: str, low: int, high: int
    ) -> tuple[str, ...]:
        value = self.get(key)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.error(key, f"must be a list of {low} to {high} {meaning}")
        for item in value:
            if not isinstance(item, str) or not pattern.fullmatch(item):
                raise self.error(key, f"holds {_short(item)}; must hold {meaning}")
        if len(set(value)) != len(value):
            raise self.error(key, "holds something twice")
        return tuple(value)

    def object(self, key: str) -> _Keys:
        return _Keys(self.get(key), self.where, f"{self.prefix}{key}.")

    def free(self, key: str) -> dict[str, Any]:
        """An object whose keys the format leaves open: finite numbers, short text, not too deep."""
        values = dict(self.object(key).values)
        if not _is_plain(values, _MAX_DEPTH):
            raise self.error(key, "must hold finite numbers, texts, lists and objects, not nested deeply")
        return values


_KEYS = (
    *("format_version", "name", "runtime", "runtime_version", "compute_capability", "opset", "dtype"),
    *("classes", "class_names", "action_units", "features", "inputs", "outputs", "torch_version"),
    *("files", "training", "metrics"),
)


def _parse(keys: _Keys) -> Manifest:
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
            "compute_capability", re.compile(r"[0-9]{1,2}\.[0-9]", re.ASCII), 'like "8.9"'
        )
    classes = keys.list_of("classes", _NAME, "class ids", 2, 64)
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


def _parse_files(files: _Keys) -> dict[str, FileEntry]:
    if not 1 <= len(files.values) <= 32:
        raise EngineError(f"{files.where}: key 'files' must list 1 to 32 files; {_REMEDY}")
    entries = {}
    for name in files.values:
        # Plain names only: no folder, no "..", no drive, and not the manifest, which cannot hold its own sum.
        if not _NAME.fullmatch(name) or name.lower() == MANIFEST_FILE:
            raise EngineError(
                f"{files.where}: key 'files' lists {_short(name)};"
                f" must be plain file names of the same folder; {_REMEDY}"
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


def _is_text(value: Any, longest: int) -> bool:
    """Non-empty and printable: names reach a terminal, where a control character could do harm."""
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _is_plain(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) < 1 << 64
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= 10_000
    if depth == 0:
        return False
    if isinstance(value, list):
        return all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and len(key) <= 200 and _is_plain(item, depth - 1)
            for key, item in value.items()
        )
    return False


def _short(value: Any) -> str:
    """A value as it may stand in an error line: escaped and not long."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
