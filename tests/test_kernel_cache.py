"""Compiled kernels where no folder of Numba's own can be written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba.core import config

from streamer import kernels


@pytest.fixture(autouse=True)
def _cache_dir(monkeypatch):
    monkeypatch.setitem(vars(config), "CACHE_DIR", "")


def test_a_temporary_folder_takes_the_place(monkeypatch, caplog):
    left: list[str] = []
    monkeypatch.setattr(kernels.atexit, "register", lambda action, folder, **_: left.append(folder))

    def refusing(function):
        raise RuntimeError("cannot cache function: no locator available")

    kernels.ensure_cache(refusing)
    assert left == [vars(config)["CACHE_DIR"]]
    assert Path(left[0]).is_dir()
    assert len(caplog.records) == 1
    assert "NUMBA_CACHE_DIR" in caplog.text
    Path(left[0]).rmdir()


def test_numbas_own_folder_is_kept(caplog):
    kernels.ensure_cache(lambda function: function)
    assert vars(config)["CACHE_DIR"] == ""
    assert caplog.text == ""
