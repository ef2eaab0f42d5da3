"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
from standin import write_engine

from streamer.engine import Engine, load_engine
from streamer.landmarker_model import find_landmarker

# A slow machine is no failure; and CI tries the same examples every time.
hypothesis.settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def landmarker() -> Path:
    """The checked landmark model, from the user's cache (fetched once)."""
    return find_landmarker(None)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A small engine of known answers."""
    folder = tmp_path_factory.mktemp("engine") / "standin"
    write_engine(folder)
    return load_engine(folder, "cpu")
