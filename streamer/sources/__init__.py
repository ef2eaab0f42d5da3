"""Where frames come from: cameras, video files, folders of images, streams.

    with open_source(config) as source:
        for message in source.frames():  # Frame, or Reconnected after a hole
            ...

A new kind of source fulfils `Source`; see `base.py`. A live one need only provide a `Device` and an
`Opener` for `LiveSource`; see `live.py`.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from streamer.config import Config
from streamer.errors import SourceError, UsageError
from streamer.sources.base import FileSource, Message, Source, without_credentials
from streamer.sources.camera import CameraInfo, CameraOpener, list_cameras
from streamer.sources.images import ImageFolder
from streamer.sources.live import LiveSource
from streamer.sources.stream import SCHEMES, StreamOpener, is_finite
from streamer.sources.video import VideoFile

__all__ = [
    "CameraInfo",
    "FileSource",
    "ImageFolder",
    "LiveSource",
    "Message",
    "Source",
    "VideoFile",
    "list_cameras",
    "open_source",
]


def open_source(config: Config) -> Source:
    """Open what `config.camera` or `config.source` names.

    Raises:
        UsageError: neither or both are given.
        SourceError: it does not exist, cannot be opened, or gives no frame.
    """
    if (config.camera is None) == (config.source is None):
        raise UsageError("give either --camera N or --source FILE|FOLDER|URL|sample")
    if config.camera is not None:
        return LiveSource(CameraOpener(config.camera, config.capture), config.capture)
    assert config.source is not None
    buffer_frames = config.capture.buffer_frames
    if config.source == "sample":
        return VideoFile(_sample(), "sample", buffer_frames)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", config.source):
        return _open_url(config.source, config)
    path = Path(config.source).expanduser()
    if path.is_dir():
        return ImageFolder(path, config.capture.fps, buffer_frames)
    if path.is_file():
        return VideoFile(path, str(path), buffer_frames)
    if path.exists():
        raise SourceError(f"{path} is neither a file nor a folder: for a camera use --camera N")
    raise SourceError(f"{path} does not exist: check the path given to --source")


def _open_url(url: str, config: Config) -> Source:
    scheme = url.partition("://")[0].lower()
    name = without_credentials(url)
    if scheme not in SCHEMES:
        raise SourceError(f"{name}: {scheme}:// is not supported; use one of {', '.join(SCHEMES)}")
    if is_finite(url, name):
        return VideoFile(url, name, config.capture.buffer_frames)
    return LiveSource(StreamOpener(url, config.capture), config.capture)


def _sample() -> Path:
    """The clip that comes with the package."""
    path = Path(str(resources.files("streamer") / "data" / "sample.mp4"))
    if not path.is_file():
        raise SourceError(f"the sample clip {path} is missing: install the package again")
    return path
