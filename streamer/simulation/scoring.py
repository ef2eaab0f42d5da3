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
    blinks: events with IoU >= 0.3 with a blink and no truth.
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


def score(
    events: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    blinks_s: Sequence[float] = (),
    blink_length_s: float = 0.2,
) -> SpotScore:
    """Score the `micro_expression` events among `events` against the truth of a clip."""
    micro = [event for event in events if event["type"] == "micro_expression"]
    pairs = match(micro, truth)

    def error_ms(key: str) -> float | None:
        errors = [abs(micro[e][key]["time_s"] - truth[t][key]["time_s"]) * 1e3 for e, t in pairs]
        return median(errors) if errors else None

    matched = {e for e, _ in pairs}
    blinks = sum(
        any(iou(interval(event), (start, start + blink_length_s)) >= 0.3 for start in blinks_s)
        for e, event in enumerate(micro)
        if e not in matched
    )
    return SpotScore(
        found=len(pairs),
        missed=len(truth) - len(pairs),
        false=len(micro) - len(pairs),
        right=sum(micro[e]["label"] == truth[t]["label"] for e, t in pairs),
        onset_ms=error_ms("onset"),
        apex_ms=error_ms("apex"),
        offset_ms=error_ms("offset"),
        blinks=blinks,
    )


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
