"""The fit of the confidence: what counts as true, signs that cannot turn, a run from end to end."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest

from streamer import confidence
from streamer.bench import calibrate
from streamer.bench.__main__ import main
from streamer.bench.calibrate import Row, fit, left_out, probabilities, rows_of
from streamer.bench.clips import Encoding, RenderedClip
from streamer.bench.plan import Job
from streamer.config import SpottingConfig
from streamer.errors import EngineError, StreamerError
from streamer.messages import KeyFrame, KeyFrames
from streamer.simulation.render import Clip, Injection
from streamer.spotting import Spotter


def _event(onset_s: float, offset_s: float, kind: Literal["micro", "macro"] = "micro") -> KeyFrames:
    apex_s = (onset_s + offset_s) / 2
    return KeyFrames(
        kind=kind,
        onset=KeyFrame(0, onset_s),
        apex=KeyFrame(1, apex_s),
        offset=KeyFrame(2, offset_s),
        nodes=np.zeros((3, 14, 2), np.float32),
        strength=0.01,
        snr=5.0,
        confidence=0.5,
        evidence={"score": onset_s},
        decided_frame=3,
    )


def _truth(onset_s: float, offset_s: float) -> dict:
    apex_s = (onset_s + offset_s) / 2
    return {n: {"time_s": t} for n, t in (("onset", onset_s), ("apex", apex_s), ("offset", offset_s))}


def test_a_candidate_is_true_false_or_neither():
    events = [_event(1.0, 1.3), _event(2.0, 2.1), _event(4.0, 4.3), _event(6.2, 6.5)]
    truth = [_truth(1.02, 1.32), _truth(1.95, 2.4), _truth(6.0, 7.5)]
    rows = rows_of("face", events, truth)
    # The second overlaps an expression without being it, the fourth is part of a slow one.
    assert [(row.evidence["score"], row.found) for row in rows] == [(1.0, True), (4.0, False)]


def test_a_slow_movement_is_judged_among_slow_ones():
    events = [
        _event(1.0, 1.3),
        _event(6.0, 7.4, "macro"),
        _event(9.0, 10.5, "macro"),
        _event(1.0, 1.4, "macro"),
    ]
    rows = rows_of("face", events, [_truth(1.02, 1.32), _truth(6.0, 7.5)])
    judged = [(row.kind, row.evidence["score"], row.found) for row in rows]
    assert judged == [("micro", 1.0, True), ("macro", 6.0, True), ("macro", 9.0, False)]


def _rows(count: int = 400) -> list[Row]:
    """True ones are more coherent, and, by the accident of these clips, rougher."""
    random = np.random.default_rng(2)
    rows = []
    for k in range(count):
        found = bool(k % 2)
        evidence = {
            "coherence": 0.4 + 0.4 * found + random.normal(0, 0.1),
            "roughness": 0.1 + 0.1 * found + random.normal(0, 0.1),
            "strength": random.normal(0, 1),
        }
        rows.append(Row(f"face {k % 3}", "micro", evidence, found))
    return rows


def test_the_fit_separates_and_no_sign_turns():
    rows = _rows()
    weights = fit(rows)
    assert weights["coherence"] > 5
    assert weights["roughness"] == 0.0
    judged, true = probabilities(rows, weights), np.array([row.found for row in rows])
    assert judged[true].mean() > 0.8 > 0.2 > judged[~true].mean()
    assert abs(left_out(rows) - judged).max() < 0.2


def test_a_face_without_which_nothing_can_be_fitted_is_not_judged():
    rows = [Row("one" if row.found else "other", row.kind, row.evidence, row.found) for row in _rows(40)]
    rows.append(Row("other", "micro", rows[1].evidence, True))
    judged = left_out(rows)
    assert np.isnan([p for p, row in zip(judged, rows, strict=True) if row.group == "other"]).all()
    assert np.isfinite([p for p, row in zip(judged, rows, strict=True) if row.group == "one"]).all()


def test_one_kind_of_candidate_is_not_enough():
    with pytest.raises(StreamerError, match="--source"):
        fit([row for row in _rows(20) if row.found])


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """The file of weights, to be written by the test."""
    path = tmp_path / "confidence.json"
    monkeypatch.setattr(confidence, "WEIGHTS", path)
    confidence.weights.cache_clear()
    yield path
    confidence.weights.cache_clear()


def test_the_live_program_reads_what_is_written(weights_file):
    known = dict.fromkeys(confidence.EVIDENCE, 0.0) | {"constant": 1.0, "coherence": 2.0}
    weights_file.write_text(json.dumps({"weights": {"micro": known, "macro": known | {"constant": 0.0}}}))
    assert confidence.confidence_of("micro", {"coherence": -0.5}) == pytest.approx(0.5)
    assert confidence.confidence_of("micro", {"coherence": 1e6}) == pytest.approx(1.0)
    assert confidence.confidence_of("micro", {"coherence": -1e6}) == pytest.approx(0.0)
    assert confidence.confidence_of("macro", {"coherence": 0.0}) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        '{"weights": 3}',
        '{"weights": {"micro": {"constant": "x"}}}',
        '{"weights": {"micro": {"constant": 1.0}, "macro": {"constant": 1.0}}}',
    ],
)
def test_damaged_weights_are_told_at_the_start(weights_file, content):
    if content is not None:
        weights_file.write_text(content)
    with pytest.raises(EngineError, match=r"confidence\.json"):
        Spotter(SpottingConfig())


def test_a_run_from_end_to_end(monkeypatch, tmp_path, landmarker, capsys):
    slow = Injection({"12": 1.0}, 4.0, 4.7, 5.4, 0.04, "macro")
    smile = (Injection({"12": 1.0}, 2.0, 2.2, 2.4, 0.02, "I"), slow)
    broad_smile = (Injection({"12": 1.0}, 2.0, 2.2, 2.4, 0.03, "I"), slow)
    jobs = [
        Job("displacement", "2", 2.0, "tuning", "micro", RenderedClip("astronaut", clip, Encoding()))
        for clip in (
            Clip(width=400, height=300, iod_px=90.0, noise=1.0, duration_s=7.5, injections=units, seed=0)
            for units in (smile, broad_smile)
        )
    ]
    monkeypatch.setattr(calibrate, "plan", lambda scope: jobs if scope.axes == ("slow",) else [])
    monkeypatch.setattr(calibrate, "footage_of", lambda config: {})
    # Without candidates that are false there is nothing to tell apart: said, and nothing written.
    real = calibrate.rows_of

    def found(group, events, truth):
        return [row for row in real(group, events, truth) if row.found]

    monkeypatch.setattr(calibrate, "rows_of", found)
    out = tmp_path / "weights.json"
    arguments = ["calibrate", "--cache", str(tmp_path), "--out", str(out), "--landmarker", str(landmarker)]
    assert main(arguments) == 1
    assert "no true or no false candidates" in capsys.readouterr().err
    assert not out.exists()
    # Called false, the second clip's expressions are.
    monkeypatch.setattr(calibrate, "group_of", lambda job: str(jobs.index(job)))
    monkeypatch.setattr(
        calibrate,
        "rows_of",
        lambda group, events, truth: found(group, events, truth) if group == "0" else real(group, events, []),
    )
    monkeypatch.setattr(calibrate, "left_out", lambda rows: probabilities(rows, fit(rows)))
    assert main(arguments) == 0
    assert "expressions kept" in capsys.readouterr().out
    written = json.loads(out.read_text())["weights"]
    assert {kind: set(w) for kind, w in written.items()} == {
        k: set(w) for k, w in confidence.weights().items()
    }
