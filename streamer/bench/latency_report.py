"""The figures of the latency benchmark as Markdown, as a comparison with older ones, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamer.bench.interleaved import bin_edges_s


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about, base = figures["machine"], figures["base"]
    where = "any core" if figures["core"] is None else f"kept on core {figures['core']}"
    lines = [
        f"Measured on {about['date']}: {about['processor']}; {about['system']}; {about['versions']}.",
        f"GPU: {figures['gpu']}. One thread, {where}. {figures['rounds']} rounds; in each, all were measured",
        "once, in a new order, after some calls unmeasured; no garbage collection meanwhile.",
        "Load average before and after: {:.1f}, {:.1f}.".format(*figures["load_average"]),
        "Processor time leaves out the waiting for a core that other programs use.",
        "",
        f"One expression, batch 1. The ratio is of processor time, to `{base}`: median of the rounds",
        "(lowest to highest). By the clock it would be higher on a busy machine, where every long call is",
        "interrupted and hardly a short one.",
        "",
        "| what | p50 ms | p95 ms | p99 ms | fastest round p50 | processor p50, p99 ms | ratio | notes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in figures["contenders"].items():
        times = " | ".join(f"{found[q]:.3f}" for q in ("p50", "p95", "p99"))
        spread = "{median:.2f} ({lowest:.2f} to {highest:.2f})".format(**found["ratio"])
        fastest = min(found["rounds_p50"])
        processor = "{p50:.3f}, {p99:.3f}".format(**found["processor"])
        lines.append(f"| {name} | {times} | {fastest:.3f} | {processor} | {spread} | {found['about']} |")
    if figures["cold"]:
        lines += [
            "",
            "A process that loads an engine and answers once, medians:",
            "",
            "| engine | whole process s | imports s | load s | first answer ms | peak memory MB |",
            "|---|---|---|---|---|---|",
        ]
    for name, found in figures["cold"].items():
        lines.append(
            f"| {name} | {found['process_s']:.2f} | {found['import_s']:.2f} | {found['load_s']:.3f} |"
            f" {found['first_ms']:.1f} | {found['memory_mb']:.0f} |"
        )
    if figures["command_to_first_frame_s"] is not None:
        seconds = figures["command_to_first_frame_s"]
        lines += ["", f"Command to first frame, and to the exit after it: {seconds:.2f} s."]
    lines += [
        "",
        "Stages of the pipeline, a frame of the sample (classify and track run now and then):",
        "",
        "| stage | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|",
    ]
    for name, times in figures["stages_ms"].items():
        lines.append(f"| {name} | {times['p50']:.3f} | {times['p95']:.3f} | {times['p99']:.3f} |")
    return "\n".join(lines) + "\n"


def compare(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What changed since older figures, as Markdown. A change counts where no round of the one run was
    as fast as any of the other; the ratio to the base makes runs on other machines comparable."""
    lines = [
        f"Compared with the figures of {old['machine']['date']} ({old['machine']['processor']}):",
        "",
        "| what | p50 ms, then and now | now / then | ratio to the base, then and now | changed |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys([*old["contenders"], *new["contenders"]]):
        before, after = old["contenders"].get(name), new["contenders"].get(name)
        if before is None or after is None:
            lines.append(f"| {name} | | | | {'new' if before is None else 'gone'} |")
            continue
        slower = min(after["rounds_p50"]) > max(before["rounds_p50"])
        faster = max(after["rounds_p50"]) < min(before["rounds_p50"])
        lines.append(
            f"| {name} | {before['p50']:.3f}, {after['p50']:.3f} | {after['p50'] / before['p50']:.2f} |"
            f" {before['ratio']['median']:.2f}, {after['ratio']['median']:.2f} |"
            f" {'slower' if slower else 'faster' if faster else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def plot(figures: dict[str, Any], path: Path) -> bool:
    """Draw the histograms of all contenders above each other; False where matplotlib is missing.

    Raises: OSError if the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    edges_ms = bin_edges_s() * 1e3
    contenders = figures["contenders"]
    figure = Figure(figsize=(9, 0.55 * len(contenders) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = sorted(contenders, key=lambda name: contenders[name]["p50"], reverse=True)
    for row, name in enumerate(names):
        counts = contenders[name]["histogram"]
        heights = [0.9 * count / max(counts) for count in counts]
        axes.stairs([row + height for height in heights], edges_ms, baseline=row, fill=True)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a call (share of calls in each bin, each row to its own height)")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.1, len(names))
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    return True
