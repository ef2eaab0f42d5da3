"""Events as JSON: one object a line, and the JSON Schema (2020-12) that describes it.

`to_dict` and `to_json` write what `streamer.messages.Event` holds: `type` first, then the dataclass's
fields in their order. One table, `FIELDS`, says of every field what it means, its unit, its range and how
many decimals are written, so that the schema and the writing cannot disagree.
`python -m streamer.events` prints the schema (`docs/events.schema.json` is that print).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from streamer import messages
from streamer.messages import Event, KeyFrame

TYPES: dict[type, str] = {
    messages.StreamStarted: "stream_started",
    messages.MicroExpression: "micro_expression",
    messages.MacroExpression: "macro_expression",
    messages.FaceFound: "face_found",
    messages.FaceLost: "face_lost",
    messages.StreamGap: "stream_gap",
    messages.SourceReconnected: "source_reconnected",
    messages.StreamEnded: "stream_ended",
}
"""Every event and the word that its `type` field carries."""


@dataclass(frozen=True)
class FieldSpec:
    """What one field of an event is: its JSON Schema, and the decimals to which its floats are rounded."""

    schema: dict[str, Any]
    decimals: int | None = None


def _seconds(meaning: str) -> FieldSpec:
    return FieldSpec({"description": f"{meaning}, seconds.", "type": "number", "minimum": 0}, decimals=6)


def _milliseconds(meaning: str) -> FieldSpec:
    return FieldSpec({"description": f"{meaning}, milliseconds.", "type": "number", "minimum": 0}, decimals=1)


def _count(meaning: str) -> FieldSpec:
    return FieldSpec({"description": meaning, "type": "integer", "minimum": 0})


def _text(meaning: str) -> FieldSpec:
    return FieldSpec({"description": meaning, "type": "string"})


def _key_frame(meaning: str) -> FieldSpec:
    return FieldSpec({"description": meaning, "$ref": "#/$defs/key_frame"})


def _map(meaning: str, values: dict[str, Any], decimals: int | None = None) -> FieldSpec:
    schema = {"description": meaning, "type": "object", "additionalProperties": values}
    return FieldSpec(schema, decimals)


_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT = {"type": "integer", "minimum": 0}
_PERCENTILES = {
    "type": "object",
    "properties": {name: {"type": "number", "minimum": 0} for name in ("p50", "p95", "p99")},
    "required": ["p50", "p95", "p99"],
}

FIELDS: dict[str, FieldSpec] = {
    # where and when
    "frame": _count("0-based index of the frame in the source; dropped frames keep their numbers."),
    "time_s": _seconds("Time of the frame by the source's own timestamps, from its first frame"),
    "gap_s": _seconds("How long no frame came"),
    "lost_s": _seconds("How long the source was lost"),
    "duration_s": _seconds("Time of the last frame less time of the first, by the source's timestamps"),
    "latency_ms": _milliseconds("From the offset frame to the decision"),
    # expressions
    "id": _count("Number of the expression in this stream, counted from 1."),
    "onset": _key_frame("First frame of the movement."),
    "apex": _key_frame("Frame of the largest movement."),
    "offset": _key_frame("Frame in which the movement is over."),
    "label": _text("The most probable class: a key of `scores` and of stream_started's `classes`."),
    "name": _text("The usual reading of that class. It names a category of movement, not a feeling."),
    "scores": _map("Probability of each class; they sum to 1.", _PROBABILITY, decimals=4),
    "action_units": _map("Probability of each FACS action unit, each for itself.", _PROBABILITY, decimals=4),
    "strength": FieldSpec(
        {
            "description": "Largest displacement of any node, inter-ocular distances (0.01 = 1 %).",
            "type": "number",
            "minimum": 0,
        },
        decimals=5,
    ),
    "confidence": FieldSpec(
        {"description": "Probability that this is an expression, of whatever class.", **_PROBABILITY},
        decimals=4,
    ),
    # the stream
    "source": _text("What was opened, as the user named it, without credentials."),
    "width": _count("Width of the frames, pixels."),
    "height": _count("Height of the frames, pixels."),
    "fps": FieldSpec(
        {
            "description": "Nominal frame rate, frames per second; null when the source does not say.",
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
        },
        decimals=3,
    ),
    "engine": _text("Name of the engine that classifies."),
    "classes": _map("Class labels and their usual readings.", {"type": "string"}),
    "others": _count("Further faces in the frame, which are not followed."),
    "attempts": _count("Tries that it took to open the source again."),
    "cause": _text("What went wrong, in one line."),
    "reason": _text("Why the stream ended: 'end of source', 'max frames', 'interrupted' or what went wrong."),
    "frames": _count("Frames processed."),
    "micro_expressions": _count("micro_expression events in this stream."),
    "macro_expressions": _count("macro_expression events in this stream."),
    "drops": _map("Frames lost before processing, by cause.", _COUNT),
    "rejected": _map("Spotted movements that were not reported, by cause.", _COUNT),
    "stages_ms": _map("Time per frame of each stage, milliseconds: percentiles.", _PERCENTILES, decimals=3),
}
"""Every field name an event can have. A name means the same in every event that has it."""


def to_dict(event: Event) -> dict[str, Any]:
    """The event as JSON-ready builtins: `type` first, then its fields in order, floats rounded.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot carry.
        TypeError: a field holds something that the schema does not allow there.
    """
    kind = TYPES[type(event)]
    values = {f.name: _value(getattr(event, f.name), f.name, kind) for f in fields(event)}
    return {"type": kind, **values}


def to_json(event: Event) -> str:
    """The event as one line of strict JSON, without the newline.

    Only ASCII is written, so the line means the same in any encoding and cannot hold a line break.
    """
    return json.dumps(to_dict(event), separators=(",", ":"), allow_nan=False)


def _value(value: Any, name: str, kind: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            raise ValueError(f"{kind}.{name} is {value}; events carry finite numbers only")
        decimals = FIELDS[name].decimals
        if decimals is None:
            raise TypeError(f"{kind}.{name} is {value}, but the field holds whole numbers")
        return round(float(value), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, str):
        # A file name that is not UTF-8 arrives with lone surrogates, which JSON readers refuse.
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, KeyFrame):
        return {f.name: _value(getattr(value, f.name), f.name, kind) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _value(item, name, kind) for key, item in value.items()}
    raise TypeError(f"{kind}.{name} holds a {type(value).__name__}, which events do not carry")


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line. Unknown further fields are allowed: later versions may add some."""
    events = {kind: _object_schema(cls, kind) for cls, kind in TYPES.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event of the micro-expression recogniser",
        "description": "One line of the JSON Lines output. See docs/events.md.",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in events],
        "$defs": {"key_frame": _object_schema(KeyFrame), **events},
    }


def _object_schema(cls: type, kind: str | None = None) -> dict[str, Any]:
    properties = {"type": {"const": kind}} if kind else {}
    properties |= {f.name: FIELDS[f.name].schema for f in fields(cls)}
    summary = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    has_summary = summary and not summary.startswith(f"{cls.__name__}(")  # dataclass writes its signature
    return {
        **({"description": summary} if has_summary else {}),
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
