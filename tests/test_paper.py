"""The paper's figures: whole, and consistent with the sample counts that are inferred from them."""

from __future__ import annotations

import numpy as np
import pytest

from train.paper import AAU_MEAN, AAU_WEIGHTS, PAPER, SAMPLES

SETTING = {"X": "objective5", "XI": "self-report"}


def test_every_table_is_whole():
    sizes = {name: len(rows) for name, rows in PAPER.items()}
    assert sizes == {"III": 4, "IV": 7, "V": 4, "VI": 5, "VII": 11, "IX": 3, "X": 6, "XI": 13, "Figure 9": 3}
    assert all(set(row) == {"casme2", "samm"} for rows in PAPER.values() for row in rows.values())


def test_our_own_percentages_are_whole_samples():
    """Each accuracy of the paper's own models is a whole number of samples of the inferred count."""
    odd = []
    for table, rows in PAPER.items():
        for name, row in rows.items():
            if table in SETTING and not name.startswith("GTS-GN"):
                continue  # other works, with other counts
            for database, figures in row.items():
                if figures.accuracy is None:
                    continue
                count = SAMPLES[SETTING.get(table, "objective"), database]
                right = round(figures.accuracy * count / 100)
                if abs(100 * right / count - figures.accuracy) > 0.0151:
                    odd.append((table, name, database))
    # The accuracies of ResNet18 are no whole numbers of these samples: its data seem to have been others.
    assert {row for row in odd if not row[1].startswith("ResNet18")} == set()


def test_the_weights_of_table_eight():
    weights = np.array(AAU_WEIGHTS)
    assert weights.shape == (26, 4)
    np.testing.assert_allclose(weights.mean(0), AAU_MEAN, atol=1e-4)  # printed cut off, not rounded
    odd = np.flatnonzero(np.abs(weights.sum(1) - 1.0) > 2e-4) + 1
    assert odd.tolist() == [4, 15], "as printed, two rows do not sum to 1"


@pytest.mark.parametrize(("table", "best"), [("V", "GTS-GN + LAM + AAU"), ("VII", "layer 2, AAU loss")])
def test_the_best_rows_are_those_that_the_text_names(table, best):
    rows = {name: row["casme2"].accuracy or 0.0 for name, row in PAPER[table].items()}
    assert max(rows, key=lambda name: rows[name]) == best
