"""The weights of an event's confidence (`streamer.confidence`), fitted to clips of known truth.

    python -m streamer.bench calibrate --source my_clips/ --out streamer/data/confidence.json

The clips are those of the spotting benchmark's tuning set with other seeds, and the user's own footage, with
expressions injected and as it is (then every event counts as false). Each candidate that the spotter would
report at full sensitivity is one row: its evidence, and whether it is an expression. Micro- and
macro-expressions have weights of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.bench.clips import FootageClip, clips_folder, make_clip, read_json, write_json
from streamer.bench.plan import Job, Scope, plan
from streamer.bench.spotting import SpottingBenchConfig, footage_of
from streamer.confidence import KINDS
from streamer.config import Config
from streamer.engine import Engine, load_engine
from streamer.errors import SourceError, StreamerError, UsageError
from streamer.landmarker_model import find_landmarker
from streamer.messages import Frame, KeyFrames
from streamer.pipeline import Recogniser, warm_up
from streamer.simulation.scoring import iou, match
from streamer.sources import open_source
from streamer.spotting import MICRO_S, Spotter
from streamer.tracking import MediaPipeTracker

AXES = ("displacement", "talking", "head-angle", "slow", "uninjected", "real", "real-uninjected")
"""Of the spotting benchmark: what the confidence is fitted to."""

WHOLE = ("slow", "uninjected")
"""Of these every clip, at either scale: from fewer, a slow expression is not told from a turn of the head."""

SIGNS = {
    "coherence": 1,
    "roughness": -1,
    "fall": -1,
    "short": -1,
    "light": -1,
    "symmetry": 1,
    "breadth": 1,
    "leaked": -1,
    "turn": -1,
}
"""Which way each evidence may point: few clips must not teach that roughness is a good sign. What is not
named may point either way."""

RIDGE = 0.02
"""Penalty on the square of each standardised weight."""


@dataclass(frozen=True)
class CalibrateConfig:
    """Fit the confidence of events to clips of known truth."""

    scale: Literal["quick", "full"] = "quick"
    """quick: some minutes. full: every point of each axis."""
    source: tuple[Path, ...] = ()
    """Clips, or folders of clips, to add: with expressions injected, and as they are."""
    cache: Path | None = None
    """Where clips are kept (default: in the user's cache folder)."""
    engine: str = "gtsgn-simulated"
    """Engine name or path."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    out: Path | None = None
    """Write the weights here; the live program reads streamer/data/confidence.json."""
    seed: int = 1
    """Seed of all that is drawn; the benchmark's own is 0."""


@dataclass(frozen=True)
class Row:
    """One candidate. group: what it is left out with, the face. kind: of `streamer.confidence.KINDS`.
    found: whether it is an expression."""

    group: str
    kind: str
    evidence: dict[str, float]
    found: bool


def candidates(path: Path, tracker: MediaPipeTracker, engine: Engine) -> list[KeyFrames]:
    """All movements of a clip, whatever their confidence."""
    config = replace(Config(), source=str(path))
    recogniser = Recogniser(config, tracker, engine)
    spotter = Spotter(config.spotting, sensitivity=1.0)
    events: list[KeyFrames] = []
    with open_source(config) as source:
        for message in source.frames():
            if isinstance(message, Frame):
                motion = recogniser.process(message)[2]
                events += [] if motion is None else spotter.update(motion)
    recogniser.close()
    return events


def rows_of(group: str, events: Sequence[KeyFrames], truth: Sequence[dict[str, Any]]) -> list[Row]:
    """Each candidate, and whether it is one of the expressions (IoU of at least 0.5, one to one).

    One that overlaps an expression without being it is neither right nor wrong, and left out.
    """
    spans = [(e["onset"]["time_s"], e["offset"]["time_s"]) for e in truth]
    rows = []
    for kind in KINDS:
        own = [event for event in events if event.kind == kind]
        as_events = [
            {name: {"time_s": getattr(event, name).time_s} for name in ("onset", "apex", "offset")}
            for event in own
        ]
        alike = [
            e for e, (onset_s, offset_s) in zip(truth, spans, strict=True)
            if (offset_s - onset_s <= MICRO_S + 1e-6) == (kind == "micro")
        ]  # fmt: skip
        found = {k for k, _ in match(as_events, alike)}
        for k, event in enumerate(own):
            span = (event.onset.time_s, event.offset.time_s)
            if k in found or all(iou(span, other) == 0.0 for other in spans):
                rows.append(Row(group, kind, event.evidence, k in found))
    return rows


def fit(rows: Sequence[Row]) -> dict[str, float]:
    """Weights of a logistic regression with `SIGNS` and `RIDGE`, by name of the evidence, and "constant".

    Raises:
        StreamerError: SciPy is missing, or there are no true or no false candidates.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise StreamerError(f"{error.name} is missing: pip install -e '.[bench]'") from error
    labels = np.array([1.0 if row.found else -1.0 for row in rows])
    if abs(labels.sum()) == len(labels):
        raise StreamerError(
            "the clips gave no true or no false candidates of one kind: add --source or --scale full"
        )
    names = list(rows[0].evidence)
    values = np.array([[row.evidence[name] for name in names] for row in rows])
    mean, deviation = values.mean(0), values.std(0) + 1e-9
    standard = np.column_stack([np.ones(len(values)), (values - mean) / deviation])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = labels * (standard @ weights)
        ridge = np.concatenate([[0.0], RIDGE * weights[1:]])
        slope = -(standard * (labels / (1 + np.exp(margin)))[:, None]).mean(0) + 2 * ridge
        return float(np.logaddexp(0, -margin).mean() + ridge @ weights), slope

    bounds = [(None, None), *({1: (0, None), -1: (None, 0), 0: (None, None)}[SIGNS.get(n, 0)] for n in names)]
    best = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    weights = best[1:] / deviation
    constant = float(best[0] - weights @ mean)
    return {"constant": constant, **dict(zip(names, weights.tolist(), strict=True))}


def probabilities(rows: Sequence[Row], weights: dict[str, float]) -> NDArray[np.float64]:
    """(N,) confidence of each row."""
    logit = [weights["constant"] + sum(weights[n] * v for n, v in row.evidence.items()) for row in rows]
    return 1.0 / (1.0 + np.exp(-np.array(logit)))


def left_out(rows: Sequence[Row]) -> NDArray[np.float64]:
    """(N,) confidence of each row by weights that were fitted without its group; NaN where the other groups
    have no true or no false rows."""
    judged = np.full(len(rows), np.nan)
    for group in {row.group for row in rows}:
        others = [row for row in rows if row.group != group]
        if len({row.found for row in others}) < 2:
            continue
        weights = fit(others)
        members = [k for k, row in enumerate(rows) if row.group == group]
        judged[members] = probabilities([rows[k] for k in members], weights)
    return judged


def table(rows: Sequence[Row]) -> str:
    """What a least confidence keeps, and the share that is true by confidence; groups left out in turn."""
    judged, true = left_out(rows), np.array([row.found for row in rows])
    known = np.isfinite(judged)
    judged, true = judged[known], true[known]
    lines = [
        f"{len(true)} candidates, {int(true.sum())} of them expressions (simulated); faces left out in turn",
        "",
        *(
            [f"{(~known).sum()} more could not be judged without their own face", ""]
            if not known.all()
            else []
        ),
        "| confidence at least | expressions kept | false kept |",
        "|---|---|---|",
    ]
    for least in (0.3, 0.4, 0.5, 0.6, 0.7):
        kept = judged >= least
        lines.append(
            f"| {least} | {int((kept & true).sum())} of {int(true.sum())}"
            f" | {int((kept & ~true).sum())} of {int((~true).sum())} |"
        )
    lines += ["", "| confidence | share that is true | candidates |", "|---|---|---|"]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (judged >= low) & (judged < low + 0.2 + (low == 0.8))
        share = f"{true[inside].mean():.0%}" if inside.any() else "-"
        lines.append(f"| {low:.1f} to {low + 0.2:.1f} | {share} | {int(inside.sum())} |")
    return "\n".join(lines) + "\n"


def calibrate(config: CalibrateConfig) -> str:
    """Make the clips, collect the candidates, fit; returns a table in Markdown.

    Raises:
        UsageError: nothing to fit to, or a flag makes no sense. StreamerError: something cannot be had.
    """
    if config.seed < 0:
        raise UsageError(f"--seed is {config.seed}: give 0 or more")
    if config.out is not None and not config.out.parent.is_dir():
        raise UsageError(f"--out {config.out}: there is no folder {config.out.parent}")
    from tqdm import tqdm

    footage = footage_of(SpottingBenchConfig(source=config.source))
    jobs = [
        job
        for axis in AXES
        for job in plan(
            Scope(
                "full" if axis in WHOLE else config.scale,
                (axis,),
                ("tuning", "own"),
                footage,
                peers=False,
                seed=config.seed,
            )
        )
    ]
    landmarker = find_landmarker(config.landmarker)
    cache = clips_folder(config.cache)
    engine = load_engine(config.engine, "cpu")
    tracker = MediaPipeTracker(landmarker, Config().tracking)
    rows: list[Row] = []
    try:
        warm_up(Config(), engine)
        for job in tqdm(jobs, unit="clip"):
            try:
                path = make_clip(job.description, cache, landmarker)
            except (SourceError, UsageError):
                if not isinstance(job.description, FootageClip):
                    raise
                continue  # footage without a face, say
            truth = read_json(path.with_suffix(".json"))["expressions"]
            found = rows_of(group_of(job), candidates(path, tracker, engine), truth)
            # Slow movements of a real face that nobody injected may well be expressions.
            rows += [r for r in found if r.kind == "micro" or not isinstance(job.description, FootageClip)]
    finally:
        tracker.close()
        engine.close()
    weights, report = {}, ""
    for kind in KINDS:
        own = [row for row in rows if row.kind == kind]
        weights[kind] = {name: round(weight, 3) for name, weight in fit(own).items()}
        report += f"**{kind}**: {table(own)}\nweights: {json.dumps(weights[kind])}\n\n"
    if config.out is not None:
        write_json(config.out, {"weights": weights})
    return report


def group_of(job: Job) -> str:
    """Whose face a clip shows."""
    description = job.description
    return Path(description.path).stem if isinstance(description, FootageClip) else description.portrait
