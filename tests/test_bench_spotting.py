"""The spotting benchmark's run: the program as a user runs it, results kept, report written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streamer.bench import report, spotting
from streamer.bench.__main__ import main
from streamer.bench.clips import Encoding, RenderedClip, encode
from streamer.bench.plan import Job
from streamer.bench.spotting import OURS, WIDE, SpottingBenchConfig
from streamer.config import Config
from streamer.engine import load_engine
from streamer.errors import SourceError, UsageError
from streamer.pipeline import warm_up
from streamer.simulation.render import Clip, Injection
from streamer.tracking import MediaPipeTracker
from train.sample import SHIPPED

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def short_sample(tmp_path_factory) -> Path:
    """The first seconds of the bundled clip, with one expression."""
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    frames = (pair for pair in spotting.frames_of(SHIPPED) if pair[0] < 3.5)
    encode(frames, 30, Encoding(quality=12), path)
    return path


def test_events_are_those_of_the_command_line(short_sample, landmarker, tmp_path):
    """Also where the command line is new and compiles its kernels, which are in the cache here."""
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "--source", str(short_sample)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in (lines[0], lines[-1])] == ["stream_started", "stream_ended"]
    config = Config()
    engine = load_engine(config.engine, "cpu")
    tracker = MediaPipeTracker(landmarker, config.tracking)
    try:
        warm_up(config, engine)
        events = spotting.recognise(short_sample, config, tracker, engine)
    finally:
        tracker.close()
        engine.close()
    assert events == lines[1:-1]
    assert "micro_expression" in {event["type"] for event in events}


@pytest.fixture
def one_job(monkeypatch):
    """A plan of one short clip, in place of the real one; without footage."""
    smile = Injection({"12": 1.0}, 2.0, 2.2, 2.4, 0.02, "I")
    clip = Clip(width=320, height=240, iod_px=70.0, duration_s=3.5, injections=(smile,), seed=3)
    job = Job("displacement", "2", 2.0, "tuning", "micro", RenderedClip("astronaut", clip, Encoding()))
    monkeypatch.setattr(spotting, "plan", lambda scope: [job])
    monkeypatch.setattr(spotting, "footage_of", lambda config: {})
    return job


def test_a_run_from_end_to_end_and_again(one_job, tmp_path, landmarker, capsys):
    out, cache = tmp_path / "docs" / "spotting.json", tmp_path / "cache"
    config = SpottingBenchConfig(peers=False, workers=1, cache=cache, out=out)
    text = spotting.bench_spotting(config)
    figures = json.loads(out.read_text())
    (row,) = figures["rows"]
    assert (row["axis"], row["point"], row["clips"]) == ("displacement", "2", 1)
    known = row["detectors"][OURS]
    assert known["found"] + known["missed"] == 1
    assert figures["simulated"] is True and figures["command"].startswith("python -m streamer.bench spotting")
    assert str(tmp_path) not in out.read_text() + text
    assert "**simulated**" in text and out.with_suffix(".md").read_text() == text
    assert (out.parent / "spotting_displacement.png").stat().st_size > 1000

    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == 4  # the clip, its truth, our events, and those of all candidates
    spotting.bench_spotting(replace(config, out=None))
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept


def test_a_worker_that_fails_is_one_line(one_job, tmp_path, monkeypatch, landmarker, capsys):
    broken = replace(one_job, description=replace(one_job.description, portrait=str(tmp_path / "none.mp4")))
    monkeypatch.setattr(spotting, "plan", lambda scope: [broken])
    with pytest.raises(SourceError, match=r"none\.mp4 does not exist"):
        spotting.bench_spotting(SpottingBenchConfig(peers=False, workers=1, cache=tmp_path))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workers", "0"], "--workers is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--source", "nowhere.mp4"], "nowhere.mp4 does not exist"),
    ],
)
def test_flags_that_make_no_sense(flags, words, capsys):
    assert main(["spotting", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_gives_its_videos_and_none_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="holds no video"):
        spotting.own_clips([tmp_path])
    (tmp_path / "b.MP4").touch()
    (tmp_path / "a.mov").touch()
    (tmp_path / "c.txt").touch()
    assert [path.name for path in spotting.own_clips([tmp_path])] == ["a.mov", "b.MP4"]


def test_without_the_footage_the_rest_goes_on(monkeypatch, caplog):
    def offline():
        raise SourceError("the clips cannot be fetched: connect once")

    monkeypatch.setattr(spotting, "fetch_ravdess", offline)
    assert spotting.footage_of(SpottingBenchConfig()) == {}
    assert "connect once" in caplog.text


def test_the_command_names_no_place_of_this_machine(tmp_path):
    config = SpottingBenchConfig(
        axes=("real",), source=(tmp_path / "my clips",), cache=tmp_path, out=tmp_path / "x.json", peers=False
    )
    command = spotting.command_of(config)
    assert "--axes real" in command and "--no-peers" in command and "'my clips'" in command
    assert str(tmp_path) not in command


def _event(onset: float, **more) -> dict:
    times = {"onset": onset, "apex": onset + 0.15, "offset": onset + 0.3}
    return {
        "type": "micro_expression",
        "label": "I",
        **{key: {"time_s": t, "frame": round(t * 30)} for key, t in times.items()},
        **more,
    }


def _result(expressions: list, events: dict, activity: dict | None = None) -> dict:
    truth = {
        "expressions": expressions,
        "duration_s": 30.0,
        "blinks": [],
        "blink_length_s": 0.2,
        "activity": activity or {},
    }
    return {"truth": truth, "events": events}


@pytest.fixture
def figures() -> dict:
    """Figures of a made-up run: every kind of axis, peers, confidence, footage that was left out."""
    clip = RenderedClip("astronaut", Clip(), Encoding())
    jobs, results = [], []

    def add(axis, point, value, set_name, kind, result):
        jobs.append(Job(axis, point, value, set_name, kind, clip))
        results.append(result)

    sure, doubtful = _event(3.0, confidence=0.9), _event(9.0, confidence=0.2)
    for set_name in ("tuning", "held-out"):
        for value in (0.5, 1.0, 2.0):
            said = {OURS: [sure], "optical flow": [], WIDE: [sure, doubtful]}
            add("displacement", f"{value:g}", value, set_name, "micro", _result([_event(3.0)], said))
    add("noise", "2", 2.0, "tuning", "micro", _result([_event(3.0)], {OURS: [sure]}))
    add("slow", "1", 1.0, "tuning", "slow", _result([_event(3.0)], {OURS: [sure]}))
    add("uninjected", "head turns", 1.0, "tuning", "uninjected", _result([], {OURS: [], WIDE: [doubtful]}))
    activity = {"talking": [[0.0, 6.0]], "quiet": [[6.0, 30.0]]}
    add("real", "2", 2.0, "own", "micro", _result([_event(3.0)], {OURS: [sure]}, activity))
    add("real", "2", 2.0, "own", "micro", {"left_out": "a.mp4 shows no face"})
    setup = spotting.Setup(Path(), "gtsgn-simulated", Path(), {OURS: "0" * 64})
    return spotting.assemble(SpottingBenchConfig(), jobs, results, setup)


def test_the_report_has_a_table_for_every_kind_of_axis(figures):
    text = report.markdown(figures, ["spotting_displacement.png"])
    assert "| 0.5 | streamer | 1 of 1 | 0 | 1.00 | 1.00 | 1.00 | 0, 0, 0 | 1.00 | 1.00 | 1.00 |" in text
    assert "| 0.5 | optical flow | 0 of 1 | 0 | 0.00 | - | 0.00 |" in text
    assert "| 2 | 1 of 1 |" in text  # one detector alone is not named
    assert "| 1 | streamer | 1 | 0 | 1 |" in text  # slow: none as macro, one micro event over it
    assert "| head turns | streamer | 0.5 | 0 | 0.0 | 0 |" in text
    assert "| found while quiet | found while talking |" in text
    assert "| 0 of 0, 0 false | 1 of 1, 0 false |" in text
    assert "Held-out set" in text and "a.mp4 shows no face" in text
    assert "calibration error" in text and "![spotting displacement](spotting_displacement.png)" in text
    assert all(len(line) < 400 for line in text.splitlines())


def test_plots_are_drawn(figures, tmp_path):
    names = report.draw(figures, tmp_path / "spotting.json")
    parts = ("displacement", "conditions", "timing", "classes", "confidence")
    assert names == [f"spotting_{part}.png" for part in parts]
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_figures_of_the_wide_run_stay_apart(figures):
    assert all(WIDE not in row["detectors"] for row in figures["rows"])
    known = figures["confidence"]["tuning"]
    assert known["bins"][9] == (3, pytest.approx(0.9), 1.0)
    assert known["bins"][2] == (4, pytest.approx(0.2), 0.0)
    assert known["tradeoff"]["portraits, 1 %"][0] == (0.0, 1.0, 2.0)
