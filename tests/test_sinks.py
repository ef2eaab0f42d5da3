"""Sinks that write files: what they write, that it stays whole, and that wrong paths are told up front."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sink_samples import (
    Screen,
    frame,
    full_after,
    micro,
    one_of_each,
    run_child,
)

from streamer import events
from streamer.config import Config
from streamer.errors import OutputError, UsageError
from streamer.messages import FaceLost
from streamer.sinks import (
    CsvSink,
    JsonLinesSink,
    StreamStop,
    TerminalSink,
    VideoSink,
    WindowSink,
    close_sinks,
    open_sinks,
    send_event,
    send_frame,
    window,
)


def test_events_are_in_the_file_as_soon_as_they_are_sent(tmp_path):
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path)
    for count, event in enumerate(one_of_each(), start=1):
        sink.on_event(event)
        lines = path.read_text().splitlines()
        assert len(lines) == count
        assert json.loads(lines[-1]) == events.to_dict(event)
    sink.close()
    sink.close()


def test_second_run_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        sink, table = JsonLinesSink(tmp_path / name), CsvSink(tmp_path / f"{name}.csv")
        for event in one_of_each():
            send_event([sink, table], event)
        close_sinks([sink, table])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("sink_class", [JsonLinesSink, CsvSink])
def test_full_disk_is_one_error_that_names_path_and_remedy(sink_class):
    sink = sink_class(Path("/dev/full"))
    with pytest.raises(OutputError, match="/dev/full: no space left on device; free some space"):
        sink.on_event(micro())
    sink.on_event(micro())  # said once
    sink.close()


def test_file_cut_short_by_a_full_disk_has_whole_lines(tmp_path):
    path = tmp_path / "out.jsonl"
    sink = JsonLinesSink(path)
    with full_after(1000), pytest.raises(OutputError, match=r"--events: cannot write .*out.jsonl"):
        for number in range(10):
            sink.on_event(micro(number))
    sink.close()
    text = path.read_text()
    assert text.endswith("\n")
    assert [json.loads(line)["id"] for line in text.splitlines()] == [0, 1, 2]


def test_deleted_file_is_noticed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = JsonLinesSink(folder / "out.jsonl")
    sink.on_event(micro())
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match="deleted while it was being written; check that the folder"):
        sink.on_event(micro())
    sink.close()


def test_pipe_whose_reader_is_gone_stops_the_stream_once():
    reader, writer = os.pipe()
    sink = JsonLinesSink(Path(f"/dev/fd/{writer}"))
    sink.on_event(micro())
    assert os.read(reader, 10_000).count(b"\n") == 1
    os.close(reader)
    with pytest.raises(StreamStop, match="closed the pipe"):
        sink.on_event(micro())
    sink.on_event(micro())
    sink.close()
    os.close(writer)


def test_head_ends_the_stream_quietly():
    script = """
import sys
from sink_samples import micro
from streamer.config import Config
from streamer.sinks import StreamStop, close_sinks, open_sinks, send_event
sinks = open_sinks(Config())
try:
    for number in range(100_000):
        send_event(sinks, micro(number))
except StreamStop as stop:
    print("stopped", file=sys.stderr)
close_sinks(sinks)
"""
    with run_child(script) as child:
        assert child.stdout and child.stderr
        assert json.loads(child.stdout.readline())["id"] == 0
        child.stdout.close()
        assert child.stderr.read() == b"stopped\n"
    assert child.returncode == 0


def test_appending_to_standard_output_keeps_what_is_there(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    saved = os.dup(1)
    target = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.dup2(target, 1)
        sink = JsonLinesSink(None)
        sink.on_event(micro())
        sink.close()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(target)
    assert path.read_text().splitlines() == ["before", events.to_json(micro())]


def test_new_files_are_private_and_existing_ones_keep_their_mode(tmp_path):
    old = tmp_path / "old.csv"
    old.touch(mode=0o640)
    old.chmod(0o640)
    config = Config(events=str(tmp_path / "new.jsonl"), csv=old, save=tmp_path / "new.mp4")
    sinks = open_sinks(config)
    send_event(sinks, micro())
    send_frame(sinks, frame(0), None, None)
    close_sinks(sinks)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new.jsonl": 0o600, "new.mp4": 0o600, "old.csv": 0o640}


def test_existing_file_is_kept_until_the_first_event_and_then_replaced(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("the last run, which was longer than one event " * 50)
    before = path.read_text()
    JsonLinesSink(path).close()  # the source could not be opened
    assert path.read_text() == before
    sink = JsonLinesSink(path)
    sink.on_event(micro())
    sink.close()
    assert path.read_text() == events.to_json(micro()) + "\n"


def test_nothing_is_left_behind_when_nothing_was_written(tmp_path):
    config = Config(events=str(tmp_path / "a.jsonl"), csv=tmp_path / "b.csv", save=tmp_path / "c.mp4")
    sinks = open_sinks(config)
    assert len(list(tmp_path.iterdir())) == 3
    close_sinks(sinks)
    assert list(tmp_path.iterdir()) == []


WRONG_OUTPUTS = {
    "missing folder": (Config(csv=Path("no/out.csv")), "--csv: the folder .*no does not exist; create it"),
    "a folder": (Config(events="here"), "--events: here is a folder; give the name of a file"),
    "no name": (Config(events=""), "--events: . is a folder"),
    "twice": (Config(events="x", csv=Path("here/../x")), "--events and --csv both name here/../x; give each"),
    "twice by a link": (
        Config(events="clip.mp4", save=Path("link.mp4")),
        "--save and --events both name clip.mp4",
    ),
    "the source": (
        Config(source="clip.mp4", save=Path("link.mp4")),
        "overwrite link.mp4, which --source reads",
    ),
    "the settings": (
        Config(config=Path("clip.mp4"), csv=Path("clip.mp4")),
        "overwrite clip.mp4, which --config",
    ),
    "null byte": (Config(events="a\0b"), r"--events: .*a\?b.*null"),
    "too long": (Config(events="n" * 300), "--events: n* cannot be used: file name too long"),
    "a pipe": (Config(events="x", save=Path("pipe.mp4")), "--save: pipe.mp4 is a device or a pipe"),
    "another format": (Config(events="x", save=Path("out.avi")), "--save: out.avi has to end in .mp4"),
    "under a file": (Config(save=Path("clip.mp4/x.mp4")), "--save: the folder .*clip.mp4 does not exist"),
}


@pytest.mark.parametrize("case", WRONG_OUTPUTS)
def test_wrong_output_is_one_line_up_front_and_changes_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    (tmp_path / "link.mp4").hardlink_to(tmp_path / "clip.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    before = sorted(tmp_path.iterdir())
    config, message = WRONG_OUTPUTS[case]
    with pytest.raises(UsageError, match=message) as caught:
        open_sinks(config)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "clip.mp4").read_bytes() == b"a clip"


def test_folder_without_permission_is_one_line(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:  # root may write anywhere: be somebody else for the moment
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="--csv: .*permission denied; choose another path"):
            open_sinks(Config(csv=locked / "out.csv"))
    finally:
        if root:
            os.seteuid(0)


def test_two_outputs_may_share_dev_null():
    close_sinks(open_sinks(Config(events="/dev/null", csv=Path("/dev/null"))))


class Recorder:
    """A sink that takes note, and fails when told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.calls: list[str] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.failure:
            raise self.failure

    def on_event(self, event) -> None:
        self._note("event")

    def on_frame(self, frame, face, motion) -> None:
        self._note("frame")

    def close(self) -> None:
        self._note("close")


def test_failing_sink_does_not_keep_anything_from_the_others():
    stop, full, fine = Recorder(StreamStop("closed")), Recorder(OutputError("full")), Recorder()
    for sinks, expected in (([stop, full, fine], OutputError), ([stop, fine], StreamStop)):
        with pytest.raises(expected):
            send_event(sinks, micro())
        with pytest.raises(expected):
            send_frame(sinks, frame(0), None, None)
        with pytest.raises(expected):
            close_sinks(sinks)
    assert fine.calls == ["event", "frame", "close"] * 2


def test_open_sinks_gives_what_was_asked_for_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(window, "check_display", lambda: None)
    monkeypatch.setattr(sys, "stderr", Screen())
    config = Config(events=str(tmp_path / "a"), csv=tmp_path / "b", save=tmp_path / "c.mp4", show=True)
    sinks = open_sinks(config)
    close_sinks(sinks)
    assert [type(s) for s in sinks] == [TerminalSink, JsonLinesSink, CsvSink, VideoSink, WindowSink]


def test_csv_has_a_header_and_a_row_for_each_expression(tmp_path):
    path = tmp_path / "out.csv"
    sink = CsvSink(path)
    for event in [*one_of_each(), replace(micro(2), name='a "quoted", name')]:
        sink.on_event(event)
    sink.close()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["type"] for row in rows] == ["micro_expression", "macro_expression", "micro_expression"]
    assert rows[0] == {
        "type": "micro_expression",
        "id": "1",
        "onset_frame": "27",
        "onset_s": "0.9",
        "apex_frame": "30",
        "apex_s": "1.0",
        "offset_frame": "33",
        "offset_s": "1.1",
        "duration_ms": "200.0",
        "label": "III",
        "name": "anger",
        "label_probability": "0.8765",
        "action_units": "AU4+AU7",
        "strength_iod": "0.01634",
        "confidence": "0.8765",
        "latency_ms": "66.7",
    }
    assert rows[1]["label"] == rows[1]["confidence"] == rows[1]["action_units"] == ""
    assert rows[1]["duration_ms"] == "800.0" and rows[1]["strength_iod"] == "0.02"
    assert rows[2]["name"] == 'a "quoted", name'


def test_csv_of_a_stream_without_expressions_is_its_header(tmp_path):
    path = tmp_path / "out.csv"
    sink = CsvSink(path)
    sink.on_event(FaceLost(1, 0.1))
    sink.close()
    assert path.read_text().count("\n") == 1 and path.read_text().startswith("type,id,onset_frame")


def test_csv_cut_short_by_a_full_disk_has_whole_rows(tmp_path):
    path = tmp_path / "out.csv"
    sink = CsvSink(path)
    with full_after(500), pytest.raises(OutputError, match="--csv: cannot write .*out.csv"):
        for number in range(20):
            sink.on_event(micro(number))
    sink.close()
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 2 and {len(row) for row in rows} == {len(rows[0])}
