"""What the spotting benchmark counts: on made-up events, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.simulation.scoring import compare, figures, macro_f1, reliability, slow_figures, tradeoff


def event(onset: float, offset: float, label: str | None = "I", **more: Any) -> dict[str, Any]:
    return {
        "type": "micro_expression",
        "label": label,
        "onset": {"time_s": onset},
        "apex": {"time_s": (onset + offset) / 2},
        "offset": {"time_s": offset},
        **more,
    }


def test_figures_are_sums_over_clips_and_medians_over_the_found():
    truth = [event(1.0, 1.4), event(3.0, 3.4, "II"), event(5.0, 5.4, "III")]
    first = compare([event(1.1, 1.4), event(3.0, 3.5, "I"), event(8.0, 8.3)], truth, 30.0, [7.95], 0.3)
    second = compare([event(2.0, 2.3)], [event(2.0, 2.3)], 30.0)
    result = figures([first, second])
    assert (result["found"], result["missed"], result["false"]) == (3, 1, 1)
    assert result["recall"] == pytest.approx(3 / 4)
    assert result["precision"] == pytest.approx(3 / 4)
    assert result["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    # Onsets are off by 100, 0 and 0 ms, apices by 50, 50 and 0, offsets by 0, 100 and 0.
    assert result["onset_ms"] == pytest.approx(0.0)
    assert result["apex_ms"] == pytest.approx(50.0)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["confusion"] == {"I": {"I": 2}, "II": {"I": 1}}
    assert result["macro_f1"] == pytest.approx((4 / 5 + 0.0) / 2)
    assert result["strs"] == pytest.approx(result["f1"] * result["macro_f1"])
    assert result["false_per_minute"] == pytest.approx(1.0)
    assert result["blinks"] == 1


def test_nothing_to_find_has_no_recall_and_no_score():
    result = figures([compare([], [], 60.0)])
    assert (result["recall"], result["precision"], result["f1"]) == (None, None, None)
    assert result["false_per_minute"] == 0.0
    assert figures([compare([event(1, 1.3)], [], 30.0)])["false_per_minute"] == 2.0


def test_a_peer_without_classes_has_no_class_figures():
    result = figures([compare([event(1.0, 1.4, None)], [event(1.0, 1.4)], 10.0)])
    assert result["found"] == 1
    assert (result["accuracy"], result["macro_f1"], result["strs"]) == (None, None, None)


def test_macro_f1_counts_another_class_as_a_miss_only():
    assert macro_f1([("I", "VII"), ("I", "I")]) == pytest.approx(2 / 3)
    assert macro_f1([("I", "II")]) == 0.0
    assert macro_f1([]) is None


def test_truth_in_blinks_is_counted_apart():
    truth = [event(1.0, 1.4), event(3.0, 3.4)]
    result = figures([compare([event(1.0, 1.4)], truth, 10.0, [1.35, 3.3], 0.2)])
    assert (result["in_blinks"], result["found_in_blinks"]) == (2, 1)


def test_within_takes_an_event_where_its_truth_is():
    truth = [event(1.0, 1.4), event(5.0, 5.4)]
    whole = compare([event(1.0, 1.4), event(5.05, 5.4), event(7.0, 7.3), event(2.0, 2.2)], truth, 10.0)
    early = whole.within([(0.0, 3.0)])
    assert (len(early.truth), len(early.pairs), len(early.false_events)) == (1, 1, 1)
    assert early.duration_s == pytest.approx(3.0)
    late = whole.within([(4.0, 6.0), (6.9, 20.0)])
    assert (len(late.truth), len(late.pairs), len(late.false_events)) == (1, 1, 1)
    assert late.duration_s == pytest.approx(2.0 + 3.1)
    assert late.errors_ms("onset") == [pytest.approx(50.0)]


def test_slow_expressions_are_macro_or_a_mistake():
    macro = {**event(1.0, 2.4, None), "type": "macro_expression"}
    said = [[macro, event(4.2, 4.5), event(9.0, 9.3)]]
    truth = [[event(1.0, 2.5), event(4.0, 5.5)]]
    assert slow_figures(said, truth) == {"slow": 2, "as_macro": 1, "as_micro": 1}


def test_reliability_is_the_distance_of_confidence_and_truth():
    truth = [event(float(k), k + 0.3) for k in range(1, 5)]
    said = [event(float(k), k + 0.3, confidence=0.95) for k in range(1, 5)]
    said += [event(k + 0.5, k + 0.7, confidence=0.35) for k in range(1, 3)]
    said += [event(8.0, 8.3, confidence=1.0)]
    known = reliability([compare(said, truth, 10.0)])
    assert known is not None
    assert known.bins[9] == (5, pytest.approx(0.96), pytest.approx(0.8))
    assert known.bins[3] == (2, pytest.approx(0.35), 0.0)
    assert known.bins[0] == (0, None, None)
    assert known.error == pytest.approx((5 * 0.16 + 2 * 0.35) / 7)
    assert reliability([compare([event(1, 2)], [], 10.0)]) is None


def test_a_higher_confidence_trades_recall_for_false_events():
    moved = compare([event(1.0, 1.3, confidence=0.9), event(3.0, 3.3, confidence=0.2)],
                    [event(1.0, 1.3), event(3.0, 3.3)], 30.0)  # fmt: skip
    quiet = compare([event(1.0, 1.3, confidence=0.5)], [], 30.0)
    rows = {round(least, 2): (recall, false) for least, recall, false in tradeoff([moved], [quiet])}
    assert rows[0.0] == (1.0, 2.0)
    assert rows[0.4] == (0.5, 2.0)
    assert rows[0.6] == (0.5, 0.0)
    assert rows[0.98] == (0.0, 0.0)
    assert tradeoff([moved], []) == []
