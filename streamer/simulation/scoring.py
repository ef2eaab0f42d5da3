"""Scoring spotted events against a clip's truth: IoU >= 0.5, one prediction to one truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

LEAST_IOU = 0.5


@dataclass(frozen=True)
class SpotScore:
    """Counts and errors of one clip.

    found, missed, false: true positives, false negatives, false positives of micro-expressions.
    right: how many of the found have the right class.
    apex_ms, onset_ms, offset_ms: median absolute errors over the found, None if there are none.
    blinks: events with IoU > 0.3 with a blink and no truth.
    """

    found: int
    missed: int
    false: int
    right: int
    onset_ms: float | None
    apex_ms: float | None
    offset_ms: float | None
    blinks: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there was nothing to find and nothing was reported."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else 1.0


def iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two intervals."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    union = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, overlap) / union if union > 0 else 0.0


def interval(event: Mapping[str, Any]) -> tuple[float, float]:
    """Onset and offset of an event or a truth, seconds."""
    return event["onset"]["time_s"], event["offset"]["time_s"]


def match(events: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Pairs (event, truth) of largest overlap first, each used once, IoU >= 0.5."""
    overlaps = sorted(
        (
            (iou(interval(event), interval(true)), e, t)
            for e, event in enumerate(events)
            for t, true in enumerate(truth)
        ),
        key=lambda row: (-row[0], row[1], row[2]),
    )
    pairs: list[tuple[int, int]] = []
    for overlap, e, t in overlaps:
        if overlap >= LEAST_IOU and all(e != a and t != b for a, b in pairs):
            pairs.append((e, t))
    return pairs


@dataclass(frozen=True)
class Comparison:
    """The micro-expressions that were reported for a clip, held against its truth.

    events, truth: as `match` takes them. pairs: (event, truth) that belong together.
    duration_s: length of the clip. blinks_s: onsets of blinks of `blink_length_s` each.
    """

    events: tuple[Mapping[str, Any], ...]
    truth: tuple[Mapping[str, Any], ...]
    pairs: tuple[tuple[int, int], ...]
    duration_s: float = 0.0
    blinks_s: tuple[float, ...] = ()
    blink_length_s: float = 0.2

    def errors_ms(self, key: str) -> list[float]:
        """Absolute errors of "onset", "apex" or "offset" over the found, milliseconds."""
        return [
            abs(self.events[e][key]["time_s"] - self.truth[t][key]["time_s"]) * 1e3 for e, t in self.pairs
        ]

    @property
    def false_events(self) -> list[Mapping[str, Any]]:
        """Events that belong to no truth."""
        matched = {e for e, _ in self.pairs}
        return [event for e, event in enumerate(self.events) if e not in matched]

    @property
    def in_blinks(self) -> tuple[int, int]:
        """Of the truth, how many overlap a blink, and how many of those were found."""
        during = {t for t, true in enumerate(self.truth) if self._blinking(interval(true), 0.0)}
        return len(during), sum(t in during for _, t in self.pairs)

    def within(self, intervals: Sequence[tuple[float, float]]) -> Comparison:
        """What of it has its apex in one of these intervals (s); an event goes with its truth."""

        def inside(event: Mapping[str, Any]) -> bool:
            return any(start <= event["apex"]["time_s"] <= end for start, end in intervals)

        of = dict(self.pairs)
        truth = [t for t, true in enumerate(self.truth) if inside(true)]
        events = [e for e, event in enumerate(self.events) if (of[e] in truth if e in of else inside(event))]
        return Comparison(
            tuple(self.events[e] for e in events),
            tuple(self.truth[t] for t in truth),
            tuple((events.index(e), truth.index(t)) for e, t in self.pairs if t in truth),
            sum(max(0.0, min(end, self.duration_s) - start) for start, end in intervals),
            self.blinks_s,
            self.blink_length_s,
        )

    def _blinking(self, span: tuple[float, float], least: float) -> bool:
        return any(iou(span, (start, start + self.blink_length_s)) > least for start in self.blinks_s)

    @property
    def blinks(self) -> int:
        """False events that overlap a blink by IoU > 0.3."""
        return sum(self._blinking(interval(event), 0.3) for event in self.false_events)


def compare(
    events: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    duration_s: float = 0.0,
    blinks_s: Sequence[float] = (),
    blink_length_s: float = 0.2,
) -> Comparison:
    """Hold the `micro_expression` events among `events` against the truth of a clip."""
    micro = tuple(event for event in events if event["type"] == "micro_expression")
    pairs = tuple(match(micro, truth))
    return Comparison(micro, tuple(truth), pairs, duration_s, tuple(blinks_s), blink_length_s)


CLASSES = ("I", "II", "III", "IV", "V")
"""Classes over which the macro F1 is taken."""


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Mean F1 over those of `CLASSES` that occur in (true, said) pairs; None where none does."""
    scores = []
    for label in CLASSES:
        hits = sum(true == said == label for true, said in pairs)
        total = sum(true == label for true, _ in pairs) + sum(said == label for _, said in pairs)
        if total:
            scores.append(2 * hits / total)
    return sum(scores) / len(scores) if scores else None


def figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Sums and medians over clips, as the benchmark reports them.

    found, missed, false: summed counts; recall, precision, f1 of those sums (None where undefined).
    onset_ms, apex_ms, offset_ms: median absolute errors over the found.
    accuracy, macro_f1: of the classes, over the found that have a label; strs: f1 x macro_f1.
    minutes, false_per_minute; blinks: false events that are blinks; in_blinks, found_in_blinks: how much of
    the truth overlaps a blink, and how much of that was found.
    confusion: counts by true and said class.
    """
    found = sum(len(c.pairs) for c in comparisons)
    missed = sum(len(c.truth) for c in comparisons) - found
    false = sum(len(c.events) for c in comparisons) - found
    labels = [
        (c.truth[t]["label"], c.events[e]["label"])
        for c in comparisons
        for e, t in c.pairs
        if c.events[e].get("label") is not None
    ]
    minutes = sum(c.duration_s for c in comparisons) / 60

    def middle(key: str) -> float | None:
        errors = [error for c in comparisons for error in c.errors_ms(key)]
        return median(errors) if errors else None

    f1 = 2 * found / (2 * found + missed + false) if found + missed + false else None
    class_f1 = macro_f1(labels)
    confusion: dict[str, dict[str, int]] = {}
    for true, said in labels:
        row = confusion.setdefault(true, {})
        row[said] = row.get(said, 0) + 1
    return {
        "found": found,
        "missed": missed,
        "false": false,
        "recall": found / (found + missed) if found + missed else None,
        "precision": found / (found + false) if found + false else None,
        "f1": f1,
        "onset_ms": middle("onset"),
        "apex_ms": middle("apex"),
        "offset_ms": middle("offset"),
        "accuracy": sum(true == said for true, said in labels) / len(labels) if labels else None,
        "macro_f1": class_f1,
        "strs": f1 * class_f1 if f1 is not None and class_f1 is not None else None,
        "minutes": minutes,
        "false_per_minute": false / minutes if minutes else None,
        "blinks": sum(c.blinks for c in comparisons),
        "in_blinks": sum(c.in_blinks[0] for c in comparisons),
        "confusion": confusion,
        "found_in_blinks": sum(c.in_blinks[1] for c in comparisons),
    }


def score(
    events: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    blinks_s: Sequence[float] = (),
    blink_length_s: float = 0.2,
) -> SpotScore:
    """Score the `micro_expression` events among `events` against the truth of a clip."""
    compared = compare(events, truth, 0.0, blinks_s, blink_length_s)

    def error_ms(key: str) -> float | None:
        errors = compared.errors_ms(key)
        return median(errors) if errors else None

    return SpotScore(
        found=len(compared.pairs),
        missed=len(truth) - len(compared.pairs),
        false=len(compared.false_events),
        right=sum(compared.events[e]["label"] == truth[t]["label"] for e, t in compared.pairs),
        onset_ms=error_ms("onset"),
        apex_ms=error_ms("apex"),
        offset_ms=error_ms("offset"),
        blinks=compared.blinks,
    )


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def slow_figures(
    events: Sequence[Sequence[Mapping[str, Any]]], truths: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, int]:
    """What became of slow expressions, by clip: how many there were, how many a `macro_expression` event
    found (IoU >= 0.5), and how many `micro_expression` events lie over one."""
    counts = {"slow": 0, "as_macro": 0, "as_micro": 0}
    for said, truth in zip(events, truths, strict=True):
        macro = [event for event in said if event["type"] == "macro_expression"]
        micro = [event for event in said if event["type"] == "micro_expression"]
        counts["slow"] += len(truth)
        counts["as_macro"] += len(match(macro, truth))
        counts["as_micro"] += sum(
            any(iou(interval(event), interval(true)) > 0 for true in truth) for event in micro
        )
    return counts


@dataclass(frozen=True)
class Reliability:
    """Whether a confidence is what it says.

    bins: of ten equally wide ones: (events, mean confidence, share that is true); the means are None where
        there is no event. error: expected calibration error (Naeini et al. 2015): the mean distance of the
        two, weighted by events; None without events.
    """

    bins: tuple[tuple[int, float | None, float | None], ...]
    error: float | None


def reliability(comparisons: Sequence[Comparison], count: int = 10) -> Reliability | None:
    """How far the events' confidence agrees with how often they are true; None where they carry none."""
    rows = [
        (float(event["confidence"]), e in {a for a, _ in c.pairs})
        for c in comparisons
        for e, event in enumerate(c.events)
        if event.get("confidence") is not None
    ]
    if not rows:
        return None
    bins = []
    for k in range(count):
        inside = [row for row in rows if min(count - 1, int(row[0] * count)) == k]
        said, true = (sum(row[i] for row in inside) / len(inside) if inside else None for i in (0, 1))
        bins.append((len(inside), said, true))
    error = sum(n * abs(said - true) for n, said, true in bins if said is not None) / len(rows)
    return Reliability(tuple(bins), error)


def tradeoff(
    injected: Sequence[Comparison], uninjected: Sequence[Comparison]
) -> list[tuple[float, float, float]]:
    """(least confidence, recall, false events a minute) as the least confidence goes up: recall over the
    injected clips, false events over the uninjected ones."""
    minutes = sum(c.duration_s for c in uninjected) / 60
    total = sum(len(c.truth) for c in injected)
    if not minutes or not total:
        return []
    rows = []
    for step in range(0, 100, 2):
        least = step / 100

        def kept(c: Comparison, least: float = least) -> Comparison:
            events = [event for event in c.events if event.get("confidence", 1.0) >= least]
            return compare(events, c.truth, c.duration_s)

        recall = sum(len(kept(c).pairs) for c in injected) / total
        false = sum(len(kept(c).events) for c in uninjected) / minutes
        rows.append((least, recall, false))
    return rows
