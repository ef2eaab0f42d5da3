"""Measures of whole pictures."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.kernels.pictures import likeness, quarter_means


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9), (255, 240), (1, 1)])
def test_quarter_means(height, width):
    picture = np.random.default_rng(height).integers(0, 256, (height, width), dtype=np.uint8)
    out = np.empty(4, np.float32)
    quarter_means(picture, out)
    rows, columns = slice(0, (height + 1) // 2), slice(0, (width + 1) // 2)
    below, beside = slice((height + 1) // 2, None), slice((width + 1) // 2, None)
    quarters = [picture[r, c] for r in (rows, below) for c in (columns, beside)]
    expected = [quarter.mean() if quarter.size else 0.0 for quarter in quarters]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_likeness_is_the_correlation_coefficient():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(11, 24)), rng.normal(size=(11, 24))
    assert likeness(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert likeness(a, 3 * a + 7) == pytest.approx(1.0)
    assert likeness(a, np.ones((11, 24))) == 0.0
