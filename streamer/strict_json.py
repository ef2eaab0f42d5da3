"""JSON from anywhere, read strictly: bounded, without repeated keys, each value checked as it is taken.

Every problem is an `EngineError` in one line that names the file, the key and the remedy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from streamer.errors import EngineError

REMEDY = "restore the folder or export the engine again (python -m train export)"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MAX_DEPTH = 8


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes."""
    try:
        if not path.is_file():  # a directory, a pipe, or nothing
            raise EngineError(f"{path}: there is no such file; {REMEDY}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror or error}); {REMEDY}") from error
    if len(data) > limit:
        raise EngineError(f"{path}: over {limit} bytes, which is no engine's size; {REMEDY}")
    return data


def parse(data: bytes, path: Path) -> Any:
    """The value of a JSON file.

    Raises: EngineError if it is none, or has NaN, infinity or a key twice.
    """
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise EngineError(f"{path}: not a JSON manifest ({reason}); {REMEDY}") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return keys


class Keys:
    """One JSON object of the manifest, read key by key; an error names the file and the key."""

    def __init__(self, values: Any, where: str, prefix: str = "") -> None:
        self.where = where
        self.prefix = prefix
        if not isinstance(values, Mapping):
            name = f"key '{prefix[:-1]}'" if prefix else "the manifest"
            raise EngineError(f"{where}: {name} must be an object; {REMEDY}")
        self.values = values

    def error(self, key: str, problem: str) -> EngineError:
        return EngineError(f"{self.where}: key '{self.prefix}{key}' {problem}; {REMEDY}")

    def exactly(self, keys: Iterable[str]) -> None:
        known = list(keys)
        for key in self.values:
            if key not in known:
                name = short(self.prefix + str(key))
                raise EngineError(f"{self.where}: unknown key {name}; known: {', '.join(known)}; {REMEDY}")
        for key in known:
            self.get(key)

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(key, "is missing")
        return self.values[key]

    def text(self, key: str, longest: int = 200) -> str:
        value = self.get(key)
        if not _is_text(value, longest):
            raise self.error(key, f"is {short(value)}; must be printable text of 1 to {longest} characters")
        return value

    def name(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise self.error(
                key, f"is {short(value)}; must be 1 to 64 letters, digits, dots, dashes, underscores"
            )
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.get(key)
        if type(value) is not int or not low <= value <= high:  # a bool is no number here
            raise self.error(key, f"is {short(value)}; must be an integer from {low} to {high}")
        return value

    def boolean(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.error(key, f"is {short(value)}; must be true or false")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> Any:
        value = self.get(key)
        if value not in allowed:
            raise self.error(key, f"is {short(value)}; must be one of {', '.join(allowed)}")
        return value

    def pattern(self, key: str, pattern: re.Pattern[str], meaning: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(key, f"is {short(value)}; must be {meaning}")
        return value

    def list_of(
        self, key: str, pattern: re.Pattern[str], meaning: str, low: int, high: int
    ) -> tuple[str, ...]:
        value = self.get(key)
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise self.error(key, f"must be a list of {low} to {high} {meaning}")
        for item in value:
            if not isinstance(item, str) or not pattern.fullmatch(item):
                raise self.error(key, f"holds {short(item)}; must hold {meaning}")
        if len(set(value)) != len(value):
            raise self.error(key, "holds something twice")
        return tuple(value)

    def object(self, key: str) -> Keys:
        return Keys(self.get(key), self.where, f"{self.prefix}{key}.")

    def free(self, key: str) -> dict[str, Any]:
        """An object whose keys the format leaves open: finite numbers, short text, not too deep."""
        values = dict(self.object(key).values)
        if not _is_plain(values, _MAX_DEPTH):
            raise self.error(key, "must hold finite numbers, texts, lists and objects, not nested deeply")
        return values


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


def short(value: Any) -> str:
    """A value as it may stand in an error line: escaped and not long."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
