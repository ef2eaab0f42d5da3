"""The training benchmark on a small run: its figures and its page."""

from __future__ import annotations

from dataclasses import replace

from streamer.bench.pipeline import machine
from tests.run_data import SMALL, small_data
from train.training_bench import PAPER, measure_loso, measure_networks, report


def test_the_figures_and_their_page():
    spec = replace(SMALL, model="gcn", type="A", epochs=1, groups=2)
    loso = measure_loso(small_data(spec), spec, 2, 1, lambda text: None)
    assert loso["same_predictions"] and loso["folds"] == 2 and loso["simulated"]
    rows = measure_networks(1, 1e-4, lambda text: None, (1,))
    for row in rows:
        row |= {"ms_8": row["ms_1"], "resnet18_st_over_8": row["resnet18_st_over_1"]}  # which takes long
        if row["network"] in PAPER:
            assert abs(row["parameters"] / row["paper_parameters"] - 1) < 0.05
    assert rows[0]["parameters"] == 11_179_590
    figures = {"machine": machine() | {"torch": "2"}, "load": [0.1, 0.2], "loso": loso, "networks": rows}
    text = report(figures)
    assert "(SIMULATED)" in text and "predictions are the same" in text and "| SS-GN |" in text
    assert text.count("\n|") == 2 + 3 + 2 + len(rows)
