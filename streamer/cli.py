"""Flags and YAML files into `Config`, strictly: what is not understood is an error, never ignored."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from streamer.config import Bounds, Config
from streamer.errors import UsageError

T = TypeVar("T")

FILE_BYTES = 100_000
"""A larger configuration file is a mistake: the defaults with all comments take a tenth of it."""
ONLY_FLAGS = ("config", "list_cameras")
"""Settings that make no sense inside a configuration file."""


def load_config(argv: Sequence[str]) -> Config:
    """The settings of one run: flags over the `--config` file over the defaults.

    Args:
        argv: the command line without the program's name.

    Raises:
        UsageError: the file cannot be read, or a setting is unknown, of the wrong type or out of range;
            there is nothing to recognise, or two things.
        SystemExit: the flags cannot be parsed (2, after a message on standard error), or `--help` (0).
    """
    config = _parse(argv, Config())
    if config.config is not None:
        from_file = read_config(config.config)
        # A source or camera on the command line replaces whichever of the two the file names.
        if config.source is not None or config.camera is not None:
            from_file = replace(from_file, source=None, camera=None)
        config = _parse(argv, from_file)
    for name, value, hint in _settings(config):
        problem = _out_of_bounds(value, hint)
        if problem:
            raise UsageError(f"--{name.replace('_', '-')} is {value}: {problem}")
    if config.motion.crop_iod_min_px > config.motion.crop_iod_max_px:
        raise UsageError("--motion.crop-iod-min-px is larger than --motion.crop-iod-max-px: swap them")
    if config.list_cameras:
        return config
    if config.camera is not None and config.source is not None:
        raise UsageError("a camera and a source are given: choose one, --camera or --source")
    if config.camera is None and config.source is None:
        raise UsageError(
            "nothing to recognise: give --camera 0, --source FILE|FOLDER|URL, or --source sample "
            "(--help lists every flag)"
        )
    return config


def _parse(argv: Sequence[str], default: Config) -> Config:
    return tyro.cli(
        Config, prog="python -m streamer", args=argv, default=default, config=(tyro.conf.DisallowNone,)
    )


def read_config(path: Path) -> Config:
    """Read a YAML file with any of the settings; the others keep their defaults.

    Relative paths in it are relative to the working folder, as they are in flags.

    Raises:
        UsageError: names the file, the key and what to do.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES:
        raise UsageError(f"--config {path} is larger than {FILE_BYTES} bytes: is it the right file?")
    try:
        content = yaml.load(data, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    # ValueError: not UTF-8, or what YAML 1.1 takes for a date or a number and is none.
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: nested far too deeply for a configuration file") from error
    return _build(Config, content, str(path), "")


class _StrictLoader(yaml.SafeLoader):
    """YAML without repeated keys, of which PyYAML would keep the last without a word, and without
    aliases, with which a small file can describe a gigantic one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed here", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _build(cls: type[T], content: object, file: str, prefix: str) -> T:
    """An instance of a settings dataclass from what YAML gave for it."""
    where = f"{file}: {prefix.rstrip('.')}" if prefix else file
    if content is None:  # A section, or a file, all of whose lines are comments.
        content = {}
    if not isinstance(content, Mapping):
        raise UsageError(f"{where}: expected 'key: value' lines, got {_kind(content)}")
    hints = get_type_hints(cls, include_extras=True)
    known = [name for name in hints if prefix or name not in ONLY_FLAGS]
    values = {}
    for key, value in content.items():
        if key in ONLY_FLAGS and not prefix:
            raise UsageError(
                f"{file}: {key} is a flag only: give --{key.replace('_', '-')} and remove it here"
            )
        if key not in known:
            shown = key if isinstance(key, str) and key.isprintable() else repr(key)
            raise UsageError(f"{file}: unknown key {prefix}{shown}: {_suggest(str(key), known, prefix)}")
        hint = hints[key]
        if is_dataclass(hint) and isinstance(hint, type):
            values[key] = _build(hint, value, file, f"{prefix}{key}.")
        else:
            try:
                values[key] = _convert(value, hint)
            except (ValueError, OverflowError) as error:  # OverflowError: a whole number beyond any decimal
                raise UsageError(f"{file}: {prefix}{key}: {error}") from error
            problem = _out_of_bounds(values[key], hint)
            if problem:
                raise UsageError(f"{file}: {prefix}{key} is {value}: {problem}")
    return cls(**values)


def _suggest(key: str, known: list[str], prefix: str) -> str:
    for section in fields(Config):
        # A key on the wrong level is the likeliest mistake of all.
        inner = section.default_factory if section.default_factory is not MISSING else None
        if not prefix and isinstance(inner, type) and key in {field.name for field in fields(inner)}:
            return f"it belongs under '{section.name}:'"
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"known keys: {', '.join(known)}"


def _convert(value: object, hint: Any) -> object:
    """A value as the type that the dataclass wants; no guessing beyond whole numbers as decimals.

    Raises:
        ValueError: another type; the text says what is expected.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _convert(value, arguments[0])
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _convert(value, inner)
    if origin is Literal:
        if value in arguments and isinstance(value, str):
            return value
        raise ValueError(f"expected one of {', '.join(arguments)}, got {_kind(value)}")
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise ValueError(f"expected a list like [0.1, 0.2], got {_kind(value)}")
        return tuple(_convert(item, arguments[0]) for item in value)
    if hint is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"expected {_EXPECTED[hint]}, got {_kind(value)}{_advice(value, hint)}")


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    return f"{'text ' if isinstance(value, str) else ''}{value!r}"


def _advice(value: object, hint: type) -> str:
    if hint in (str, Path) and not isinstance(value, (Mapping, list)) and value is not None:
        return ": put it in quotes"
    if hint in (int, float) and isinstance(value, str):
        try:
            return f": write {float(value)!r}, without quotes"
        except ValueError:
            pass
    return ""


def _settings(config: object, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every setting as (dotted name, value, type)."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if is_dataclass(value):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, hint


def _out_of_bounds(value: object, hint: Any) -> str | None:
    """What is wrong with a number, or None. Every number is finite and not negative at least."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        hint = next(argument for argument in arguments if argument is not types.NoneType)
        origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(value, tuple):
        if not value:
            return "give at least one number"
        return next((problem for item in value if (problem := _out_of_bounds(item, arguments[0]))), None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    bounds = next((item for item in arguments if isinstance(item, Bounds)), Bounds())
    if not math.isfinite(value):
        return "it has to be a finite number"
    if bounds.above is not None and value <= bounds.above:
        return f"it has to be more than {bounds.above:g}"
    if value < bounds.least:
        return f"it has to be at least {bounds.least:g}"
    if bounds.most is not None and value > bounds.most:
        return f"it has to be at most {bounds.most:g}"
    return None
