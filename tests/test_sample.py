"""The bundled clip, end to end, as a user runs it: spotted, named, the same on every run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.simulation.scoring import interval, iou, match, read_events, score
from train.sample import BLINKS_S, INJECTIONS, SHIPPED

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory, landmarker) -> list[list[dict]]:
    """The events of two runs, one to a file and one to standard output."""
    path = tmp_path_factory.mktemp("sample") / "events.jsonl"
    outputs = []
    for target in (str(path), "-"):
        done = subprocess.run(
            [sys.executable, "-m", "streamer", "--source", "sample", "--events", target],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == ""
    return [read_events(path), [json.loads(line) for line in outputs[1].splitlines()]]


def _truth() -> dict:
    return json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_truth_is_what_the_script_injects():
    truth = _truth()
    assert truth["simulated"] is True
    assert truth["blinks"] == list(BLINKS_S)
    assert [t["apex"]["time_s"] for t in truth["expressions"]] == [i.apex_s for i in INJECTIONS]
    assert {t["label"] for t in truth["expressions"]} == {"I", "II", "III", "IV", "V"}


def test_expressions_are_found_and_named(runs):
    truth = _truth()
    result = score(runs[0], truth["expressions"], truth["blinks"])
    assert result.found >= 5
    assert result.false <= 1
    assert result.right >= 4
    assert result.apex_ms is not None and result.apex_ms <= 50
    assert result.blinks == 0


def test_action_units_are_among_the_likely_ones(runs):
    """The true units' mean probability is well above that of the others."""
    truth = _truth()["expressions"]
    micro = [event for event in runs[0] if event["type"] == "micro_expression"]
    true, other = [], []
    for e, t in match(micro, truth):
        for unit, probability in micro[e]["action_units"].items():
            (true if unit in truth[t]["action_units"] else other).append(probability)
    assert sum(true) / len(true) > 2 * sum(other) / len(other)


def test_a_second_run_gives_the_same_events(runs):
    first, second = ([event for event in run if event["type"] != "stream_ended"] for run in runs)
    assert first == second
    ends = [{k: v for k, v in run[-1].items() if k != "stages_ms"} for run in runs]
    assert ends[0] == ends[1]


def test_the_stream_is_whole(runs):
    events = runs[0]
    assert events[0]["type"] == "stream_started"
    assert events[1]["type"] == "face_found"
    end = events[-1]
    assert (end["type"], end["frames"], end["drops"]) == ("stream_ended", 600, {})
    assert not [event for event in events if event["type"] in ("face_lost", "stream_gap")]
    micro = [event for event in events if event["type"] == "micro_expression"]
    assert [event["id"] for event in micro] == sorted(event["id"] for event in micro)
    for event in micro:
        assert event["onset"]["time_s"] < event["apex"]["time_s"] < event["offset"]["time_s"]
        assert event["latency_ms"] <= 200


def test_scoring_matches_one_to_one():
    def event(onset, offset, label="I"):
        return {
            "type": "micro_expression",
            "label": label,
            "onset": {"time_s": onset},
            "apex": {"time_s": (onset + offset) / 2},
            "offset": {"time_s": offset},
        }

    truth = [event(1.0, 1.4), event(3.0, 3.4, "II")]
    found = [event(1.05, 1.4), event(1.1, 1.4), event(3.0, 3.5, "III"), event(7.0, 7.2)]
    result = score(found, truth, blinks_s=[7.0])
    assert (result.found, result.missed, result.false, result.right, result.blinks) == (2, 0, 2, 1, 1)
    assert result.apex_ms == pytest.approx(37.5)
    assert result.f1 == pytest.approx(4 / 6)
    assert score([], []).f1 == 1.0
    assert iou((0, 1), (2, 3)) == 0.0
    assert interval(truth[0]) == (1.0, 1.4)
