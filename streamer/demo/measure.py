"""Measures the demo through a real browser: `python -m streamer.demo.measure --seconds 60 --visitors 4`.

Chromium plays the bundled sample, over and over, as its camera, on the same machine as the server. Needs
Linux, Chromium and the package playwright (`pip install -e .[dev]`).

- With one visitor: frames a second that reach the recogniser, time from capture to overlay, memory of the
  server, frames dropped and where; the events, compared with what the command line finds in the clip; and how
  many cores server and browser took, to tell what they need from what a busy machine left them.
- With more: the same for each, and that the next one beyond the server's limit is told so.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from streamer.config import Config
from streamer.demo.local_browser import Server, camera_file, cpu_seconds, family, launch, memory_mb
from streamer.demo.settings import Limits
from streamer.errors import StreamerError, UsageError
from streamer.sources import open_source

NEAR_FRAMES = 2
"""Onset and offset may differ by so many frames."""

LOOSE_S = 0.6
"""Apexes so near to each other are taken for the same event's; the clip's events are 2.5 s apart."""

COLUMNS = ("minute", "frames_s", "p50_ms", "p95_ms", "in_flight", "server_mb", "browsers_mb", "page_heap_mb")


@dataclass(frozen=True)
class MeasureConfig:
    """Measure the demo through a real browser."""

    seconds: float = 60.0
    """How long to stream."""
    visitors: int = 1
    """Pages that stream at once."""
    report: Path | None = None
    """Write the figures here as JSON, too."""


def main() -> int:
    """Measure and print; returns the exit code."""
    try:
        config = tyro.cli(MeasureConfig, prog="python -m streamer.demo.measure")
        figures = measure(config)
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps(figures, indent=1)
    print(text)
    if config.report is not None:
        config.report.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(config: MeasureConfig) -> dict[str, Any]:
    """All figures, JSON-ready.

    Raises:
        UsageError: the browser or playwright is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UsageError("playwright is missing: pip install -e '.[dev]'") from error
    expected, clip_s = command_line()
    with tempfile.TemporaryDirectory() as folder, Server() as server, sync_playwright() as playwright:
        camera = camera_file(Path(folder) / "camera.y4m")
        # A browser each: pages of one browser share its camera, and would all see the same frame at a time.
        browsers = [launch(playwright, camera=camera) for _ in range(config.visitors)]
        pages = [_start(browser, server.url) for browser in browsers]
        figures: dict[str, Any] = {
            "seconds": config.seconds,
            "visitors": config.visitors,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
        }
        if config.visitors >= Limits().visitors:
            figures["one_too_many_is_told"] = _refused(browsers[0], server.url)
        figures["cores_used"], figures["each"] = _watch(pages, server, config.seconds, expected, clip_s)
        figures["load_after"] = os.getloadavg()[0]
        for browser in browsers:
            browser.close()
    return figures


def command_line() -> tuple[list[dict[str, Any]], float]:
    """The expressions that the command line finds in the sample, and the sample's length in seconds."""
    command = [sys.executable, "-m", "streamer", "--source", "sample", "--events", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    with open_source(Config(source="sample")) as source:
        fps = source.fps or 30.0
    return [event for event in events if event["type"] == "micro_expression"], events[-1]["frames"] / fps


def _start(browser: Any, url: str) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(url)
    page.click("#live [data-do=start]:enabled", timeout=60_000)
    page.wait_for_function("gtsgnDemo.live.state === 'running'", timeout=60_000)
    return page


def _refused(browser: Any, url: str) -> str:
    page = browser.new_context().new_page()
    page.goto(url)
    page.click("#live [data-do=start]:enabled", timeout=60_000)
    page.wait_for_function("gtsgnDemo.live.show.message.dataset.kind === 'error'", timeout=60_000)
    message = page.inner_text("#live [data-show=message]")
    page.context.close()
    return message


_STATE = """() => {
  const l = gtsgnDemo.live, m = l.measured, latencies = m.latencies;
  m.latencies = [];
  return {answers: m.answers, latencies, in_flight: l.link.state.waiting, drops: l.link.drops,
          server: l.latest.drops, time_s: l.latest.time_s, events: l.events,
          heap_mb: performance.memory.usedJSHeapSize / 1e6};
}"""


def _watch(
    pages: list[Any], server: Server, seconds: float, expected: list[dict[str, Any]], clip_s: float
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """How many cores were used, what each page has seen after so many seconds, and how it was by minute."""
    time.sleep(3)  # the first frames meet cold caches
    begun = last = time.monotonic()
    at_server = family(server.process.pid)
    at_browsers = family(os.getpid()) - at_server - {os.getpid()}
    cpu_s = cpu_seconds(at_server), cpu_seconds(at_browsers)
    states = [page.evaluate(_STATE) for page in pages]
    first = states
    latencies: list[list[float]] = [[] for _ in pages]
    minutes: list[list[tuple[float, ...]]] = [[] for _ in pages]
    while time.monotonic() < begun + seconds:
        pages[0].wait_for_timeout(1000 * max(0.0, min(60.0, begun + seconds - time.monotonic())))
        now = time.monotonic()
        before, states = states, [page.evaluate(_STATE) for page in pages]
        for i, state in enumerate(states):
            latencies[i] += state["latencies"]
            rate = (state["answers"] - before[i]["answers"]) / (now - last)
            p50, p95 = percentiles(state["latencies"])
            minute = (now - begun) / 60
            memory = memory_mb(at_server), memory_mb(at_browsers), state["heap_mb"]
            row = (minute, rate, p50, p95, state["in_flight"], *memory)
            minutes[i].append(tuple(round(value, 1) for value in row))
        last = now
    used_s = cpu_seconds(at_server) - cpu_s[0], cpu_seconds(at_browsers) - cpu_s[1]
    server_cores, browsers_cores = (round(s / (last - begun), 2) for s in used_s)
    cores = {"server": server_cores, "browsers": browsers_cores}
    results = []
    for i, state in enumerate(states):
        p50, p95 = percentiles(latencies[i])
        results.append(
            {
                "frames_s": round((state["answers"] - first[i]["answers"]) / (last - begun), 2),
                "capture_to_overlay_p50_ms": round(p50, 1),
                "capture_to_overlay_p95_ms": round(p95, 1),
                "dropped_in_the_browser": state["drops"],
                "dropped_in_the_server": state["server"],
                "events": compare(expected, state["events"], clip_s, state["time_s"]),
                "by_minute": {"columns": COLUMNS, "rows": minutes[i]},
            }
        )
    return cores, results


def percentiles(values: list[float]) -> tuple[float, float]:
    """Median and 95th percentile; NaN of less than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    return statistics.median(values), statistics.quantiles(values, n=20)[-1]


def compare(
    expected: list[dict[str, Any]], found: list[dict[str, Any]], clip_s: float, streamed_s: float
) -> dict[str, Any]:
    """How many of the clip's events a stream of the repeating clip has.

    The browser plays the clip at a pace of its own (about 1 % slow), from an unknown place on: for each pass
    of the clip, a line from the clip's to the stream's time is fitted to the apexes.
    expected: micro-expressions of the clip. found: expressions of the stream. Returns counts: of those `due`,
    how many are `found` with onset and offset within `NEAR_FRAMES`, how many are found `elsewhere` (up to
    `LOOSE_S`), and the micro-expressions `more` than that; and the `pace` of the first pass.
    """
    micro = [event for event in found if event["type"] == "micro_expression"]
    apexes = np.array([event["apex"]["time_s"] for event in micro])
    clip_apexes = np.array([event["apex"]["time_s"] for event in expected])
    starts = [float(apex - e) for apex in apexes[apexes < clip_s] for e in clip_apexes]
    twice = np.concatenate([clip_apexes, clip_apexes + clip_s])

    def agreement(start: float) -> tuple[int, float]:
        pairs = _pairs(twice + start, apexes)
        return len(pairs), -sum(abs(twice[i] + start - apexes[j]) for i, j in pairs)

    base = max(starts, key=agreement, default=0.0)
    due = hit = near = 0
    paces = []
    while base < streamed_s:
        pairs = _pairs(clip_apexes + base, apexes)
        pace, start = 1.0, base
        if len(pairs) >= 3:
            places, times = clip_apexes[[i for i, _ in pairs]], apexes[[j for _, j in pairs]]
            pace, start = (float(value) for value in np.polyfit(places, times, 1))
        paces.append(pace)
        partner = dict(pairs)
        for i, event in enumerate(expected):
            onset, offset = (start + pace * event[key]["time_s"] for key in ("onset", "offset"))
            if onset < 1.0 or offset > streamed_s - 1.0:
                continue
            due += 1
            if i not in partner:
                continue
            other = micro[partner[i]]
            errors = [abs(other[key]["time_s"] - t) for key, t in (("onset", onset), ("offset", offset))]
            hit += max(errors) <= (NEAR_FRAMES + 0.5) / 30
            near += max(errors) > (NEAR_FRAMES + 0.5) / 30
        base = start + pace * clip_s
    return {
        "due": due,
        "found": hit,
        "elsewhere": near,
        "more": max(0, len(micro) - hit - near),
        "pace": round(paces[0], 4) if paces else None,
    }


def _pairs(expected: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """(i, j): expected[i] and its nearest in `found`, where that is within `LOOSE_S`."""
    if not len(found):
        return []
    nearest = np.abs(found[None] - expected[:, None]).argmin(1)
    return [(i, int(j)) for i, j in enumerate(nearest) if abs(found[j] - expected[i]) <= LOOSE_S]


if __name__ == "__main__":
    sys.exit(main())
