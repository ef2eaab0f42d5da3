"""Settings from flags and YAML files: flags win, and nothing wrong is ignored."""

from __future__ import annotations

import runpy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from streamer.cli import FILE_BYTES, ONLY_FLAGS, load_config, read_config
from streamer.config import Config, TrackingConfig
from streamer.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def write(tmp_path: Path):
    """Writes a configuration file, returns its path."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- files -------------------------------------------------------------------------------------------


def test_file_fills_the_same_settings(write) -> None:
    config = read_config(
        write(
            "camera: 1\nsave: ~/out.mp4\nshow: true\ndevice: cpu\nmax_frames: null\n"
            "tracking:\n  anchor_interval_s: 0.5\n  max_faces: 2\n"
            "spotting:\n  half_lengths_s: [0.1, 1]\n"
        )
    )
    assert (config.camera, config.show, config.device, config.max_frames) == (1, True, "cpu", None)
    assert config.save == Path.home() / "out.mp4"
    assert config.tracking == replace(TrackingConfig(), anchor_interval_s=0.5, max_faces=2)
    assert config.spotting.half_lengths_s == (0.1, 1.0)
    assert config.capture == Config().capture


def test_whole_numbers_are_numbers(write) -> None:
    value = read_config(write("capture: {fps: 100}")).capture.fps
    assert value == 100.0
    assert isinstance(value, float)


@pytest.mark.parametrize("text", ["", "# nothing\n", "tracking:\n  # max_faces: 2\n"])
def test_comments_only(write, text: str) -> None:
    assert read_config(write(text)) == Config()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("trackin:\n  max_faces: 2", ["unknown key trackin", "did you mean tracking?"]),
        ("tracking:\n  max_face: 2", ["unknown key tracking.max_face", "did you mean tracking.max_faces?"]),
        ("tracking:\n  max-faces: 2", ["did you mean tracking.max_faces?"]),
        ("max_faces: 2", ["unknown key max_faces", "it belongs under 'tracking:'"]),
        ("tracking:\n  zzz: 2", ["known keys: anchor_interval_s"]),
        ("7: 2", ["unknown key 7"]),
        ("config: other.yaml", ["config is a flag only", "--config"]),
        ("list_cameras: true", ["list_cameras is a flag only", "--list-cameras"]),
        ("tracking:\n  config: a", ["unknown key tracking.config"]),
        ("camera: yes", ["camera: expected a whole number, got True"]),
        ("camera: '0'", ["camera: expected a whole number, got text '0'", "without quotes"]),
        ("camera: 1.5", ["camera: expected a whole number, got 1.5"]),
        ("show: 1", ["show: expected true or false, got 1"]),
        ("source: 5", ["source: expected text, got 5", "put it in quotes"]),
        ("source: [a]", ["source: expected text, got a list"]),
        ("save: ''", ["save: expected a path"]),
        ("engine: null", ["engine: expected text, got nothing"]),
        ("device: gpu", ["device: expected one of auto, cpu, cuda, got text 'gpu'"]),
        ("device: [cpu]", ["device: expected one of auto, cpu, cuda, got a list"]),
        ("capture:\n  fps: 1e3", ["capture.fps: expected a number, got text '1e3'", "write 1000.0"]),
        ("capture:\n  fps: true", ["capture.fps: expected a number, got True"]),
        ("capture:\n  fps: 1" + "0" * 400, ["capture.fps: int too large"]),
        ("capture:\n  fps: fast", ["capture.fps: expected a number, got text 'fast'"]),
        ("capture: 5", ["capture: expected 'key: value' lines, got 5"]),
        ("- camera", ["expected 'key: value' lines, got a list"]),
        ("just text", ["expected 'key: value' lines"]),
        ("spotting:\n  half_lengths_s: 0.1", ["spotting.half_lengths_s: expected a list like [0.1, 0.2]"]),
        ("spotting:\n  half_lengths_s: []", ["spotting.half_lengths_s: expected a list"]),
        (
            "spotting:\n  half_lengths_s: [0.1, a]",
            ["spotting.half_lengths_s: expected a number, got text 'a'"],
        ),
        ("capture:\n  fps: 0", ["capture.fps is 0: it has to be more than 0"]),
        ("capture:\n  fps: .nan", ["capture.fps is nan: it has to be a finite number"]),
        ("capture:\n  fps: .inf", ["it has to be a finite number"]),
        ("capture:\n  width: 0", ["capture.width is 0: it has to be at least 1"]),
        ("capture:\n  reconnect_s: -1", ["capture.reconnect_s is -1: it has to be at least 0"]),
        ("tracking:\n  min_confidence: 1.5", ["tracking.min_confidence is 1.5: it has to be at most 1"]),
        (
            "spotting:\n  half_lengths_s: [0.1, 0]",
            ["spotting.half_lengths_s is [0.1, 0]: it has to be more than 0"],
        ),
        ("camera: -1", ["camera is -1: it has to be at least 0"]),
        ("max_frames: 0", ["max_frames is 0: it has to be at least 1"]),
    ],
)
def test_wrong_setting(write, text: str, parts: list[str]) -> None:
    message = refusal(write(text))
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("camera: [1", ":1:"),
        ("a: 1\n b: 2\n", ":2:"),
        ("camera: 1\ncamera: 2", "the key 'camera' is given twice"),
        ("a: &a [1, 1]\nb: [*a, *a]", "aliases (*name) are not allowed here"),
        ("camera: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("camera: 1\n---\ncamera: 2", "not valid YAML"),
        (b"camera: \xff\xfe\xfa", "cannot be read as YAML"),
        (b"\x00\x01", "cannot be read as YAML"),
        ("[" * 50_000, "nested far too deeply"),
        ("#" * (FILE_BYTES + 1), "is larger than"),
        ("? [a, b]\n: 1", "not valid YAML"),
        ("2026-13-45: 1", "cannot be read as YAML"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_yaml(write, text: str | bytes, part: str) -> None:
    assert part in refusal(write(text))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.yaml")
    assert "directory" in refusal(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([field.name for field in fields(Config)] + ["max_faces", "fps"])
                | st.text(max_size=3),
                inner,
                max_size=3,
            )
        ),
        max_leaves=6,
    )
)
@example(content={"\n": None})
def test_any_content_gives_settings_or_one_line(tmp_path_factory: pytest.TempPathFactory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        assert isinstance(read_config(path), Config)
    except UsageError as error:
        assert "\n" not in str(error)


# --- the files that come along -----------------------------------------------------------------------


def test_default_file_is_the_defaults() -> None:
    path = ROOT / "configs" / "default.yaml"
    assert read_config(path) == Config()
    text = path.read_text(encoding="utf-8")
    written = runpy.run_path(str(ROOT / "scripts" / "write_default_config.py"))["render"]()
    assert text == written, "run scripts/write_default_config.py: settings have changed"


def test_default_file_has_every_key() -> None:
    def keys(content: dict) -> set[str]:
        return {
            f"{k}.{n}" if n else k for k, v in content.items() for n in (v if isinstance(v, dict) else [""])
        }

    expected = set()
    for field in fields(Config):
        value = getattr(Config(), field.name)
        names = [inner.name for inner in fields(value)] if is_dataclass(value) else [""]
        expected |= {f"{field.name}.{name}" if name else field.name for name in names}
    content = yaml.safe_load((ROOT / "configs" / "default.yaml").read_text(encoding="utf-8"))
    assert keys(content) == expected - set(ONLY_FLAGS)


def test_high_speed_file() -> None:
    assert read_config(ROOT / "configs" / "high_speed.yaml").capture.camera_fps == 200


# --- flags -------------------------------------------------------------------------------------------


def test_flags_fill_the_same_settings() -> None:
    argv = ["--camera", "0", "--max-frames", "10", "--tracking.anchor-interval-s", "0.2", "--show"]
    config = load_config([*argv, "--spotting.half-lengths-s", "0.1", "0.2"])
    assert (config.camera, config.max_frames, config.show) == (0, 10, True)
    assert config.tracking.anchor_interval_s == 0.2
    assert config.spotting.half_lengths_s == (0.1, 0.2)


def test_flags_win_over_the_file(write) -> None:
    path = write("camera: 1\nshow: true\ndevice: cpu\ntracking: {max_faces: 2, misses: 5}")
    config = load_config(["--config", str(path), "--tracking.max-faces", "3", "--no-show"])
    assert (config.camera, config.show, config.device) == (1, False, "cpu")
    assert (config.tracking.max_faces, config.tracking.misses) == (3, 5)


@pytest.mark.parametrize(("text", "flag"), [("camera: 1", "--source"), ("source: a.mp4", "--camera")])
def test_named_source_replaces_the_file_s(write, text: str, flag: str) -> None:
    config = load_config(["--config", str(write(text)), flag, "7"])
    assert (config.source, config.camera) == (("7", None) if flag == "--source" else (None, 7))


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "nothing to recognise: give --camera 0"),
        (["--camera", "0", "--source", "sample"], "choose one"),
        (["--camera", "-1"], "--camera is -1: it has to be at least 0"),
        (["--camera", "0", "--max-frames", "0"], "--max-frames is 0"),
        (["--camera", "0", "--capture.camera-fps", "nan"], "--capture.camera-fps is nan"),
        (["--camera", "0", "--tracking.min-confidence", "2"], "at most 1"),
        (["--camera", "0", "--motion.crop-iod-min-px", "300"], "--motion.crop-iod-max-px"),
        (["--config", "/nowhere/settings.yaml"], "--config /nowhere/settings.yaml cannot be read"),
    ],
)
def test_flags_that_make_no_sense(argv: list[str], part: str) -> None:
    with pytest.raises(UsageError, match=".") as caught:
        load_config(argv)
    assert part in str(caught.value)


def test_both_in_the_file(write) -> None:
    with pytest.raises(UsageError, match="choose one"):
        load_config(["--config", str(write("camera: 0\nsource: a.mp4"))])


def test_listing_needs_no_source() -> None:
    assert load_config(["--list-cameras"]).list_cameras


@pytest.mark.parametrize(
    "argv", [["--camera", "x"], ["--camara", "0"], ["--device", "gpu"], ["stray"], ["--camera"]]
)
def test_flags_that_cannot_be_parsed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_config(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert 0 < len(err.splitlines()) <= 14
    assert "Traceback" not in err
