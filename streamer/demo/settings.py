"""Settings and limits of the demo's server: one frozen dataclass, filled from flags."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from streamer.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What visitors may take, each and together. Everything a visitor can grow is bounded here."""

    visitors: int = 4
    """Live sessions at once; the next visitor is told to come back later."""
    viewers: int = 8
    """Viewers of the server's own camera at once."""
    frame_bytes: int = 1_000_000
    """Largest JPEG that is taken from a browser."""
    frame_pixels: int = 1920 * 1080
    """Largest picture of a live session."""
    live_fps: float = 66.0
    """Frames a second that are taken from one browser; more are dropped and counted."""
    buffer_frames: int = 24
    """Frames of one session that wait for the recogniser; beyond that the oldest is dropped and counted. A
    hole costs the spotter more than a late overlay costs the eye, and the recogniser catches up quickly."""
    idle_s: float = 30.0
    """A session that sends no frame for so long ends, unless it is paused."""
    paused_s: float = 300.0
    """A paused session ends after so long."""
    clip_bytes: int = 200_000_000
    """Largest clip."""
    clip_pixels: int = 2560 * 1440
    """Largest picture of a clip."""
    clip_s: float = 300.0
    """Longest clip, seconds of the clip's own time."""
    clip_frames: int = 20_000
    """Most frames of a clip."""
    clip_work_s: float = 900.0
    """Longest time that a clip is worked on."""
    upload_s: float = 15.0
    """An upload may take so long, and longer the more has come: see `upload_bytes_s`."""
    upload_bytes_s: float = 100_000.0
    """Slowest upload, bytes a second: a slower one is ended, as it holds the place of a clip."""
    sockets: int = 64
    """WebSockets at once, those who are told that there is no place among them; more are turned away."""
    clips: int = 6
    """Clips held at once, worked on or finished; a visitor's next clip replaces the last."""
    clips_running: int = 1
    """Clips worked on at once; the others wait their turn."""
    clip_kept_s: float = 600.0
    """A clip that nobody asks for any more is deleted after so long."""


@dataclass(frozen=True)
class DemoConfig:
    """The browser demo: recognises what a visitor's camera or a clip shows, on this machine."""

    host: str = "127.0.0.1"
    """Address to serve on; 0.0.0.0 for every network, which then needs --tls-cert and --tls-key."""
    names: tuple[str, ...] = ()
    """Names under which a proxy on this machine serves the page: on the machine's own address, requests under
    other names than its own are turned away, since any site can have its name lead there."""
    port: Annotated[int, tyro.conf.arg(metavar="1-65535")] = 7860
    """Port to serve on."""
    tls_cert: Path | None = None
    """Certificate (PEM): browsers give a camera only to pages of this machine or over https."""
    tls_key: Path | None = None
    """Private key (PEM) of the certificate."""
    camera: int | None = None
    """Camera of this machine that visitors may watch, recognised once for all."""
    source: str | None = None
    """Instead of a camera of this machine: a file, folder or URL, or the word 'sample'."""
    engine: str = "gtsgn-simulated"
    """Engine name (a folder of engines/) or a path to one."""
    landmarker: Path | None = None
    """A face_landmarker.task file to use instead of the cached one."""
    limits: Limits = field(default_factory=Limits)


OWN_MACHINE = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other machine is reached by."""


def allowed_names(config: DemoConfig) -> tuple[str, ...] | None:
    """Names under which requests are served; None for every name."""
    return (*OWN_MACHINE, *config.names) if config.host in OWN_MACHINE else None


def check(config: DemoConfig) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        UsageError: names the flag and what to do.
    """
    if not 1 <= config.port <= 65535:
        raise UsageError(f"--port is {config.port}: it has to be 1 to 65535")
    if (config.tls_cert is None) != (config.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together: give both, or neither")
    for flag, path in (("--tls-cert", config.tls_cert), ("--tls-key", config.tls_key)):
        if path is not None and not path.is_file():
            raise UsageError(f"{flag}: {path} is no file; give the path of a PEM file")
    if config.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                config.tls_cert, config.tls_key, password=lambda: b""
            )
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(
                f"--tls-cert {config.tls_cert} and --tls-key {config.tls_key} cannot be used "
                f"({error.strerror or error}): give a certificate and its key, both PEM, without a password"
            ) from error
    if config.camera is not None and config.source is not None:
        raise UsageError("a camera and a source are given: choose one, --camera or --source")
    for name, value in vars(config.limits).items():
        if not value > 0:
            raise UsageError(f"--limits.{name.replace('_', '-')} is {value}: it has to be more than 0")
