"""The sample clip's variants, run through the program as a user would, and scored.

    python -m train variants --out docs/benchmarks/sample_variants.md

Each variant is the sample's person and expressions with one thing changed: another portrait, face size,
frame rate or noise. All of it is simulated. Clips are kept in `--cache` and made only once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from streamer.errors import StreamerError
from streamer.simulation.scoring import SpotScore, read_events, score
from train.sample import SampleConfig, make_sample

VARIANTS: dict[str, dict[str, object]] = {
    "as shipped": {},
    "second portrait (hopper)": {"portrait": "hopper", "seed": 7},
    "60 px between the eyes": {"iod_px": 60.0, "seed": 8},
    "180 px between the eyes": {"iod_px": 180.0, "seed": 9},
    "60 fps": {"fps": 60.0, "seed": 10},
    "200 fps": {"fps": 200.0, "seed": 11},
    "half noise": {"noise": 1.0, "seed": 12},
    "double noise": {"noise": 4.0, "seed": 13},
    "H.264 crf 23": {"crf": 23, "seed": 18},
    "H.264 crf 28": {"crf": 28, "seed": 19},
    "second portrait, 60 px": {"portrait": "hopper", "iod_px": 60.0, "seed": 14},
    "second portrait, 180 px": {"portrait": "hopper", "iod_px": 180.0, "seed": 15},
    "second portrait, 200 fps": {"portrait": "hopper", "fps": 200.0, "seed": 16},
    "second portrait, double noise": {"portrait": "hopper", "noise": 4.0, "seed": 17},
}
"""Changes to `SampleConfig`; the first is the bundled clip itself."""


INTRODUCTION = (
    "`python -m train variants`, {day}. Seven expressions a clip, peaks of 1.4 to 2 % of the inter-ocular"
    " distance, in rendered clips of still portraits: no person performed them. Found: IoU >= 0.5, one to"
    " one. Errors are medians over the found."
)


@dataclass(frozen=True)
class VariantsConfig:
    """Score the recogniser on variants of the sample clip."""

    out: Path | None = None
    """Write the table here as Markdown."""
    cache: Path = Path("out/variants")
    """Where the rendered clips are kept."""
    engine: str = "gtsgn-simulated"
    """Engine name or path."""
    only: str = ""
    """Only variants whose name contains this."""


def _clip(name: str, changes: dict[str, object], cache: Path) -> Path:
    if not changes:
        return SampleConfig().out
    out = cache / (name.replace(" ", "_").replace(",", "").replace("(", "").replace(")", "") + ".mp4")
    if not out.with_suffix(".json").exists():
        make_sample(SampleConfig(out=out, **changes))  # type: ignore[arg-type]
    return out


def run_variant(clip: Path, engine: str, events: Path) -> SpotScore:
    """Run the command line on a clip and score its events.

    Raises:
        StreamerError: the program failed.
    """
    command = [sys.executable, "-m", "streamer", "--source", str(clip), "--engine", engine]
    done = subprocess.run([*command, "--events", str(events)], capture_output=True, text=True)
    if done.returncode:
        raise StreamerError(f"{' '.join(command[1:])} failed: {done.stderr.strip()}")
    truth = json.loads(clip.with_suffix(".json").read_text(encoding="utf-8"))
    return score(read_events(events), truth["expressions"], truth["blinks"])


def variants(config: VariantsConfig) -> str:
    """Run every variant; returns the Markdown table, and writes it to `config.out`."""
    config.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, changes in VARIANTS.items():
        if config.only not in name:
            continue
        clip = _clip(name, changes, config.cache)
        result = run_variant(clip, config.engine, config.cache / (clip.stem + ".jsonl"))
        rows.append((name, result))
        print(f"{name}: F1 {result.f1:.2f}", file=sys.stderr)

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    lines = [
        "# Variants of the sample clip (simulated)",
        "",
        INTRODUCTION.format(day=date.today().isoformat()),
        "",
        "| variant | found | false | right class | onset ms | apex ms | offset ms | blinks reported | F1 |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {r.found} of {r.found + r.missed} | {r.false} | {r.right} | {ms(r.onset_ms)} |"
            f" {ms(r.apex_ms)} | {ms(r.offset_ms)} | {r.blinks} | {r.f1:.2f} |"
            for name, r in rows
        ),
    ]
    text = "\n".join(lines) + "\n"
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(text, encoding="utf-8")
    return text
