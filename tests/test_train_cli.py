"""What all commands of `python -m train` share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from database_trees import manifest

from streamer.standard_output import READER_LEFT


@pytest.mark.parametrize(
    "command", ["train --help", "train check --dataset manifest --root .", "streamer --help"]
)
def test_a_reader_that_leaves_ends_it_quietly(command, tmp_path):
    """As in `| head`: no traceback, whether the text is flushed while it runs or at the exit."""
    manifest(tmp_path, 3)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (READER_LEFT, "")
