"""The HTML report of a clip: one file without scripts and without anything from elsewhere."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from streamer.sinks.panel import LEGEND

COLOURS = ("#0072B2", "#6e6e6e", "#D55E00")
"""Brows, nose, mouth: Okabe and Ito's palette (2008), on a light ground."""

WIDTH, HEIGHT = 1000, 220

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1f24;background:#fff}
body{max-width:66rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}svg{width:100%;height:auto}
.event{border:1px solid #ccd2d8;border-radius:8px;padding:1rem;margin:1rem 0}
.event{display:flex;gap:1rem;flex-wrap:wrap}figure{margin:0}
figure img{width:168px;display:block;border-radius:4px}figcaption{font-size:.85rem;color:#555}
table{border-collapse:collapse}th{color:#555}
td,th{padding:.15rem .8rem .15rem 0;text-align:left;font-weight:400}
.note{background:#f3f5f7;padding:.8rem 1rem;border-radius:8px}
"""


def report(result: dict[str, Any]) -> str:
    """The report. result: as `clip_worker` writes it for the page; every text in it is escaped."""
    name = escape(str(result["name"]))
    found = [event for event in result["events"] if event["type"] in ("micro_expression", "macro_expression")]
    ended = next((event for event in result["events"] if event["type"] == "stream_ended"), None)
    micro = sum(event["type"] == "micro_expression" for event in found)
    summary = f"{micro} micro-expressions and {len(found) - micro} longer movements"
    if ended:
        summary += f" in {ended['frames']} frames ({ended['duration_s']:.2f} s)"
        summary += "" if ended["reason"] == "end of source" else f"; ended early: {escape(ended['reason'])}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Report: {name}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Facial movements in {name}</h1><p>{summary}. Sensitivity {result['sensitivity']:g}, "
        f"engine {escape(result['about']['engine'])}.</p>"
        f'<p class="note"><strong>{escape(LEGEND)}</strong> The engine is trained on simulated expressions. '
        "This report holds sensitive facts about a person: keep it only with their consent.</p>"
        f"<h2>Motion</h2>{_chart(result, found)}<h2>Events</h2>"
        + ("".join(_event(event) for event in found) or "<p>No event was found.</p>")
        + "</body></html>\n"
    )


def _chart(result: dict[str, Any], found: list[dict[str, Any]]) -> str:
    rows = result["chart"]
    ended = next((e["duration_s"] for e in result["events"] if e["type"] == "stream_ended"), 0.0)
    end_s = max(rows[-1][0] if rows else 0.0, ended, 0.1)
    # A few frames of a face that goes away do not flatten all the others.
    peaks = sorted(max(row[1:]) for row in rows)
    spans = [(event["onset"]["time_s"], event["offset"]["time_s"]) for event in found]
    inside = (max(row[1:]) for row in rows if any(a <= row[0] <= b for a, b in spans))
    usual = peaks[math.ceil(0.99 * len(peaks)) - 1] if rows else 0.0
    top = max(1.0, 1.05 * usual, *inside)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" role="img" aria-label="Motion over time, with the events">'
    ]
    for event in found:
        left, right = (WIDTH * event[key]["time_s"] / end_s for key in ("onset", "offset"))
        apex = WIDTH * event["apex"]["time_s"] / end_s
        colour = "#CC79A7" if event["type"] == "micro_expression" else "#8D96A0"
        parts.append(
            f'<rect x="{left:.1f}" width="{max(right - left, 1):.1f}" height="{HEIGHT}" fill="{colour}" '
            f'opacity=".3"/><path d="M{apex:.1f} 0V{HEIGHT}" stroke="{colour}"/>'
        )
    for column, colour in enumerate(COLOURS, start=1):
        points = " ".join(
            f"{WIDTH * row[0] / end_s:.1f},{HEIGHT * (1 - min(row[column] / top, 1)):.1f}" for row in rows
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    names = [escape(region["name"]) for region in result["about"]["regions"]]
    for i, (region, colour) in enumerate(zip(names, COLOURS, strict=True)):
        parts.append(
            f'<text x="{8 + 90 * i}" y="{HEIGHT + 18}" fill="{colour}" font-size="14">{region}</text>'
        )
    parts.append(
        f'<text x="{WIDTH}" y="{HEIGHT + 18}" text-anchor="end" font-size="14" fill="#555">'
        f"0 to {end_s:.2f} s; 0 to {top:.2f} % of the distance between the eyes</text></svg>"
    )
    return "".join(parts)


def _event(event: dict[str, Any]) -> str:
    duration_ms = 1000 * (event["offset"]["time_s"] - event["onset"]["time_s"])
    figures = "".join(
        f'<figure><img alt="Face at the {moment}" src="{event["faces"][moment]}"><figcaption>{moment}, '
        f"{event[moment]['time_s']:.3f} s</figcaption></figure>"
        for moment in ("onset", "apex")
        if event["faces"][moment]
    )
    lines = [
        (
            "onset, apex, offset",
            ", ".join(f"{event[k]['time_s']:.3f} s" for k in ("onset", "apex", "offset")),
        ),
        ("duration", f"{duration_ms:.0f} ms"),
        ("strength", f"{100 * event['strength']:.2f} % of the distance between the eyes"),
    ]
    title = "Longer movement, not classified"
    if event["type"] == "micro_expression":
        share = event["scores"][event["label"]]
        title = (
            f"Category {escape(event['label'])} ({escape(event['name'])}), {share:.0%} sure of the category"
        )
        lines.append(("an expression at all", f"{event['confidence']:.0%} sure"))
        units = sorted(event["action_units"].items(), key=lambda item: -item[1])
        lines.append(("action units", ", ".join(f"{escape(unit)} {p:.0%}" for unit, p in units if p >= 0.2)))
    table = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in lines)
    return f'<div class="event">{figures}<div><strong>{title}</strong><table>{table}</table></div></div>'
