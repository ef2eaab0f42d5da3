"""Events as JSON: the schema, the documented contract, strictness."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import jsonschema
import numpy as np
import pytest
from sink_samples import micro, one_of_each

from streamer import events
from streamer.messages import Event, FaceFound, StreamEnded, StreamStarted

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA = json.loads((DOCS / "events.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def parse(line: str) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_every_kind_of_event_has_a_type_and_a_sample():
    assert set(events.TYPES) == set(get_args(Event))
    assert {type(event) for event in one_of_each()} == set(events.TYPES)


@pytest.mark.parametrize("event", one_of_each(), ids=lambda event: type(event).__name__)
def test_event_is_valid_by_the_documented_schema_and_in_the_documented_order(event):
    line = events.to_json(event)
    assert "\n" not in line and line.isascii()
    written = parse(line)
    VALIDATOR.validate(written)
    assert list(written) == ["type", *(f.name for f in fields(event))]
    assert written["type"] == events.TYPES[type(event)]


def test_schema_in_docs_is_the_one_that_the_program_prints():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert events.json_schema() == SCHEMA, "run: python -m streamer.events > docs/events.schema.json"


def test_documentation_names_every_type_with_its_fields_and_shows_valid_events():
    text = (DOCS / "events.md").read_text()
    for cls, kind in events.TYPES.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}`"))
        assert row.split("|")[3].split() == [f"`{f.name}`" for f in fields(cls)]
    examples = [line for line in text.splitlines() if line.startswith('{"type"')]
    assert len(examples) == 4
    for example in examples:
        VALIDATOR.validate(parse(example))


def test_schema_refuses_what_is_not_an_event():
    good = events.to_dict(micro())
    wrong = [
        {**good, "type": "microexpression"},
        {**good, "scores": {"I": 1.5}},
        {**good, "apex": {"frame": 3}},
        {**good, "id": "1"},
        {**good, "strength": None},
        {key: value for key, value in good.items() if key != "latency_ms"},
    ]
    for event in wrong:
        assert not VALIDATOR.is_valid(event), event
    assert VALIDATOR.is_valid({**good, "a later field": 1})


def test_the_contract_to_the_letter():
    line = events.to_json(micro(apex_s=31 / 30))
    assert line == (
        '{"type":"micro_expression","id":1,"onset":{"frame":28,"time_s":0.933333},'
        '"apex":{"frame":31,"time_s":1.033333},"offset":{"frame":34,"time_s":1.133333},'
        '"label":"III","name":"anger","scores":{"I":0.1235,"III":0.8765},'
        '"action_units":{"AU4":0.9123,"AU7":0.55,"AU23":0.1},"strength":0.01634,"confidence":0.8765,"latency_ms":66.7}'
    )


def test_rounding_never_writes_a_negative_zero():
    assert '"strength":0.0,' in events.to_json(replace(micro(), strength=-1e-9))


def test_numpy_numbers_become_plain_ones():
    event = replace(micro(), id=np.int64(7), strength=np.float32(0.25), scores={"III": np.float64(1.0)})
    written = parse(events.to_json(event))
    assert written["id"] == 7 and written["strength"] == 0.25 and written["scores"] == {"III": 1.0}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_numbers_that_json_cannot_carry_are_refused_by_name(number):
    with pytest.raises(ValueError, match="micro_expression.strength"):
        events.to_json(replace(micro(), strength=number))
    with pytest.raises(ValueError, match="micro_expression.scores"):
        events.to_json(replace(micro(), scores={"I": number}))


def test_fractions_of_counted_things_and_foreign_values_are_refused():
    with pytest.raises(TypeError, match="face_found.others"):
        events.to_json(FaceFound(0, 0.0, 1.5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="stream_ended.drops"):
        events.to_json(StreamEnded("x", 1, 1.0, 0, 0, drops=[1]))  # pyright: ignore[reportArgumentType]


def test_unknown_frame_rate_is_null():
    started = StreamStarted("camera 0", 640, 480, None, "e", {})
    assert events.to_dict(started)["fps"] is None
    VALIDATOR.validate(events.to_dict(started))


def test_text_from_outside_stays_on_its_line_and_is_valid_unicode():
    odd = "a\nb\x1b[31m\u2028\udcff\u5317.mp4"  # \udcff: a byte of a file name that is not UTF-8
    line = events.to_json(StreamStarted(odd, 1, 1, 30.0, "e", {}))
    assert len(line.splitlines()) == 1
    assert parse(line)["source"] == "a\nb\x1b[31m\u2028?\u5317.mp4"
    parse(line)["source"].encode("utf-8")
