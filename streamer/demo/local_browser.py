"""The demo and a browser on this machine, to test and to measure the one through the other.

Needs Chromium and the package playwright, which are not part of the base install.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

import av

from streamer.errors import UsageError

SAMPLE = Path(__file__).parent.parent / "data" / "sample.mp4"
END_S = 20.0
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""Chromium has a camera of its own making, and allows it to every page."""


def find_chromium() -> str | None:
    """The browser's program, where there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def launch(playwright: Any, *flags: str, camera: Path | None = None) -> Any:
    """A Chromium without a window, driven by playwright.

    camera: a file of `camera_file`, which it plays as its camera, over and over.

    Raises:
        UsageError: Chromium is not installed.
    """
    program = find_chromium()
    if program is None:
        raise UsageError("Chromium is not installed: apt-get install chromium")
    if camera is not None:
        flags = (*FAKE_CAMERA, f"--use-file-for-fake-video-capture={camera}", *flags)
    # Its sandbox needs rights that containers and root lack, and containers' /dev/shm is small.
    return playwright.chromium.launch(
        executable_path=program,
        args=["--disable-dev-shm-usage", *flags],
        chromium_sandbox=False,
    )


def camera_file(path: Path, seconds: float = float("inf")) -> Path:
    """Write the bundled sample, or its first seconds, as a file that Chromium plays: YUV4MPEG2, uncompressed.

    Of concatenated JPEGs, the other form it takes, Chromium mistakes the range of the grey levels.
    """
    with av.open(str(SAMPLE)) as container, path.open("wb") as out:
        video = container.streams.video[0]
        rate = video.average_rate
        assert rate is not None
        form = f"W{video.width} H{video.height} F{rate.numerator}:{rate.denominator} Ip A1:1 C420"
        out.write(f"YUV4MPEG2 {form}\n".encode())
        for frame in container.decode(video):
            if float(frame.time or 0) >= seconds:
                break
            out.write(b"FRAME\n" + frame.to_ndarray(format="yuv420p").tobytes())
    return path


class Server:
    """`python -m streamer.demo` in a process of its own, on a free port that it keeps when started again."""

    def __init__(self, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._flags = flags
        self.url = f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start, and wait until it can be asked.

        Raises:
            UsageError: it ended instead.
        """
        command = [sys.executable, "-m", "streamer.demo", "--port", str(self.port), *self._flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said: deque[str] = deque(maxlen=50)
        serves = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process, serves), daemon=True)
        self._reader.start()
        while not serves.wait(0.1):
            if self.process.poll() is not None:
                self._reader.join()
                raise UsageError(f"the demo did not start: {''.join(self.said)}")

    def _read(self, process: subprocess.Popen[str], serves: threading.Event) -> None:
        """Take what it says, to its end: a full pipe would stop it."""
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if "The demo is at" in line:
                serves.set()
        process.stderr.close()

    def end(self) -> None:
        """Stop it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def health(self) -> dict[str, int]:
        """How many live sessions and clips it holds."""
        with urllib.request.urlopen(f"{self.url}health", timeout=END_S) as answer:
            return json.load(answer)


def family(root: int) -> set[int]:
    """A process and all its descendants that are alive."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pids: set[int]) -> float:
    """Processor time that processes have used so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: set[int]) -> float:
    """Memory of processes; what several share is counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / 1e6
