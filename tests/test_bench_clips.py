"""Clips of the spotting benchmark: described, drawn, encoded, kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from streamer.bench import clips, plan
from streamer.bench.clips import Encoding, FootageClip, RenderedClip, clip_key, code_digest, encode, make_clip
from streamer.bench.plan import AXES, Scope, rendered
from streamer.config import Config
from streamer.errors import OutputError, SourceError, UsageError
from streamer.messages import Frame
from streamer.simulation.expressions import HELD_OUT_STYLE, ExpressionStyle, draw_blinks, draw_sequence
from streamer.simulation.render import Clip, Injection
from streamer.sources import open_source

SMILE = Injection({"12": 1.0}, 0.1, 0.2, 0.3, 0.02, "I")
DESCRIPTION = RenderedClip("astronaut", Clip(duration_s=0.4, injections=(SMILE,)), Encoding())


class _Standin:
    """In place of `Renderer`: grey pictures."""

    made = 0

    def __init__(self, portrait, clip):
        self.clip = clip

    def frames(self):
        type(self).made += 1
        for k in range(6):
            yield k / 30, np.full((48, 64, 3), 40 * k, np.uint8)

    def truth(self):
        return [{"label": "I"}]


@pytest.fixture
def standin(monkeypatch):
    monkeypatch.setattr(clips, "Renderer", _Standin)
    monkeypatch.setattr(clips, "_portrait", lambda name, landmarker: None)
    monkeypatch.setattr(_Standin, "made", 0)
    return _Standin


def test_a_clip_is_rendered_once_with_its_truth(standin, tmp_path):
    path = make_clip(DESCRIPTION, tmp_path)
    assert make_clip(DESCRIPTION, tmp_path) == path
    assert standin.made == 1
    truth = json.loads(path.with_suffix(".json").read_text())
    assert truth["expressions"] == [{"label": "I"}]
    assert (truth["frames"], truth["width"], truth["height"]) == (6, 64, 48)
    assert truth["duration_s"] == pytest.approx(5 / 30)
    path.unlink()
    assert make_clip(DESCRIPTION, tmp_path) == path
    assert standin.made == 2


def test_an_interrupted_clip_leaves_nothing(standin, tmp_path, monkeypatch):
    def broken(self):
        yield 0.0, np.zeros((48, 64, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Standin, "frames", broken)
    with pytest.raises(KeyboardInterrupt):
        make_clip(DESCRIPTION, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_cleared(tmp_path):
    old, new, clip = tmp_path / ".a.1.part", tmp_path / ".b.2.part", tmp_path / "c.mp4"
    for path in (old, new, clip):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(clip, (0, 0))
    clips.clear_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, clip]
    clips.clear_parts(tmp_path / "none")


def test_a_cache_that_cannot_be_written_is_one_line(standin, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another folder"):
        make_clip(DESCRIPTION, tmp_path / "file" / "cache")


def test_the_key_holds_what_determines_a_clip():
    def key(**changes):
        return clip_key(replace(DESCRIPTION, clip=replace(DESCRIPTION.clip, **changes)))

    keys = {
        clip_key(DESCRIPTION),
        key(noise=3.0),
        key(seed=1),
        key(injections=(replace(SMILE, peak=0.01),)),
        key(injections=(replace(SMILE, table="held-out"),)),
        clip_key(replace(DESCRIPTION, portrait="hopper")),
        clip_key(replace(DESCRIPTION, encoding=Encoding(quality=21))),
    }
    assert len(keys) == 7
    footage = FootageClip("here/a.mp4", "12ab", (SMILE,), 0, Encoding())
    assert clip_key(footage) == clip_key(replace(footage, path="there/b.mp4"))
    assert clip_key(footage) != clip_key(replace(footage, sha256="12ac"))
    assert clip_key(footage) != clip_key(replace(footage, seed=1))


def test_code_counts_and_words_do_not():
    plain = "def f(x):\n    return x + 1\n"
    assert code_digest([plain]) == code_digest(['def f(x):\n    """Adds one."""  # so\n    return (x + 1)\n'])
    assert code_digest([plain]) != code_digest(["def f(x):\n    return x + 2\n"])
    assert code_digest([plain, ""]) != code_digest([plain, plain])


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
@pytest.mark.parametrize("fps", [25.0, 200.0])
def test_encoded_times_and_pictures_are_those_given(tmp_path, codec, fps):
    rng = np.random.default_rng(0)
    still = cv2.GaussianBlur(rng.integers(0, 255, (96, 128, 3)).astype(np.float32), (0, 0), 4.0)
    still = np.clip((still - still.mean()) * 5 + 128, 0, 255).astype(np.uint8)
    times = [k / fps for k in range(20)]
    encoding = Encoding(codec, 2)
    facts = encode(
        ((t, np.roll(still, k, 1)) for k, t in enumerate(times)), fps, encoding, tmp_path / "a.mp4"
    )
    assert facts == {"duration_s": pytest.approx(19 / fps), "frames": 20, "width": 128, "height": 96}
    with open_source(Config(source=str(tmp_path / "a.mp4"))) as source:
        frames = [frame for frame in source.frames() if isinstance(frame, Frame)]
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-4)
    luma = [cv2.cvtColor(np.array(frame.image), cv2.COLOR_BGR2GRAY) for frame in frames]
    expected = cv2.cvtColor(np.roll(still, 7, 1), cv2.COLOR_BGR2GRAY)
    assert np.abs(luma[7].astype(int) - expected).mean() < 3


def test_coarser_motion_jpeg_is_smaller(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    for quality in (2, 10):
        encode([(0.0, image), (0.1, image)], 10, Encoding("mjpeg", quality), tmp_path / f"{quality}.mp4")
    assert (tmp_path / "10.mp4").stat().st_size < 0.7 * (tmp_path / "2.mp4").stat().st_size


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(SourceError, match="leave it out"):
        clips.video_duration_s(tmp_path / "a.mp4")
    with pytest.raises(SourceError, match="check the path"):
        clips.file_digest(tmp_path / "b.mp4")


# --- What is drawn -------------------------------------------------------------------------------------


def test_a_sequence_keeps_its_distances_and_its_lengths():
    sequence = draw_sequence(np.random.default_rng(1), 300.0, 0.01, ExpressionStyle())
    onsets = np.array([i.onset_s for i in sequence])
    assert ((np.diff(onsets) > 2.49) & (np.diff(onsets) < 4.01)).all()
    assert len({i.label for i in sequence}) == 5
    counts = [sum(i.label == label for i in sequence) for label in ("I", "II", "III", "IV", "V")]
    assert max(counts) - min(counts) <= 1
    for i in sequence:
        assert 0.2 <= round(i.offset_s - i.onset_s, 5) <= 0.5
        assert i.onset_s < i.apex_s < i.offset_s <= 299
        assert i.peak == 0.01 and i.table == "tuning"
    assert draw_sequence(np.random.default_rng(1), 300.0, 0.01) == sequence
    assert draw_sequence(np.random.default_rng(2), 300.0, 0.01) != sequence


def test_held_out_expressions_are_others():
    sequence = draw_sequence(np.random.default_rng(1), 100.0, 0.01, HELD_OUT_STYLE)
    assert {i.table for i in sequence} == {i.course for i in sequence} == {"held-out"}
    assert any(abs(i.asymmetry) > 0.1 for i in sequence)


def test_blinks_lie_apart():
    blinks = draw_blinks(np.random.default_rng(0), 100.0)
    assert len(blinks) > 15 and np.diff(blinks).min() >= 2


def test_points_of_an_axis_differ_in_their_condition_alone():
    one, two = (
        rendered(point.conditions, "astronaut", ExpressionStyle(), 20.0, (0, 1))
        for point in AXES["noise"].points[:2]
    )
    assert one.clip.noise != two.clip.noise
    assert replace(one.clip, noise=two.clip.noise) == two.clip
    small, large = (
        rendered(point.conditions, "astronaut", ExpressionStyle(), 20.0, (0, 1))
        for point in AXES["displacement"].points[:2]
    )
    assert [replace(i, peak=0.0) for i in small.clip.injections] == [
        replace(i, peak=0.0) for i in large.clip.injections
    ]


def test_base_conditions_are_those_stated():
    for seed in range(20):
        clip = rendered(plan.BASE, "astronaut", ExpressionStyle(), 30.0, (seed,)).clip
        assert (clip.width, clip.height, clip.fps, clip.noise) == (640, 480, 30.0, 2.0)
        assert 80 <= clip.iod_px <= 150
        assert len(clip.injections) >= 6 and len(clip.blinks_s) >= 4


def test_a_large_face_gets_a_large_picture():
    clip = rendered(replace(plan.BASE, iod_px=220.0), "astronaut", ExpressionStyle(), 20.0, (0,)).clip
    assert clip.iod_px == 220 and clip.height == pytest.approx(480 * 220 / 150, abs=2)


def test_a_plan_covers_what_is_asked():
    jobs = plan.plan(Scope(scale="full", axes=("displacement", "slow"), sets=("tuning",)))
    assert {job.axis for job in jobs} == {"displacement", "slow"}
    per_point = [job.description for job in jobs if (job.axis, job.point) == ("displacement", "1")]
    stills = [description for description in per_point if isinstance(description, RenderedClip)]
    assert {still.portrait for still in stills} == {"astronaut", "hopper"}
    assert sum(len(still.clip.injections) for still in stills) >= 16
    assert len({clip_key(job.description) for job in jobs}) == len(jobs)
    quick = plan.plan(Scope(axes=("displacement",), sets=("tuning",)))
    assert [job.point for job in quick[::2]] == ["0.5", "1", "2"]
    # What a quick run has rendered, a full run takes over.
    assert {clip_key(job.description) for job in quick} <= {clip_key(job.description) for job in jobs}


def test_every_axis_has_its_quick_points():
    for name, axis in AXES.items():
        assert axis.quick and set(axis.quick) <= {point.name for point in axis.points}, name
        assert len({point.name for point in axis.points}) == len(axis.points), name


def test_an_unknown_axis_is_named():
    with pytest.raises(UsageError, match="colour is unknown; known: displacement"):
        plan.plan(Scope(axes=("colour",)))


def test_footage_of_a_set_gets_expressions(tmp_path):
    path = tmp_path / "a.mp4"
    frames = [(k / 10, np.zeros((48, 64, 3), np.uint8)) for k in range(35)]
    encode(frames, 10, Encoding(), path)
    jobs = plan.plan(Scope(axes=("real", "real-uninjected"), sets=("own",), footage={"own": [path]}))
    assert [(job.axis, job.kind, job.set_name) for job in jobs] == [
        *[("real", "micro", "own")] * 4,
        ("real-uninjected", "uninjected", "own"),
    ]
    clips_of = [job.description for job in jobs if isinstance(job.description, FootageClip)]
    for description in clips_of[:4]:
        (injection,) = description.injections
        assert 0.9 <= injection.onset_s < injection.offset_s < 3.5
        assert injection.peak == 0.02
    assert clips_of[0].injections != clips_of[1].injections
    assert clips_of[4].injections == ()
