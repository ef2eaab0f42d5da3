"""The latency benchmark: its arithmetic, its report, and one whole short run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamer.bench.__main__ import main
from streamer.bench.interleaved import (
    Contender,
    bin_edges_s,
    histogram,
    measure_interleaved,
    percentiles_ms,
    ratio,
    time_calls,
)
from streamer.bench.latency import LatencyConfig, bench_latency
from streamer.bench.latency_process import key_nodes
from streamer.bench.latency_report import compare, plot, table
from streamer.engine import load_engine
from streamer.errors import OutputError, UsageError
from streamer.graph import build_graph
from train.export.resnet18_graph import resnet18_to_onnx
from train.latency import in_onnx, in_torch, peers
from train.models import ResNet18

ROOT = Path(__file__).parent.parent


def test_ratios_are_taken_within_each_round():
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_percentiles_are_in_milliseconds():
    found = percentiles_ms([k / 1000.0 for k in range(1, 102)])
    assert found == pytest.approx({"p50": 51.0, "p95": 96.0, "p99": 100.0})


def test_processor_time_leaves_waiting_out():
    durations, worked = time_calls(lambda: threading.Event().wait(0.002), 3)
    assert sum(worked) < sum(durations)


def test_histogram_counts_every_call_in_its_bin():
    edges = bin_edges_s()
    counts = histogram([1e-9, 1.5e-4, 1.5e-4, 50.0])
    assert sum(counts) == 4 and counts[0] == counts[-1] == 1
    assert edges[counts.index(2)] <= 1.5e-4 < edges[counts.index(2) + 1]


def test_everything_is_measured_in_every_round_in_changing_order():
    calls: list[str] = []
    names = ("a", "b", "c")
    contenders = [Contender(name, lambda name=name: calls.append(name), f"about {name}") for name in names]
    found = measure_interleaved(contenders, rounds=6, block_s=1e-9, progress=lambda text: None)
    assert list(found) == list(names)
    for name in names:
        assert len(found[name]["rounds_p50"]) == 6 and found[name]["calls"] == 6 * 5
        assert sum(found[name]["histogram"]) == 30 and found[name]["about"] == f"about {name}"
        assert 0.0 <= found[name]["processor"]["p50"] <= found[name]["processor"]["p99"]
        assert 0.0 < found[name]["p50"] <= found[name]["p95"] <= found[name]["p99"]
    warm_up = 3 * (1 + 5 + 5)
    blocks = [calls[k] for k in range(warm_up, len(calls), 10)]  # five unmeasured, five measured
    rounds = [blocks[k : k + 3] for k in range(0, len(blocks), 3)]
    assert len(rounds) == 6 and all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def figures(**p50: float) -> dict[str, Any]:
    """Figures as the measuring process gives them; each round of a contender lies within 1 % of its p50."""
    return {
        "machine": {"date": "2026-01-02", "processor": "a processor", "system": "s", "versions": "v"},
        "gpu": "none",
        "load_average": [0.5, 1.25],
        "core": 1,
        "rounds": 3,
        "base": "base",
        "contenders": {
            name: {
                **dict.fromkeys(("p50", "p95", "p99"), value),
                "processor": {"p50": 0.9 * value, "p99": 1.1 * value},
                "rounds_p50": [0.99 * value, value, 1.01 * value],
                "ratio": {"median": value, "lowest": value, "highest": value},
                "calls": 3,
                "about": f"about {name}",
                "histogram": histogram([value / 1e3] * 3),
            }
            for name, value in p50.items()
        },
        "cold": {"base": dict.fromkeys(("process_s", "import_s", "load_s", "first_ms", "memory_mb"), 0.5)},
        "command_to_first_frame_s": 2.5,
        "stages_ms": {"track": {"p50": 1.0, "p95": 2.0, "p99": 3.0}},
    }


def test_the_table_has_every_figure():
    text = table(figures(base=1.0, slow=30.0))
    assert (
        "| slow | 30.000 | 30.000 | 30.000 | 29.700 | 27.000, 33.000 | 30.00 (30.00 to 30.00) | about slow |"
        in text
    )
    assert "kept on core 1" in text and "exit after it: 2.50 s" in text
    assert "| track | 1.000 | 2.000 | 3.000 |" in text and "| base | 0.50 | 0.50 | 0.500 |" in text
    without = figures(base=1.0) | {"cold": {}, "command_to_first_frame_s": None}
    assert "exit after it" not in table(without)


def test_a_comparison_counts_only_what_the_noise_does_not_explain():
    old = figures(base=1.0, same=10.0, slower=10.0, faster=10.0, gone=1.0)
    new = figures(base=1.0, same=10.1, slower=11.0, faster=9.0, fresh=1.0)
    rows = {line.split(" | ")[0].strip("| "): line for line in compare(old, new).splitlines()}
    for name, change in (("same", "no"), ("slower", "slower"), ("faster", "faster")):
        assert rows[name].endswith(f"| {change} |")
    assert rows["gone"].endswith("| gone |") and rows["fresh"].endswith("| new |")
    assert "| 10.000, 11.000 | 1.10 | 10.00, 11.00 |" in rows["slower"]


def test_the_picture_is_drawn(tmp_path):
    assert plot(figures(base=0.1, slow=30.0), tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "have to be above 0"),
        ({"block_ms": 0.0}, "have to be above 0"),
        ({"core": 10_000}, "--core 10000: this machine has the cores"),
        ({"compare": Path("no/such.json")}, "no figures of this command"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        bench_latency(LatencyConfig(**change))


def test_something_else_to_compare_with_is_refused(tmp_path):
    for text in ("{", "[]", "{}", '{"contenders": 1}'):
        (tmp_path / "old.json").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="no figures of this command"):
            bench_latency(LatencyConfig(compare=tmp_path / "old.json"))


def test_a_short_run_without_peers_writes_its_files(tmp_path, capsys):
    out = tmp_path / "latency.json"
    arguments = ["latency", "--rounds", "1", "--block-ms", "1", "--frames", "3", "--cold-starts", "0"]
    assert main([*arguments, "--no-peers", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {"graph alone", "GTS-GN, CPU engine", "GTS-GN, NumPy engine", "FaceLandmarker alone"} <= set(
        found["contenders"]
    )
    assert found["contenders"]["GTS-GN, CPU engine"]["ratio"]["median"] == 1.0
    assert out.with_suffix(".md").read_text(encoding="utf-8").startswith("# Latency\n\nMeasured on")
    assert out.with_suffix(".png").exists()
    assert "graph + GTS-GN, CPU engine" in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        bench_latency(
            LatencyConfig(
                rounds=1, block_ms=1, frames=1, cold_starts=0, peers=False, out=tmp_path / "file" / "x.json"
            )
        )


def test_a_cold_start_says_what_it_took_and_imports_no_torch():
    script = (
        "import sys; from streamer.bench.cold_start import main; main('cpu', 'gtsgn-simulated');"
        "assert not {'torch', 'train', 'mediapipe', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"import_s", "load_s", "first_ms", "memory_mb"}
    assert all(value > 0.0 for value in found.values())


def test_the_peers_answer_as_the_engine_does_or_as_each_other():
    answers: dict[str, Any] = {peer.name: peer.call() for peer in peers("gtsgn-simulated", compiled=False)}
    assert all(sum(answer) == pytest.approx(1.0, abs=1e-5) for answer in answers.values())
    for name in ("SS-GN", "GCN", "ResNet18 (ST)"):
        eager, onnx = answers[f"{name}, PyTorch eager"], answers[f"{name}, ONNX Runtime"]
        assert eager == pytest.approx(onnx, abs=1e-4)
    engine = load_engine("gtsgn-simulated", "cpu")
    ours = engine.classify(build_graph(key_nodes(), engine.manifest.features)).scores
    calibrated = np.power(answers["GTS-GN, PyTorch eager"], 1.0 / engine.manifest.training["temperature"])
    assert list(ours.values()) == pytest.approx(calibrated / calibrated.sum(), abs=1e-4)


def test_resnet18_in_onnx_folds_its_normalisation_rightly():
    model = ResNet18(5)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(std=0.1, generator=generator)
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    model.eval()
    pictures = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    eager = in_torch(model, pictures)()
    assert in_onnx(resnet18_to_onnx(model), pictures)() == pytest.approx(eager, abs=1e-4)
