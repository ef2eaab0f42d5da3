"""Files and folders as sources: every frame, at its own time, upright, in BGR; damage is counted."""

from __future__ import annotations

import gc
import http.server
import logging
import threading
import zlib
from functools import partial
from pathlib import Path
from typing import cast

import av
import cv2
import media
import numpy as np
import pytest
from av.codec import Codec

from streamer import sources
from streamer.config import CaptureConfig, Config
from streamer.errors import SourceError, UsageError
from streamer.messages import Frame
from streamer.sources import ImageFolder, Source, VideoFile, open_source
from streamer.sources.base import MAX_SIDE_PX, Picture, check_size, without_credentials
from streamer.sources.ffmpeg import Upright, turned
from streamer.sources.images import stated_size

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mjpeg", ".webm": "libvpx-vp9"}
KEY_EVERY_10 = {"g": "10"}


def open_path(path: Path | str, **capture) -> Source:
    return open_source(Config(source=str(path), capture=CaptureConfig(**capture)))


def read(path: Path | str, **capture) -> tuple[Source, list[Frame]]:
    """All frames of a file or folder, and the closed source."""
    with open_path(path, **capture) as source:
        frames = [message for message in source.frames() if isinstance(message, Frame)]
    return source, frames


def numbers(frames: list[Frame]) -> list[int]:
    return [media.number(frame.image) for frame in frames]


def grey_error(frame):
    """Mean difference between what a frame gives as grey and the grey of its colours, grey levels."""
    grey = frame.grey_or_image
    if grey.ndim == 3:
        return 0.0
    assert grey.dtype == np.uint8
    return np.abs(grey.astype(int) - cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)).mean()


def clip(tmp_path: Path, suffix: str, count: int, fps: int = 30, *, noisy: bool = False, **kwargs) -> Path:
    codec = CODECS[suffix]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    images = media.noisy_pictures(count) if noisy else media.pictures(count)
    return media.write_clip(tmp_path / f"clip{suffix}", images, fps, codec, pix_fmt, **kwargs)


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("read ")]


# Video files: frames and times


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("fps", [30, 60, 200])
def test_every_frame_at_its_own_time(tmp_path, suffix, fps):
    source, frames = read(clip(tmp_path, suffix, 30, fps))
    assert numbers(frames) == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    tick = 0.0005 if suffix in (".mkv", ".webm") else 1e-9  # Matroska rounds to milliseconds
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(30) / fps, atol=tick)
    assert source.fps == pytest.approx(fps)
    assert (source.width, source.height) == media.SIZE
    assert not source.live
    assert source.drops == {}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_keeps_each_timestamp(tmp_path, suffix):
    times_ms = [0, 33, 66, 133, 140, 150, 300, 333, 366, 400, 1400, 1433]
    source, frames = read(clip(tmp_path, suffix, len(times_ms), times_ms=times_ms))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times_ms) / 1000, atol=1e-9)
    assert numbers(frames) == list(range(len(times_ms)))
    assert source.drops == {}


def test_time_counts_from_the_first_frame(tmp_path):
    times_ms = [5000, 5040, 5080]
    _, frames = read(clip(tmp_path, ".mkv", 3, times_ms=times_ms))
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.04, 0.08], atol=1e-9)


def test_times_are_the_same_on_every_run(tmp_path):
    path = clip(tmp_path, ".mp4", 20, 60)
    runs = [[(frame.index, frame.time_s) for frame in read(path)[1]] for _ in range(2)]
    assert runs[0] == runs[1]


def test_missing_timestamps_are_made_up_from_the_nominal_rate(tmp_path):
    path = media.write_clip(tmp_path / "clip.h264", media.pictures(20), 30)  # a bare stream has none
    source, frames = read(path)
    assert isinstance(source, VideoFile)
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 30, atol=1e-9)
    assert source.repaired == 20
    assert source.drops == {}


def test_timestamps_that_run_backwards_are_repaired_and_counted(tmp_path, caplog):
    straight = clip(tmp_path, ".avi", 10, 25)
    stamps = [0, 40, 80, 60, 160, 200, 240, 280, 320, 360]  # milliseconds; the fourth is wrong
    path = media.retime(straight, tmp_path / "back.mkv", stamps)
    source, frames = read(path)
    assert isinstance(source, VideoFile)
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / 25, atol=1e-9)
    assert source.repaired == 1
    assert "1 timestamps were missing or ran backwards" in caplog.text


# Video files: pictures


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "gray16le"),
        (".mp4", "libx264", "yuv420p10le"),
        (".mkv", "ffv1", "yuv420p10le"),
        (".mkv", "ffv1", "yuv422p16le"),
        (".avi", "mjpeg", "yuvj422p"),
        (".mkv", "ffv1", "bgra"),
        (".mov", "qtrle", "argb"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".mkv", "libx264", "yuv444p"),
    ],
)
def test_every_pixel_format_gives_bgr(tmp_path, suffix, codec, pix_fmt):
    path = media.write_clip(tmp_path / f"clip{suffix}", media.pictures(5), 30, codec, pix_fmt)
    _, frames = read(path)
    assert numbers(frames) == list(range(5))
    image = frames[0].image
    assert image.dtype == np.uint8
    assert image.shape == (48, 64, 3)
    assert grey_error(frames[0]) < 2.5
    if pix_fmt.startswith("gray"):
        assert np.ptp(image.astype(int), axis=2).max() == 0
    else:
        np.testing.assert_allclose(image[10, 10], (0, 0, 220), atol=12)
        np.testing.assert_allclose(image[10, 50], (0, 160, 0), atol=12)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "gray"])
def test_black_and_white_are_0_and_255_in_grey(tmp_path, pix_fmt):
    path = media.write_clip(tmp_path / "clip.mkv", media.pictures(3), 30, "ffv1", pix_fmt)
    _, frames = read(path)
    row = frames[1].grey_or_image[42]
    assert row.shape == (64,)
    assert row[:8].min() >= 254  # FFmpeg's own scaler writes 234 for white
    assert row[8:].max() == 0


def test_blacker_than_black_is_black(tmp_path):
    stored = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, values in zip(frame.planes, (stored, 128, 128), strict=True):
        rows = np.frombuffer(cast(memoryview, plane), np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = values
    grey = Upright("clip").picture(frame).grey
    assert grey is not None
    assert grey[5, :17].max() == 0
    np.testing.assert_array_equal(grey[5, 17:], np.rint((stored[5, 17:] - 16.0) * 255 / 219))


def test_frames_are_freed_without_the_garbage_collector(tmp_path):
    path = media.write_clip(tmp_path / "clip.mp4", media.pictures(40))
    gc.collect()
    gc.disable()
    try:
        with open_path(path) as source:
            for frame in source.frames():
                assert isinstance(frame, Frame)
                assert frame.image is not None
            alive = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive <= 5  # of 40: the newest, and the first one, whose display matrix was read


def test_colour_is_made_once_and_only_when_asked_for():
    made = []

    def colour():
        made.append(media.picture(3))
        return made[-1]

    frame = Frame(0, 0.0, 0.0, colour, np.zeros((48, 64), np.uint8))
    assert frame.grey_or_image.ndim == 2
    assert made == []
    assert frame.image is frame.image is made[0]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"), [(".avi", "mjpeg", "yuvj420p"), (".mkv", "ffv1", "gray")]
)
def test_odd_sizes(tmp_path, suffix, codec, pix_fmt):
    images = media.pictures(3, 641, 479)
    source, frames = read(media.write_clip(tmp_path / f"odd{suffix}", images, 30, codec, pix_fmt))
    assert (source.width, source.height) == (641, 479)
    assert numbers(frames) == [0, 1, 2]
    grey = cv2.cvtColor(images[2], cv2.COLOR_BGR2GRAY).astype(int)
    shown = cv2.cvtColor(frames[2].image, cv2.COLOR_BGR2GRAY).astype(int)
    assert np.abs(grey - shown)[:, -8:].mean() < 6  # no smear at the odd edge
    assert grey_error(frames[2]) < 2.5


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_video_is_upright(tmp_path, rotation, mirrored):
    stored = media.pictures(3)
    path = media.write_clip(
        tmp_path / "turned.mp4", stored, pix_fmt="yuv444p", rotation=rotation, mirrored=mirrored
    )
    source, frames = read(path)
    expected = np.rot90(stored[0], rotation // 90)  # counter-clockwise, then mirrored
    if mirrored:
        expected = expected[:, ::-1]
    assert frames[0].image.shape == expected.shape
    assert (source.width, source.height) == expected.shape[1::-1]
    assert np.abs(frames[0].image.astype(int) - expected).mean() < 8
    assert frames[0].image.flags.c_contiguous
    assert grey_error(frames[0]) < 2.5


def test_display_matrix_moves_pixels_as_ffmpeg_defines():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    one = 1 << 16
    for a, b, c, d in [
        (one, 0, 0, one),
        (0, one, -one, 0),
        (0, -one, one, 0),
        (-one, 0, 0, one),
        (0, one, one, 0),
    ]:
        shown = turned(image, np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32))
        corner = min(a * 2, 0) // one + min(c, 0) // one, min(b * 2, 0) // one + min(d, 0) // one
        for q in range(2):
            for p in range(3):
                x, y = (a * p + c * q) // one - corner[0], (b * p + d * q) // one - corner[1]
                assert (shown[y, x] == image[q, p]).all()


# Video files: damage


@pytest.mark.parametrize("suffix", CODECS)
def test_corrupt_packet_is_skipped_and_counted(tmp_path, suffix):
    path = clip(tmp_path, suffix, 40, noisy=True, codec_options=KEY_EVERY_10)
    position, size = media.packets(path)[15]
    # Past the 7 bytes of a Matroska block's header, without which its neighbours are lost too.
    start = 8 if suffix in (".mkv", ".webm") else 0
    media.overwrite(path, position + start, size - start)
    source, frames = read(path)
    assert sum(source.drops.values()) == 1
    assert source.drops.keys() <= {"corrupt packet", "corrupt frame"}
    assert len(frames) == 39
    # The lost frame keeps its number: the others have theirs, and their times.
    assert [frame.index for frame in frames][-10:] == list(range(30, 40))
    np.testing.assert_allclose([frame.time_s for frame in frames][-10:], np.arange(30, 40) / 30, atol=5e-4)
    assert numbers(frames)[-10:] == list(range(30, 40))


def test_frames_that_vanish_with_a_corrupt_one_keep_their_numbers(tmp_path):
    path = media.write_clip(
        tmp_path / "clip.mp4",
        media.noisy_pictures(40),
        codec="libx265",
        codec_options={"x265-params": "keyint=10:log-level=none"},
    )
    # The second packet after a key frame: HEVC decodes nothing more up to the next, and does not say so.
    media.overwrite(path, *media.packets(path)[22])
    source, frames = read(path)
    assert len(frames) < 39
    assert len(frames) + source.drops["corrupt packet"] == 40
    assert frames[-1].index == 39
    assert numbers(frames) == [frame.index for frame in frames]


@pytest.mark.parametrize("suffix", CODECS)
def test_truncated_file_gives_the_frames_it_has(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == ".mp4" else None
    in_order = {"bf": "0"}  # else the cut falls between frames that refer to each other
    path = media.cut(clip(tmp_path, suffix, 60, noisy=True, options=options, codec_options=in_order), 0.6)
    source, frames = read(path)
    assert 5 < len(frames) < 60
    assert numbers(frames) == [frame.index for frame in frames]
    assert source.drops["truncated"] > 0
    assert len(frames) + sum(source.drops.values()) == 60


def test_last_frame_of_a_truncated_file_is_not_shown_half(tmp_path):
    path = clip(tmp_path, ".avi", 40, noisy=True)
    position, size = media.packets(path)[30]
    path.write_bytes(path.read_bytes()[: position + size - 20])  # FFmpeg would fill in the missing part
    source, frames = read(path)
    assert numbers(frames) == list(range(30))
    assert source.drops == {"corrupt frame": 1, "truncated": 9}


def test_damaged_frame_that_the_decoder_patched_up_is_not_shown(tmp_path):
    path = media.write_clip(tmp_path / "clip.avi", media.noisy_pictures(40), codec="mpeg4")
    position, size = media.packets(path)[15]
    media.overwrite(path, position + size // 3, size // 4)
    source, frames = read(path)
    assert source.drops == {"corrupt frame": 1}
    assert [frame.index for frame in frames] == [*range(15), *range(16, 40)]


def test_whole_file_with_longer_sound_is_not_truncated(tmp_path):
    for suffix in (".mp4", ".mkv"):
        source, frames = read(clip(tmp_path, suffix, 30, sound_s=2.0))
        assert len(frames) == 30
        assert source.drops == {}


def test_truncated_file_with_sound(tmp_path):
    path = media.cut(clip(tmp_path, ".mkv", 60, noisy=True, sound_s=1.0, codec_options={"bf": "0"}), 0.5)
    source, frames = read(path)
    assert len(frames) + sum(source.drops.values()) == 60


def test_file_without_its_index_is_refused(tmp_path):
    path = media.cut(clip(tmp_path, ".mp4", 60), 0.6)  # the index of an MP4 is at its end
    with pytest.raises(SourceError, match=r"clip\.mp4.*complete"):
        open_path(path)


def test_frame_size_that_changes_is_an_error(tmp_path):
    parts = [media.write_clip(tmp_path / f"{width}.ts", media.pictures(10, width, 48)) for width in (64, 96)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with (
        open_path(path) as source,
        pytest.raises(SourceError, match="changes from 64x48 to 96x48 at frame 10"),
    ):
        list(source.frames())


# What is no video


def test_unusable_files_are_refused_in_one_line(tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 1000)
    disguised = tmp_path / "notes.mp4"
    disguised.write_text("hello\n" * 1000)
    sound = media.write_sound(tmp_path / "sound.m4a")
    music = media.write_sound(tmp_path / "music.mp4", cover=media.picture(1))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "readme.txt").write_text("no images")
    for path, what in [
        (empty, "is empty"),
        (text, "holds no video"),
        (disguised, "cannot be read as a video"),
        (sound, "sound but no video"),
        (music, "sound but no video"),
        (folder, "holds no images"),
        (tmp_path / "gone.mp4", "does not exist"),
        ("/dev/null", "neither a file nor a folder"),
    ]:
        with pytest.raises(SourceError, match=what) as caught:
            open_path(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message


def test_too_large_frames_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = clip(tmp_path, ".avi", 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 8 + 4  # BITMAPINFOHEADER: size, width, height
    data[at : at + 8] = (MAX_SIDE_PX + 1).to_bytes(4, "little") + (48).to_bytes(4, "little")
    # FFmpeg would take the size from the JPEG data: make it a codec that believes the header.
    fourcc = data.index(b"MJPG", at)
    data[fourcc : fourcc + 4] = b"\0\0\0\0"
    data[at + 10 : at + 12] = (24).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError, match="8193x48"):
        open_path(path)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (MAX_SIDE_PX + 1, 1), (1, MAX_SIDE_PX + 1)])
def test_sizes_that_are_refused(size):
    with pytest.raises(SourceError, match=f"{size[0]}x{size[1]}"):
        check_size("clip", *size)
    check_size("clip", MAX_SIDE_PX, MAX_SIDE_PX)


def test_sample_and_choice_of_source(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.resources, "files", lambda package: tmp_path)
    with pytest.raises(SourceError, match="sample clip .* is missing"):
        open_path("sample")
    (tmp_path / "data").mkdir()
    media.write_clip(tmp_path / "data" / "sample.mp4", media.pictures(4))
    source, frames = read("sample")
    assert source.name == "sample"
    assert numbers(frames) == [0, 1, 2, 3]
    for config in (Config(), Config(camera=0, source="sample")):
        with pytest.raises(UsageError, match="either --camera N or --source"):
            open_source(config)


# Threads


def test_decoding_runs_ahead_but_not_further_than_the_buffer(tmp_path):
    path = clip(tmp_path, ".mp4", 30)
    with open_path(path, buffer_frames=3) as source:
        assert isinstance(source, VideoFile)
        frames = source.frames()
        with source._channel._changed:
            ahead = source._channel._changed.wait_for(lambda: len(source._channel._items) == 3, timeout=10)
        assert ahead, "nothing was decoded before it was asked for"
        received = []
        for frame in frames:
            assert len(source._channel) <= 3
            received.append(frame)
    assert len(received) == 30
    assert source.drops == {}


@pytest.mark.parametrize("started", [False, True])
def test_closing_early_ends_the_thread_and_frees_the_file(tmp_path, started):
    source = open_path(clip(tmp_path, ".mp4", 60))
    frames = iter(())
    if started:
        frames = source.frames()
        next(frames)
    source.close()
    source.close()
    assert list(frames) == []
    assert reading_threads() == []


def test_a_source_is_read_once(tmp_path):
    with open_path(clip(tmp_path, ".mp4", 3)) as source:
        source.frames()
        with pytest.raises(RuntimeError, match="read already"):
            source.frames()
    assert reading_threads() == []


def test_error_in_the_reading_thread_reaches_the_consumer(tmp_path, monkeypatch):
    def broken(self):
        yield 0, 0.0, Picture.of(media.picture(0))
        raise ZeroDivisionError("a bug in a reader")

    monkeypatch.setattr(ImageFolder, "_pictures", broken)
    with open_path(media.write_images(tmp_path / "images", ["img1.png"])) as source:
        frames = source.frames()
        next(frames)
        with pytest.raises(ZeroDivisionError, match="a bug in a reader"):
            next(frames)
    assert reading_threads() == []


# Folders of images


def test_grey_of_a_jpeg_file_is_that_of_its_colours(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "img1.jpg"), cv2.GaussianBlur(media.picture(9, 641, 479), (0, 0), 4.0))
    _, frames = read(folder)
    assert frames[0].grey_or_image.shape == (479, 641)
    assert frames[0].image.shape == (479, 641, 3)
    assert grey_error(frames[0]) < 2.5


@pytest.mark.parametrize(
    "names",
    [
        ["img9.jpg", "img10.jpg", "img11.jpg"],
        ["reg_img46.jpg", "reg_img47.jpg", "reg_img48.jpg"],
        ["006_05562.png", "006_05563.png", "006_05564.png"],
        ["98.bmp", "99.BMP", "100.bmp"],
    ],
)
def test_images_come_in_the_order_of_their_numbers(tmp_path, names):
    source, frames = read(media.write_images(tmp_path / "images", names), fps=200.0)
    assert numbers(frames) == [0, 1, 2]
    assert [frame.index for frame in frames] == [0, 1, 2]
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.005, 0.01])
    assert (source.width, source.height, source.fps, source.live) == (64, 48, 200.0, False)
    assert source.drops == {}


def test_missing_numbers_leave_a_hole_in_index_and_time(tmp_path):
    folder = media.write_images(tmp_path / "images", ["img46.jpg", "img47.jpg", "img50.jpg", "img51.jpg"])
    source, frames = read(folder, fps=100.0)
    assert [frame.index for frame in frames] == [0, 1, 4, 5]
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 0.01, 0.04, 0.05])
    assert source.drops == {"missing image": 2}


def cut_file(path: Path) -> None:
    media.cut(path, 0.6)


def cut_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def no_image(path: Path) -> None:
    path.write_text("this is no image")


def wrong_checksum(path: Path) -> None:
    media.overwrite(path, path.stat().st_size // 2, 4)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".jpg", cut_file),
        (".jpg", cut_end),
        (".png", cut_end),
        (".bmp", cut_end),
        (".png", cut_file),
        (".bmp", cut_file),
        (".jpg", no_image),
        (".png", wrong_checksum),
    ],
)
def test_unreadable_image_is_skipped_counted_and_logged(tmp_path, caplog, capfd, suffix, damage):
    folder = media.write_images(tmp_path / "images", [f"img{i}{suffix}" for i in range(1, 6)])
    damage(folder / f"img3{suffix}")
    source, frames = read(folder)
    assert [frame.index for frame in frames] == [0, 1, 3, 4]
    assert numbers(frames) == [0, 1, 3, 4]
    assert source.drops == {"unreadable image": 1}
    assert f"img3{suffix}" in caplog.text
    assert capfd.readouterr() == ("", "")  # the image libraries say nothing themselves


def test_images_of_other_sizes_are_an_error_that_names_both(tmp_path):
    folder = media.write_images(tmp_path / "images", ["img1.png", "img2.png"])
    cv2.imwrite(str(folder / "img3.png"), media.picture(3, 80, 60))
    with open_path(folder) as source:
        frames = source.frames()
        assert media.number(next(frames).image) == 0  # type: ignore[union-attr]
        with pytest.raises(SourceError, match=r"img1\.png is 64x48, .*img3\.png is 80x60"):
            list(frames)


def test_folders_that_are_refused(tmp_path):
    twice = media.write_images(tmp_path / "twice", ["img1.jpg", "img01.jpg"])
    with pytest.raises(SourceError, match=r"img01\.jpg and .*img1\.jpg have the same number"):
        open_path(twice)
    with pytest.raises(SourceError, match="no numbered images"):
        open_path(media.write_images(tmp_path / "unnumbered", ["apex.jpg"]))
    broken = media.write_images(tmp_path / "broken", ["img1.jpg"])
    no_image(broken / "img1.jpg")
    with pytest.raises(SourceError, match="none of its 1 images can be read"):
        open_path(broken)
    with pytest.raises(SourceError, match="frame rate above 0"):
        open_path(media.write_images(tmp_path / "still", ["img1.jpg"]), fps=0.0)


def test_other_files_in_the_folder_are_ignored(tmp_path, caplog):
    folder = media.write_images(tmp_path / "images", ["img1.jpg", "cover.jpg", "img2.jpg"])
    (folder / "notes3.txt").write_text("not an image")
    (folder / "sub4.jpg").mkdir()
    source, frames = read(folder)
    assert numbers(frames) == [0, 2]
    assert source.drops == {}
    assert "cover.jpg" in caplog.text


def test_grey_deep_and_transparent_images_give_bgr(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image = media.picture(5)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(folder / "img1.png"), grey)
    cv2.imwrite(str(folder / "img2.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "img3.png"), cv2.cvtColor(image, cv2.COLOR_BGR2BGRA))
    _, frames = read(folder)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (48, 64, 3)
    np.testing.assert_array_equal(frames[0].image, np.repeat(grey[:, :, None], 3, 2))
    np.testing.assert_array_equal(frames[1].image, frames[0].image)
    np.testing.assert_array_equal(frames[2].image, image)


def test_too_large_image_is_refused_before_it_is_decoded(tmp_path):
    folder = media.write_images(tmp_path / "images", ["img1.png", "img2.png"])
    path = folder / "img2.png"
    data = path.read_bytes()
    header = b"IHDR" + (100_000).to_bytes(4, "big") + data[20:29]
    path.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])
    with open_path(folder) as source, pytest.raises(SourceError, match=r"img2\.png has frames of 100000x48"):
        list(source.frames())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("size", [(64, 48), (641, 479), (1, 1)])
def test_size_is_read_from_the_header(suffix, size):
    ok, data = cv2.imencode(suffix, np.zeros((size[1], size[0], 3), np.uint8))
    assert ok
    assert stated_size(data.tobytes()) == size
    assert stated_size(data.tobytes()[:20]) is None


# URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://admin:secret@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://admin:s@cret@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:sec/ret@cam:554/live", "rtsp://cam:554/live"),
        ("http://cam:8080/a@b.mp4", "http://cam:8080/a@b.mp4"),
        ("http://[::1]:8080/a@b.mp4", "http://[::1]:8080/a@b.mp4"),
        ("http://cam/video?user=admin&pwd=secret", "http://cam/video?..."),
        ("http://cam/video#secret", "http://cam/video"),
    ],
)
def test_credentials_are_not_shown(url, shown):
    assert without_credentials(url) == shown


def test_failing_url_does_not_show_its_credentials(caplog):
    caplog.set_level(logging.DEBUG)
    for url in ("rtsp://admin:secret@127.0.0.1:1/live?key=secret", "gopher://admin:secret@cam/"):
        with pytest.raises(SourceError) as caught:
            open_path(url)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert "secret" not in caplog.text


def test_finite_video_behind_a_url_is_read_like_a_file_to_its_end(tmp_path):
    clip(tmp_path, ".mp4", 40, options={"movflags": "faststart"})
    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        source, frames = read(f"http://user:secret@127.0.0.1:{server.server_port}/clip.mp4", buffer_frames=2)
        server.shutdown()
        thread.join()
    assert numbers(frames) == list(range(40))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(40) / 30, atol=1e-9)
    assert not source.live
    assert source.drops == {}
    assert source.name == f"http://127.0.0.1:{server.server_port}/clip.mp4"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg", "vp9", "mpeg4", "ffv1"])
def test_decoders_are_in_the_wheel(codec):
    assert Codec(codec, "r").is_decoder
