"""The command line: exit codes, what goes to which stream, and how it is interrupted."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import streamer.sources
from streamer.__main__ import main
from streamer.config import Config
from streamer.errors import EngineError, OutputError, SourceError, StreamerError, UsageError
from streamer.sources import CameraInfo

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Config], int]], None]:
    """Puts a function in the place of the recogniser."""

    def replace(run: Callable[[Config], int]) -> None:
        module = types.ModuleType("streamer.pipeline")
        module.run = run  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "streamer.pipeline", module)

    return replace


def raising(error: BaseException) -> Callable[[Config], int]:
    def run(config: Config) -> int:
        raise error

    return run


def test_the_recogniser_gets_the_settings_and_gives_the_exit_code(pipeline) -> None:
    seen: list[Config] = []
    pipeline(lambda config: seen.append(config) or 0)
    assert main(["--camera", "2", "--device", "cpu"]) == 0
    assert seen == [Config(camera=2, device="cpu")]
    pipeline(lambda config: 130)
    assert main(["--camera", "2"]) == 130


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (SourceError, 3), (EngineError, 4), (OutputError, 1), (StreamerError, 1)],
)
def test_an_expected_error_is_one_line(
    pipeline, capsys: pytest.CaptureFixture[str], error: type[StreamerError], code: int
) -> None:
    pipeline(raising(error("clip.mp4 is empty: record it again")))
    assert main(["--source", "clip.mp4"]) == code
    assert capsys.readouterr() == ("", "error: clip.mp4 is empty: record it again\n")


def test_a_bug_shows_itself(pipeline) -> None:
    pipeline(raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["--camera", "0"])


def test_ctrl_c_before_the_first_frame(pipeline) -> None:
    pipeline(raising(KeyboardInterrupt()))
    assert main(["--camera", "0"]) == 130


def test_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: nothing to recognise")
    assert err.count("\n") == 1


def test_missing_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["--camera", "0"]) == 1
    err = capsys.readouterr().err
    assert "onnxruntime" in err
    assert "apt-get install" in err
    assert err.count("\n") == 1


def test_log_lines_go_to_standard_error(pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: Config) -> int:
        logging.getLogger("streamer.engine").debug("details")
        logging.getLogger("streamer.engine").warning("no GPU: the CPU engine is used")
        return 0

    pipeline(run)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []  # pytest's own; with any handler in place, logging counts as set up
    try:
        main(["--camera", "0"])
    finally:
        root.handlers = handlers
        root.setLevel(level)
    assert capsys.readouterr() == ("", "WARNING: no GPU: the CPU engine is used\n")


def test_list_cameras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cameras = [CameraInfo(0, "Webcam", 640, 480, 30.0), CameraInfo(2, "Capture card", 1280, 720, None)]
    monkeypatch.setattr(streamer.sources, "list_cameras", lambda: cameras)
    assert main(["--list-cameras"]) == 0
    assert capsys.readouterr().out == "0: Webcam, 640x480 at 30 fps\n2: Capture card, 1280x720\n"


def test_no_camera_to_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(streamer.sources, "list_cameras", list)
    assert main(["--list-cameras"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "no camera gives a picture" in err


def test_sigterm_handler_is_put_back(pipeline) -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []
    pipeline(lambda config: during.append(signal.getsignal(signal.SIGTERM)) or 0)
    main(["--camera", "0"])
    assert signal.getsignal(signal.SIGTERM) == before
    assert during != [before]


def test_wrong_flag_is_answered_before_anything_heavy_is_loaded() -> None:
    script = (
        "import sys\n"
        "from streamer.__main__ import main\n"
        "code = main([])\n"
        "print(code, sorted({'cv2', 'mediapipe', 'numba', 'onnxruntime', 'av', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "2 []\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_through_every_finally(number: signal.Signals) -> None:
    script = """
import sys, threading, types

def run(config):
    try:
        print("running", flush=True)
        threading.Event().wait()
    finally:
        print("files closed", flush=True)

sys.modules["streamer.pipeline"] = types.ModuleType("streamer.pipeline")
sys.modules["streamer.pipeline"].run = run
from streamer.__main__ import main
sys.exit(main(["--camera", "0"]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "files closed\n", "")


def test_help_into_a_pipe_that_closes_is_no_traceback():
    command = [sys.executable, "-m", "streamer", "--help"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait()
