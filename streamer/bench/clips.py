"""The clips of the spotting benchmark: described, rendered once, encoded, and kept with their truth.

A clip's name in the cache is a hash of everything that determines it: its description, the sources of the
simulation and the version of the encoder. A clip is written whole or not at all.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import av
import numpy as np
from av.error import FFmpegError

import streamer
from streamer import face_crop
from streamer.errors import OutputError, SourceError, UsageError
from streamer.fetching import FetchError, cache_folder
from streamer.messages import U8
from streamer.simulation.footage import Footage
from streamer.simulation.portraits import IMAGES, portrait
from streamer.simulation.render import Clip, Injection, Portrait, Renderer

ROOT = Path(streamer.__file__).parent


@dataclass(frozen=True)
class Encoding:
    """How a clip is compressed. quality: the crf of x264, or the quantiser (2 to 31) of Motion JPEG."""

    codec: Literal["libx264", "mjpeg"] = "libx264"
    quality: int = 20
    preset: str = "medium"


@dataclass(frozen=True)
class RenderedClip:
    """A still face brought to life. portrait: a name of `portraits.IMAGES`, or the path of a video whose
    first frame is taken, with `sha256`, the video's own."""

    portrait: str
    clip: Clip
    encoding: Encoding
    sha256: str = ""


@dataclass(frozen=True)
class FootageClip:
    """Real footage with injected expressions. sha256: of the video at `path`."""

    path: str
    sha256: str
    injections: tuple[Injection, ...]
    seed: int
    encoding: Encoding


Description: TypeAlias = RenderedClip | FootageClip


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): check the path") from error
    return digest.hexdigest()


def code_digest(sources: Iterable[str]) -> str:
    """Hash of what Python sources do: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
        digest.update(f"{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


_PICTURES = ("simulation/facs.py", "simulation/render.py", "simulation/portraits.py")
_FOOTAGE = ("simulation/footage.py", "simulation/mesh.py", "tracking.py")
_HELD_OUT = ("simulation/held_out.py",)
# Taken when this is imported, so that a clip is filed under the code that made it.
_CODE = {
    name: code_digest([(ROOT / name).read_text(encoding="utf-8")])
    for name in (*_PICTURES, *_FOOTAGE, *_HELD_OUT)
}
_FACE_FRAME = code_digest(
    inspect.getsource(function)
    for function in (face_crop.eye_line_pose, face_crop.in_face_frame, face_crop.move, face_crop.inverse)
)


def _simulation_code(description: Description) -> list[str]:
    """Hashes of the files that determine what a clip looks like, besides its description."""
    names = _PICTURES
    if isinstance(description, FootageClip):
        injections = description.injections
        names += _FOOTAGE
    else:
        injections = description.clip.injections
    if any((i.table, i.course) != ("tuning", "cosine") for i in injections):
        names += _HELD_OUT
    return [_FACE_FRAME, *(_CODE[name] for name in names)]


def clip_key(description: Description) -> str:
    """Name of a clip in the cache: a hash of everything that determines its bytes."""
    what = asdict(description)
    what.pop("path", None)  # a video is its contents, wherever it lies
    if description.sha256:
        what.pop("portrait", None)
    what["kind"] = type(description).__name__
    what["code"] = _simulation_code(description)
    what["versions"] = [version("av"), version("opencv-contrib-python")]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


@lru_cache(maxsize=8)
def _portrait(name: str, landmarker: Path | None) -> Portrait:
    return portrait(name if name in IMAGES else Path(name), landmarker)


@lru_cache(maxsize=2)
def _footage(path: Path, landmarker: Path | None) -> Footage:
    return Footage.open(path, landmarker)


def make_clip(description: Description, cache: Path, landmarker: Path | None = None) -> Path:
    """The clip in `cache`, rendered if it is not there; its truth lies beside it with the ending .json.

    The truth: {"expressions", "blinks" (onsets, s), "blink_length_s", "duration_s", "frames", "width",
    "height", "activity" (intervals in s by name)}.

    Raises:
        OutputError: the cache cannot be written. SourceError: footage or portrait cannot be used.
    """
    out = cache / f"{clip_key(description)}.mp4"
    if out.with_suffix(".json").exists() and out.exists():
        return out
    if isinstance(description, RenderedClip):
        renderer = Renderer(_portrait(description.portrait, landmarker), description.clip)
        frames = renderer.frames()
        clip = renderer.clip
        talk = [clip.talk_s] if clip.talking else []
        truth: dict[str, Any] = {
            "expressions": renderer.truth(),
            "blinks": list(clip.blinks_s),
            "blink_length_s": clip.blink_length_s,
            "activity": {"talking": talk},
        }
        rate = clip.fps
    else:
        footage = _footage(Path(description.path), landmarker)
        frames = footage.inject(description.injections, seed=description.seed)
        truth = {
            "expressions": footage.truth(description.injections),
            "blinks": [],
            "blink_length_s": 0.2,
            "activity": footage.activity(),
        }
        rate = footage.fps
    with _part(out) as part:
        truth |= encode(frames, rate, description.encoding, part)
    write_json(out.with_suffix(".json"), truth)
    return out


def encode(
    frames: Iterable[tuple[float, U8]], fps: float, encoding: Encoding, out: Path
) -> dict[str, float | int]:
    """Write (time_s, BGR image) pairs as a video with exact time stamps; its duration, frames and size."""
    count, first_s, last_s, height, width = 0, 0.0, 0.0, 0, 0
    with av.open(str(out), "w", format="mp4") as container:
        stream = container.add_stream(encoding.codec, rate=Fraction(fps).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)
        stream.time_base = Fraction(1, 90000)
        if encoding.codec == "libx264":
            stream.pix_fmt = "yuv420p"
            # One thread: the same bytes on every machine, and other workers use the other cores.
            stream.options = {"crf": str(encoding.quality), "preset": encoding.preset, "threads": "1"}
        else:
            stream.pix_fmt = "yuvj420p"
            stream.options = {"qmin": str(encoding.quality), "qmax": str(encoding.quality)}
        for time_s, image in frames:
            if count == 0:
                height, width = image.shape[:2]
                stream.width, stream.height = width, height
                first_s = time_s
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            frame.pts, frame.time_base = round((time_s - first_s) * 90000), stream.time_base
            container.mux(stream.encode(frame))
            count, last_s = count + 1, time_s
        container.mux(stream.encode(None))
    return {"duration_s": last_s - first_s, "frames": count, "width": width, "height": height}


def video_duration_s(path: Path) -> float:
    """How long a video says it is, seconds.

    Raises:
        SourceError: it is no video, or does not say.
    """
    try:
        with av.open(str(path)) as container:
            if container.duration and container.streams.video:
                return container.duration / av.time_base
    except (FFmpegError, OSError) as error:
        raise SourceError(f"{path} is no video that can be read ({error.strerror}): leave it out") from error
    raise SourceError(f"{path} does not say how long it is: convert it to mp4")


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and is removed when it does not."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}): free space, or name another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def clips_folder(named: Path | None) -> Path:
    """Where clips are kept: the folder that the user named, or one in the user's cache; half-written files of
    a run that ended are removed from it.

    Raises:
        UsageError: none was named, and there is no cache.
    """
    try:
        cache = named or cache_folder() / "spotting"
    except FetchError as error:
        raise UsageError(f"no folder for the clips ({error}): name one with --cache") from error
    clear_parts(cache)
    return cache


def clear_parts(cache: Path) -> None:
    """Remove what writers that were killed left half written, an hour ago or longer."""
    for part in cache.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with _part(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON at `path`, None if it is missing or no JSON (then it is made anew)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
