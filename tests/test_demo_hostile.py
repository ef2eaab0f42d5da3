"""Visitors who mean harm, against the demo as it is started: floods, endless uploads and requests, paths."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamer.demo.clips import MEMORY, PREFIX
from streamer.demo.local_browser import Server, family

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at /proc")

START = json.dumps({"type": "start", "sensitivity": 0.5})
JPEG = cv2.imencode(".jpg", np.zeros((120, 160, 3), np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def server(landmarker) -> Iterator[Server]:
    with Server("--limits.visitors", "2", "--limits.clips", "2", "--limits.upload-s", "0.5") as server:
        yield server


@contextlib.contextmanager
def _visit(server: Server) -> Iterator[ClientConnection]:
    url = server.url.replace("http", "ws", 1) + "live"
    with connect(url, compression=None, open_timeout=60) as visitor:
        visitor.send(START)
        _until(visitor, "ready")
        yield visitor


def _until(visitor: ClientConnection, kind: str) -> dict:
    while (message := json.loads(visitor.recv()))["type"] != kind:
        assert message["type"] != "error", message
    return message


def _frame(number: int) -> bytes:
    return struct.pack("<Id", number, 1e3 * number / 30) + JPEG


def _wait_until_empty(server: Server) -> None:
    while server.health() != {"live": 0, "clips": 0}:
        time.sleep(0.02)


def _held(server: Server) -> dict[str, int]:
    """What the server holds of the machine."""
    pid = server.process.pid
    return {
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "processes": len(family(pid)),
    }


def test_sessions_opened_and_left_leave_nothing_behind(server):
    def come_and_go() -> None:
        with _visit(server) as stays, _visit(server) as leaves:
            for number in range(5):
                stays.send(_frame(number))
                leaves.send(_frame(number))
            leaves.socket.shutdown(socket.SHUT_RDWR)  # no farewell
            stays.send(json.dumps({"type": "stop"}))
            assert _until(stays, "ended")["event"]["frames"] == 5
        _wait_until_empty(server)

    come_and_go()
    before = _held(server)
    for _ in range(4):
        come_and_go()
    after = _held(server)
    # A connection may be on its way out, a worker thread more at hand: fewer than one a session.
    assert all(after[what] <= before[what] + 3 for what in before), (before, after)


def test_a_flood_stops_nobody_else(server):
    """One visitor sends without end and reads nothing; another is served meanwhile."""
    enough = threading.Event()

    def pour(flood: ClientConnection) -> None:
        text = json.dumps({"type": "sensitivity", "value": 0.1})
        number = 0
        with contextlib.suppress(ConnectionClosed, OSError):
            while not enough.is_set():
                flood.send(text)
                flood.send(_frame(number))
                number += 1

    with _visit(server) as flood:
        pouring = threading.Thread(target=pour, args=(flood,))
        pouring.start()
        with _visit(server) as visitor:
            for number in range(20):
                visitor.send(_frame(number))
                assert _until(visitor, "motion")["number"] == number
        assert pouring.is_alive()
        enough.set()
        pouring.join()
    _wait_until_empty(server)


def test_uploads_that_never_end_hold_no_place(server):
    head = (
        f"POST /clips?name=slow HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 999999\r\n\r\nx"
    )
    uploads = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    for upload in uploads:
        upload.sendall(head.encode())
    for upload in uploads:
        assert b"408" in upload.makefile("rb").readline()
        upload.close()
    _wait_until_empty(server)


def test_requests_that_never_end_stop_nobody_else(server):
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for connection in waiting:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1")
    assert server.health()["live"] == 0
    for connection in waiting:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/demo/../settings.py",
        "/demo/%2e%2e/settings.py",
        "/demo/..%2fsettings.py",
        "/demo/..%5csettings.py",
        "/demo//etc/passwd",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2fetc%2fpasswd",
        "/clips/../../etc/passwd",
        "/gradio_api/file=/etc/passwd",
    ],
)
def test_no_path_leads_out(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in (400, 403, 404), path
    assert b"root:" not in content and b"class Limits" not in content


def test_the_paths_of_a_finished_clip_lead_nowhere_else(server):
    def ask(method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request(method, path)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    key = json.loads(ask("POST", "/clips/sample")[1])["key"]
    folder = next(MEMORY.glob(f"{PREFIX}{server.process.pid}-*/*"), None)
    for name in ("clip", "..", "../..", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "result.json%00"):
        assert ask("GET", f"/clips/{key}/{name}")[0] in (400, 404), name
    assert ask("POST", f"/clips/{key}/forget")[0] == 200  # while it is worked on
    _wait_until_empty(server)
    assert folder is None or not folder.exists()
    assert len(family(server.process.pid)) == 1
