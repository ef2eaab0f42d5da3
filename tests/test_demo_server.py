"""The demo's server without its page: sessions, limits, the protocol, hostile frames and clips."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import picture, write_clip
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from streamer.config import Config
from streamer.demo.app import create_app, same_origin
from streamer.demo.clip_worker import Job, _for_the_visitor
from streamer.demo.clips import ClipRefused
from streamer.demo.settings import DemoConfig, Limits
from streamer.engine import load_engine
from streamer.errors import OutputError, SourceError, UsageError
from streamer.messages import MacroExpression, MicroExpression
from streamer.pipeline import Recogniser, warm_up
from streamer.sources import open_source
from streamer.tracking import MediaPipeTracker

SAMPLE = Path(__file__).parent.parent / "streamer" / "data" / "sample.mp4"
SECONDS = 4.0
"""How much of the sample is sent: its first expression is over by then."""


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Kernels are compiled and cached, as before the first visitor: else each clip's process would do it."""
    warm_up(Config(), load_engine(Config().engine, "cpu"))


@pytest.fixture(scope="module")
def frames() -> list[tuple[float, bytes]]:
    """The sample's first frames as a browser sends them: milliseconds, JPEG."""
    found = []
    with av.open(str(SAMPLE)) as container:
        for frame in container.decode(video=0):
            time_s = float(frame.time or 0)
            if time_s > SECONDS:
                break
            image = frame.to_ndarray(format="bgr24")
            found.append((1e3 * time_s, _jpeg(image)))
    return found


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _client(landmarker: Path, **limits: float) -> TestClient:
    app = create_app(DemoConfig(limits=replace(Limits(), **limits)), landmarker)
    return TestClient(app, headers={"host": "localhost"})


@pytest.fixture
def client(landmarker) -> Iterator[TestClient]:
    with _client(landmarker, live_fps=1e6) as client:  # tests send as fast as they are answered
        yield client


def _packet(number: int, captured_ms: float, jpeg: bytes) -> bytes:
    return struct.pack("<Id", number, captured_ms) + jpeg


def _until(socket, kind: str, collected: list[dict] | None = None) -> dict:
    while True:
        message = socket.receive_json()
        if collected is not None:
            collected.append(message)
        if message["type"] == kind:
            return message
        assert message["type"] != "error", message


def _send(socket, frames, answers: list[dict], offset_ms: float = 5e6, first: int = 1000) -> None:
    """Send frames as fast as they are answered, so that none is dropped."""
    for number, (time_ms, jpeg) in enumerate(frames, first):
        socket.send_bytes(_packet(number, offset_ms + time_ms, jpeg))
        _until(socket, "motion", answers)


def _expressions(messages: list[dict]) -> list[tuple]:
    return [
        (event["type"], *(event[key]["frame"] for key in ("onset", "apex", "offset")), event.get("label"))
        for message in messages
        if message["type"] == "event"
        for event in [message["event"]]
        if event["type"].endswith("expression")
    ]


def _directly(landmarker: Path, frames: list[tuple[float, bytes]], tmp_path: Path) -> list[tuple]:
    """What the recogniser finds in the same pictures without server and browser."""
    for i, (_, jpeg) in enumerate(frames):
        (tmp_path / f"{i:05d}.jpg").write_bytes(jpeg)
    config = replace(Config(), source=str(tmp_path), capture=replace(Config().capture, fps=30.0))
    engine = load_engine(config.engine, "cpu")
    tracker = MediaPipeTracker(landmarker, config.tracking)
    recogniser = Recogniser(config, tracker, engine)
    found = []
    with open_source(config) as source:
        for frame in source.frames():
            found += recogniser.process(frame)[0]  # pyright: ignore[reportArgumentType]
    tracker.close()
    return [
        (
            "micro_expression" if isinstance(event, MicroExpression) else "macro_expression",
            *(key.frame for key in (event.onset, event.apex, event.offset)),
            getattr(event, "label", None),
        )
        for event in found
        if isinstance(event, MicroExpression | MacroExpression)
    ]


def test_a_session_finds_what_the_recogniser_finds_in_the_same_frames(client, landmarker, frames, tmp_path):
    messages: list[dict] = []
    with client.websocket_connect("/live") as socket:
        socket.send_json({"type": "start", "sensitivity": 0.5})
        ready = _until(socket, "ready")
        assert len(ready["nodes"]) == 14
        _send(socket, frames, messages)
        socket.send_json({"type": "stop"})
        ended = _until(socket, "ended", messages)["event"]
    expected = _directly(landmarker, frames, tmp_path)
    assert expected
    assert _expressions(messages) == expected
    assert ended["frames"] == len(frames)
    assert ended["micro_expressions"] + ended["macro_expressions"] == len(expected)
    motion = [message for message in messages if message["type"] == "motion"]
    assert [message["frame"] for message in motion] == list(range(len(frames)))
    assert motion[-1]["captured_ms"] == pytest.approx(5e6 + frames[-1][0])
    assert len(motion[-1]["points"]) == 28 and len(motion[-1]["moved"]) == 28
    event = next(m["event"] for m in messages if m["type"] == "event" and "faces" in m["event"])
    assert all(face.startswith("data:image/jpeg;base64,") for face in event["faces"].values())


def test_capture_times_and_numbers_are_the_browsers(client, frames):
    """A hole in the numbers is a gap; a time that runs backwards is dropped and counted."""
    messages: list[dict] = []
    with client.websocket_connect("/live") as socket:
        socket.send_json({"type": "start", "sensitivity": 0.5})
        _send(socket, frames[:10], messages)
        socket.send_bytes(_packet(1010, 5e6, frames[10][1]))  # the time of the first
        _send(socket, frames[40:42], messages, first=1040)
        socket.send_json({"type": "stop"})
        _until(socket, "ended", messages)
    gaps = [m["event"] for m in messages if m["type"] == "event" and m["event"]["type"] == "stream_gap"]
    assert [gap["frame"] for gap in gaps] == [40]
    assert "30 frames dropped" in gaps[0]["cause"]
    assert messages[-1]["event"]["drops"] == {"capture time not after the last": 1}


def test_another_sensitivity_holds_from_then_on(client, frames):
    messages: list[dict] = []
    with client.websocket_connect("/live") as socket:
        socket.send_json({"type": "start", "sensitivity": 0.5})
        socket.send_json({"type": "sensitivity", "value": 0.0})
        _send(socket, frames, messages)
        socket.send_json({"type": "stop"})
        ended = _until(socket, "ended", messages)["event"]
    assert not [e for e in _expressions(messages) if e[0] == "micro_expression"]
    assert ended["rejected"].get("unsure", 0) >= 1


def test_another_sensitivity_forgets_nothing_that_was_seen(client, frames):
    """It is changed in the midst of an expression, which is found all the same."""
    messages: list[dict] = []
    with client.websocket_connect("/live") as socket:
        socket.send_json({"type": "start", "sensitivity": 0.0})
        _send(socket, frames[:66], messages)
        socket.send_json({"type": "sensitivity", "value": 0.5})
        _send(socket, frames[66:], messages, first=1066)
        socket.send_json({"type": "stop"})
        _until(socket, "ended", messages)
    found = [onset for kind, onset, *_ in _expressions(messages) if kind == "micro_expression"]
    assert found and abs(found[0] - 60) <= 2


def test_the_visitor_beyond_the_limit_is_told_so_and_a_place_becomes_free(landmarker):
    with _client(landmarker, visitors=2) as client:
        with client.websocket_connect("/live") as first, client.websocket_connect("/live") as second:
            for socket in (first, second):
                socket.send_json({"type": "start", "sensitivity": 0.5})
                _until(socket, "ready")
            with client.websocket_connect("/live") as third:
                error = third.receive_json()
                assert error["code"] == "full" and "2 places" in error["message"]
                with pytest.raises(WebSocketDisconnect) as left:
                    third.receive_json()
                assert left.value.code == 1013
            first.send_json({"type": "stop"})
            _until(first, "ended")
        while client.get("/health").json()["live"]:
            pass
        with client.websocket_connect("/live") as again:
            again.send_json({"type": "start", "sensitivity": 0.5})
            _until(again, "ready")


def _error_after(client: TestClient, *messages: dict | bytes) -> dict:
    with client.websocket_connect("/live") as socket:
        for message in messages:
            if isinstance(message, bytes):
                socket.send_bytes(message)
            else:
                socket.send_json(message)
        while (answer := socket.receive_json())["type"] != "error":
            pass
        return answer


START = {"type": "start", "sensitivity": 0.5}
SMALL = _jpeg(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "too short"),
        (_packet(0, 0.0, b"GIF89a" + bytes(50)), "no JPEG"),
        (_packet(0, 0.0, SMALL[:60]), "no JPEG"),
        (_packet(0, float("nan"), SMALL), "capture time"),
        (_packet(0, float("inf"), SMALL), "capture time"),
        (_packet(0, 0.0, _jpeg(np.zeros((2000, 2000), np.uint8))), "2000 x 2000"),
        (_packet(0, 0.0, _jpeg(np.zeros((8, 8), np.uint8))), "8 x 8"),
        (bytes(1_000_001), "too large"),
        ({"type": "sensitivity", "value": 7}, "0 to 1"),
        ({"type": "sensitivity", "value": "0.5"}, "no number"),
        ({"type": "launch"}, "reload"),
    ],
)
def test_what_is_no_frame_ends_the_session_with_a_reason(client, message, words):
    error = _error_after(client, START, message)
    assert error["code"] == "bad"
    assert words in error["message"]


def test_a_jpeg_that_promises_gigantic_pictures_is_not_decoded(client):
    jpeg = bytearray(SMALL)
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    assert "60000 x 60000" in _error_after(client, START, _packet(0, 0.0, bytes(jpeg)))["message"]


def test_a_jpeg_of_empty_segments_is_given_up_at_once(client):
    jpeg = SMALL[:2] + b"\xff\xfe\x00\x02" * 200_000 + SMALL[2:]
    assert "no JPEG" in _error_after(client, START, _packet(0, 0.0, jpeg))["message"]


def test_a_damaged_jpeg_ends_the_session(client):
    jpeg = SMALL.replace(b"\xff\xdb", b"\xff\xe5")  # its quantisation tables are gone
    assert "damaged" in _error_after(client, START, _packet(0, 0.0, jpeg))["message"]


def test_pictures_of_another_size_end_the_session(client, frames):
    packets = [_packet(0, 0.0, frames[0][1]), _packet(1, 33.0, SMALL)]
    assert "size has changed" in _error_after(client, START, *packets)["message"]


def test_first_message_has_to_be_a_start(client):
    assert _error_after(client, {"type": "stop"})["code"] == "bad"
    assert _error_after(client, {"type": "start"})["code"] == "bad"


def test_a_session_without_frames_ends_and_a_paused_one_stays_longer(landmarker):
    with _client(landmarker, idle_s=0.05, paused_s=0.2) as client:
        assert _error_after(client)["code"] == "idle"
        assert "No frame" in _error_after(client, START)["message"]
        assert "paused" in _error_after(client, START, {"type": "pause"})["message"]


def test_frames_beyond_the_rate_are_dropped_and_counted(landmarker):
    client = _client(landmarker, live_fps=2.0, buffer_frames=50)
    with client, client.websocket_connect("/live") as socket:
        socket.send_json(START)
        for i in range(20):
            socket.send_bytes(_packet(i, 33.0 * i, SMALL))
        socket.send_json({"type": "stop"})
        ended = _until(socket, "ended")["event"]
    assert ended["frames"] + ended["drops"]["too many frames a second"] == 20
    assert ended["frames"] < 10


def test_a_slow_recogniser_drops_the_oldest_and_counts(landmarker, frames):
    client = _client(landmarker, buffer_frames=2)
    with client, client.websocket_connect("/live") as socket:
        socket.send_json(START)  # the models load while these come
        for i in range(30):
            socket.send_bytes(_packet(i, 33.0 * i, frames[0][1]))
        socket.send_json({"type": "stop"})
        ended = _until(socket, "ended")["event"]
    assert ended["frames"] + ended["drops"]["buffer full"] == 30


def test_another_sites_page_is_turned_away(client):
    assert client.post("/clips/sample", headers={"origin": "https://elsewhere.example"}).status_code == 403
    other = client.websocket_connect("/live", headers={"origin": "https://elsewhere.example"})
    with pytest.raises(WebSocketDisconnect), other:
        pass
    assert same_origin("http://localhost:7860", "localhost:7860")
    assert not same_origin("http://localhost:7861", "localhost:7860")
    assert not same_origin("null", "localhost:7860")


def test_every_answer_forbids_other_hosts(client):
    policy = client.get("/health").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


def test_what_the_page_has_no_use_for_is_closed(client):
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 403
    for path in ("/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/%66ile=/etc/passwd"):
        assert client.get(path).status_code == 403


def test_other_names_of_this_machine_are_turned_away(landmarker):
    """Any site can have its name lead to 127.0.0.1: its page would be of the same origin."""
    there = {"host": "elsewhere.example:7860", "origin": "http://elsewhere.example:7860"}
    with _client(landmarker) as client:
        assert client.get("/health", headers=there).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live", headers=there):
            pass
    open_to_all = create_app(DemoConfig(host="0.0.0.0"), landmarker)
    behind_a_proxy = create_app(DemoConfig(names=("elsewhere.example",)), landmarker)
    for app in (open_to_all, behind_a_proxy):
        with TestClient(app) as client:
            assert client.get("/health", headers=there).status_code == 200


def test_more_websockets_than_the_limit_are_turned_away(landmarker):
    with _client(landmarker, sockets=1) as client:
        second = client.websocket_connect("/live")
        with client.websocket_connect("/live"), pytest.raises(WebSocketDisconnect), second:
            pass
        with client.websocket_connect("/live") as socket:
            socket.send_json(START)
            _until(socket, "ready")


def _finish(client: TestClient, key: str) -> dict:
    while (report := client.get(f"/clips/{key}").json())["state"] in ("waiting", "working"):
        time.sleep(0.02)
    return report


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> bytes:
    """The sample's beginning, as an MP4."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    with av.open(str(SAMPLE)) as container:
        images = []
        for frame in container.decode(video=0):
            if float(frame.time or 0) > 3.2:
                break
            images.append(frame.to_ndarray(format="bgr24"))
    write_clip(path, images, codec_options={"crf": "14"})
    return path.read_bytes()


def test_a_clip_gives_events_video_table_and_report_and_is_deleted(client, short):
    key = client.post("/clips?name=a%3Cb%3E.mp4", content=short).json()["key"]
    assert _finish(client, key)["state"] == "done"
    lines = [json.loads(line) for line in client.get(f"/clips/{key}/events.jsonl").text.splitlines()]
    assert lines[0]["type"] == "stream_started" and lines[-1]["type"] == "stream_ended"
    found = [line for line in lines if line["type"] == "micro_expression"]
    assert found and abs(found[0]["onset"]["frame"] - 60) <= 2
    assert len(client.get(f"/clips/{key}/events.csv").text.splitlines()) == 1 + len(found)
    video = client.get(f"/clips/{key}/annotated.mp4", headers={"range": "bytes=0-99"})
    assert video.status_code == 206 and video.content[4:8] == b"ftyp"
    result = client.get(f"/clips/{key}/result.json").json()
    assert [event["type"] for event in result["events"]] == [line["type"] for line in lines]
    assert result["chart"][-1][0] == pytest.approx(3.2, abs=0.1)
    report = client.get(f"/clips/{key}/report.html")
    assert "a&lt;b&gt;.mp4" in report.text and "<script" not in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    folder = client.app.state.clips._clips[key].folder  # pyright: ignore
    assert not (folder / "clip").exists()
    client.post(f"/clips/{key}/forget")
    assert not folder.exists()
    assert client.get(f"/clips/{key}").status_code == 404


def _rejection(client: TestClient, content: bytes, name: str = "clip.mp4") -> str:
    answer = client.post(f"/clips?name={name}", content=content)
    if answer.status_code != 200:
        return answer.json()["message"]
    report = _finish(client, answer.json()["key"])
    assert report["state"] == "failed"
    return report["error"]


def test_hostile_clips_are_refused_with_a_reason(landmarker, short, tmp_path):
    limits = {"clips": 20, "clip_bytes": 3e6, "clip_s": 5.0, "clip_pixels": 1e5}
    with _client(landmarker, **limits) as client:
        assert "empty" in _rejection(client, b"")
        assert "larger than 3 MB" in _rejection(client, bytes(3_000_001))
        assert "cannot be read as a video" in _rejection(client, b"%PDF-1.7\n" * 99)
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{SAMPLE}\n#EXT-X-ENDLIST\n"
        assert "cannot be read as a video" in _rejection(client, playlist.encode(), "list.m3u8")
        assert "cannot be read as a video" in _rejection(client, short[: len(short) // 3])
        large = write_clip(tmp_path / "large.mp4", [picture(0, 400, 300)])
        assert "400 x 300" in _rejection(client, large.read_bytes())
        long = write_clip(tmp_path / "long.mp4", [picture(i) for i in range(12)], fps=2)
        assert "5 s are taken" in _rejection(client, long.read_bytes())
        nobody = write_clip(tmp_path / "nobody.mp4", [picture(i, 160, 120) for i in range(9)])
        assert "no face" in _rejection(client, nobody.read_bytes()).lower()
        assert "0 to 1" in client.post("/clips?sensitivity=nan", content=short).json()["message"]


def test_a_clip_whose_header_hides_its_length_is_cut(landmarker, short, tmp_path):
    with _client(landmarker, clip_frames=70) as client:
        path = tmp_path / "raw.ts"
        with av.open(str(path), "w", format="mpegts") as out, av.open(str(SAMPLE)) as source:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None and float(packet.dts * packet.time_base) < 4:
                    packet.stream = stream
                    out.mux(packet)
        key = client.post("/clips?name=raw.ts", content=path.read_bytes()).json()["key"]
        report = _finish(client, key)
        if report["state"] == "failed":
            assert "70" in report["error"]
        else:
            lines = client.get(f"/clips/{key}/events.jsonl").text.splitlines()
            assert json.loads(lines[-1])["frames"] == 70


def test_an_upload_that_comes_too_slowly_is_ended(landmarker):
    async def drip():
        yield b"a"
        await asyncio.sleep(60)

    async def upload(client: TestClient) -> None:
        clips = client.app.state.clips  # pyright: ignore
        with pytest.raises(ClipRefused, match="too slow"):
            await clips.add("slow.mp4", 0.5, drip())
        assert not len(clips)

    with _client(landmarker, upload_s=0.01) as client:
        assert client.portal is not None
        client.portal.call(upload, client)


def test_no_more_clips_than_there_is_room_for(landmarker, short):
    with _client(landmarker, clips=1) as client:
        key = client.post("/clips", content=short).json()["key"]
        assert client.post("/clips", content=short).status_code == 503
        client.post(f"/clips/{key}/forget")
        assert client.post("/clips", content=short).status_code == 200


def test_a_clip_ends_whatever_goes_wrong(landmarker, short, monkeypatch):
    async def no_more_processes(*arguments, **settings):
        raise BlockingIOError("Resource temporarily unavailable")

    with _client(landmarker) as client:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", no_more_processes)
        report = _finish(client, client.post("/clips", content=short).json()["key"])
    assert report["state"] == "failed" and "the server has a problem" in report["error"]


def test_the_servers_paths_are_not_told(tmp_path):
    job = Job(str(tmp_path / "clip"), "mine.ts", str(tmp_path), "", "", 0.5, 1, 1.0, 1)
    assert (
        _for_the_visitor(SourceError(f"{job.clip}: the frame size changes"), job)
        == "mine.ts: the frame size changes"
    )
    assert str(tmp_path) not in _for_the_visitor(OutputError(f"{tmp_path}/annotated.mp4 is full"), job)


def test_keys_and_names_of_clips_reach_no_other_file(client):
    for path in ("/clips/nokey", "/clips/nokey/annotated.mp4", "/clips/..%2f..%2fetc/passwd"):
        assert client.get(path).status_code == 404


def test_the_servers_camera_is_shown_to_viewers(landmarker):
    app = create_app(DemoConfig(source="sample"), landmarker)
    client = TestClient(app, headers={"host": "localhost"})
    with client, client.websocket_connect("/server-camera") as socket:
        while (message := socket.receive_json())["type"] != "picture":
            assert "gives no picture" not in message.get("message", "")
    assert message["jpeg"].startswith("/9j/")


def test_without_a_camera_the_viewer_is_told(client, landmarker):
    with client.websocket_connect("/server-camera") as socket:
        assert "--camera 0" in socket.receive_json()["message"]
    app = create_app(DemoConfig(source="/no/such/file.mp4"), landmarker)
    other = TestClient(app, headers={"host": "localhost"})
    with other, other.websocket_connect("/server-camera") as socket:
        while "does not exist" not in (message := socket.receive_json()["message"]):
            assert "opened" in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 0}, "--port"),
        ({"tls_cert": Path(__file__)}, "belong together"),
        ({"tls_cert": Path("/no"), "tls_key": Path("/no")}, "--tls-cert"),
        ({"tls_cert": Path(__file__), "tls_key": Path(__file__)}, "both PEM"),
        ({"camera": 0, "source": "sample"}, "choose one"),
        ({"limits": Limits(visitors=0)}, "--limits.visitors"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, words):
    from streamer.demo.settings import check

    with pytest.raises(UsageError, match=words):
        check(DemoConfig(**settings))
