"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.landmarker_model import find_landmarker


@pytest.fixture(scope="session")
def landmarker() -> Path:
    """The checked landmark model, from the user's cache (fetched once)."""
    return find_landmarker(None)
