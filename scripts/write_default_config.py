"""Writes configs/default.yaml from the settings' own defaults and docstrings (streamer/config.py).

python scripts/write_default_config.py
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path

import yaml

from streamer.cli import ONLY_FLAGS
from streamer.config import Config

PATH = Path(__file__).resolve().parent.parent / "configs" / "default.yaml"
WIDTH = 100
HEAD = """\
# Every setting at its default. Copy this file, keep the lines you want to change, and give it with --config.
# Flags win over it. An unknown key or a value out of range is an error.
# Written by scripts/write_default_config.py; change streamer/config.py instead.

"""


def render() -> str:
    """The text of configs/default.yaml."""
    return HEAD + "\n".join(_lines(Config(), indent=""))


def _lines(settings: object, indent: str) -> list[str]:
    comments = _docstrings(type(settings))
    lines = []
    for field in fields(settings):  # pyright: ignore[reportArgumentType]
        value = getattr(settings, field.name)
        if is_dataclass(value):
            comment = inspect.cleandoc(type(value).__doc__ or "")
            lines += ["", *_comment(comment, indent), f"{indent}{field.name}:", *_lines(value, indent + "  ")]
        elif indent or field.name not in ONLY_FLAGS:
            text = yaml.safe_dump(
                list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000
            )
            text = text.removesuffix("...\n").strip()
            lines += [*_comment(comments[field.name], indent), f"{indent}{field.name}: {text}"]
    return lines if indent else [*lines, ""]


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def _docstrings(cls: type) -> dict[str, str]:
    """What stands under each field of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = text
    return texts


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
