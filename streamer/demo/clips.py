"""Clips that visitors give: taken within limits, worked on in a process each, kept for a while, deleted.

A clip's name is a long random word that only its visitor is told. Everything of a clip lies in one folder, in
memory where the system offers a file system there (Linux), and is gone with the clip.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from streamer.demo.clip_worker import Job
from streamer.demo.live import Models
from streamer.demo.settings import Limits
from streamer.errors import StreamerError

log = logging.getLogger(__name__)

FILES = {
    "annotated.mp4": "video/mp4",
    "events.jsonl": "application/x-ndjson",
    "events.csv": "text/csv; charset=utf-8",
    "report.html": "text/html; charset=utf-8",
    "result.json": "application/json",
}
"""What may be fetched of a finished clip, and of which type it is."""

MEMORY = Path("/dev/shm")
PREFIX = "gtsgn-demo-"
TICK_S = 5.0


class ClipRefused(StreamerError):
    """A clip is not taken. The message says why and what to do. status: of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Clip:
    """One clip and what has become of it. asked_s: when the visitor last asked for it, monotonic."""

    folder: Path
    name: str
    state: Literal["uploading", "waiting", "working", "done", "failed"] = "uploading"
    frames: int = 0
    of: int | None = None
    error: str = ""
    asked_s: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None

    def report(self, before: int) -> dict[str, Any]:
        """For the visitor. before: clips whose turn is earlier."""
        return {
            "state": self.state,
            "frames": self.frames,
            "of": self.of,
            "error": self.error,
            "before": before,
        }


class Clips:
    """All clips of a server. Use it inside one event loop; `close` at the end."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models, self._limits = models, limits
        self._clips: dict[str, Clip] = {}
        self._turns = asyncio.Semaphore(limits.clips_running)
        place = _place(limits)
        _remove_left_behind(place)
        self._root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place))
        self._sweeper = asyncio.create_task(self._sweep())

    def __len__(self) -> int:
        return len(self._clips)

    async def add(self, name: str, sensitivity: float, body: AsyncIterator[bytes] | None) -> str:
        """Take a clip and put it in line; returns its key.

        name: what to call it. body: its bytes; None takes the sample clip.

        Raises:
            ClipRefused: it is empty or too large, or there is no room.
        """
        if len(self._clips) >= self._limits.clips:
            raise ClipRefused(
                f"The server holds {len(self._clips)} clips, its limit: try again in a few minutes.", 503
            )
        key = secrets.token_urlsafe(24)
        clip = self._clips[key] = Clip(Path(tempfile.mkdtemp(dir=self._root)), name)
        try:
            source = "sample" if body is None else await self._take(clip, body)
        except BaseException:
            await self.forget(key)
            raise
        job = Job(
            clip=source,
            name=name,
            folder=str(clip.folder),
            landmarker=str(self._models.landmarker),
            engine=self._models.engine,
            sensitivity=sensitivity,
            most_pixels=self._limits.clip_pixels,
            most_s=self._limits.clip_s,
            most_frames=self._limits.clip_frames,
        )
        clip.state = "waiting"
        clip.task = asyncio.create_task(self._run(clip, job))
        return key

    def report(self, key: str) -> dict[str, Any]:
        """How far a clip is.

        Raises:
            ClipRefused: there is no such clip (any more).
        """
        clip = self._get(key)
        before = 0
        for other in self._clips.values():
            if other is clip:
                break
            before += other.state in ("waiting", "working")
        return clip.report(before if clip.state == "waiting" else 0)

    def file(self, key: str, name: str) -> Path:
        """A file of a finished clip.

        Raises:
            ClipRefused: there is no such clip or file.
        """
        clip = self._get(key)
        if name not in FILES or clip.state != "done":
            raise ClipRefused("There is no such file.", 404)
        return clip.folder / name

    async def forget(self, key: str) -> None:
        """Stop working on a clip and delete all of it. Unknown keys are nothing to forget."""
        clip = self._clips.pop(key, None)
        if clip is None:
            return
        if clip.task is not None:
            clip.task.cancel()
            await asyncio.gather(clip.task, return_exceptions=True)
        shutil.rmtree(clip.folder, ignore_errors=True)

    async def close(self) -> None:
        """Forget everything."""
        self._sweeper.cancel()
        for key in list(self._clips):
            await self.forget(key)
        shutil.rmtree(self._root, ignore_errors=True)

    def _get(self, key: str) -> Clip:
        clip = self._clips.get(key)
        if clip is None:
            raise ClipRefused("The clip is no longer here: give it again.", 404)
        clip.asked_s = time.monotonic()
        return clip

    async def _take(self, clip: Clip, body: AsyncIterator[bytes]) -> str:
        """Write the bytes of a clip into its folder; returns the path."""
        path = clip.folder / "clip"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            try:
                size = await self._write(clip, body, file)
            except asyncio.TimeoutError:  # before OSError, which it is from Python 3.11 on
                raise ClipRefused("The upload is too slow: try a smaller clip.", 408) from None
            except OSError as error:
                raise ClipRefused(f"The server cannot keep the clip: {error.strerror}.", 507) from error
        if size == 0:
            raise ClipRefused("The clip is empty (0 bytes): choose another file.", 400)
        return str(path)

    async def _write(self, clip: Clip, body: AsyncIterator[bytes], file: BinaryIO) -> int:
        """Write what comes, up to the limit; returns the number of bytes.

        Raises:
            asyncio.TimeoutError: it comes too slowly.
        """
        size, begun_s = 0, time.monotonic()
        while True:
            due_s = begun_s + self._limits.upload_s + size / self._limits.upload_bytes_s
            part = await asyncio.wait_for(anext(body, None), due_s - time.monotonic())
            if part is None:
                return size
            size += len(part)
            if size > self._limits.clip_bytes:
                raise ClipRefused(
                    f"The clip is larger than {self._limits.clip_bytes / 1e6:.0f} MB: cut it or compress it "
                    "first.",
                    413,
                )
            clip.asked_s = time.monotonic()
            file.write(part)

    async def _run(self, clip: Clip, job: Job) -> None:
        try:
            await self._work(clip, job)
        except Exception:  # whatever it was: a clip that stays "working" would keep its place for ever
            log.exception("a clip could not be worked on")
            clip.error = "The clip could not be worked on: the server has a problem. Try again later."
            clip.state = "failed"

    async def _work(self, clip: Clip, job: Job) -> None:
        async with self._turns:
            clip.state = "working"
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "streamer.demo.clip_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await asyncio.wait_for(_follow(process, job, clip), self._limits.clip_work_s)
            except asyncio.TimeoutError:
                clip.error = (
                    f"The clip took longer than {self._limits.clip_work_s:g} s to work on: cut it or scale "
                    "it down first."
                )
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                (clip.folder / "clip").unlink(missing_ok=True)
            done = process.returncode == 0 and (clip.folder / "result.json").is_file() and not clip.error
            if not done and not clip.error:
                log.warning("a clip ended its process with code %s", process.returncode)
                clip.error = "The clip cannot be worked on: it is damaged, or needs too much memory."
            clip.state = "done" if done else "failed"

    async def _sweep(self) -> None:
        """Delete what nobody has asked for in a while."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for key, clip in list(self._clips.items()):
                if now - clip.asked_s > self._limits.clip_kept_s:
                    await self.forget(key)


async def _follow(process: asyncio.subprocess.Process, job: Job, clip: Clip) -> None:
    """Give the worker its job and take note of what it says, until it ends."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(job.line())
    await process.stdin.drain()  # and stays open: the worker ends when it is closed
    async for line in process.stdout:
        try:
            said = json.loads(line)
        except ValueError:  # what a library prints is not for the visitor
            continue
        clip.frames, clip.of = said.get("frames", clip.frames), said.get("of", clip.of)
        if "error" in said:
            message = said["error"]
            clip.error = message[:1].upper() + message[1:] + "."
    await process.wait()


def _remove_left_behind(place: Path) -> None:
    """Delete the clips of servers that were killed before they could."""
    for folder in place.glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        try:
            if number.isdigit() and folder.stat().st_uid == os.getuid():
                os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it went meanwhile, or its server is somebody else's
            continue


def _place(limits: Limits) -> Path:
    """Where clips lie: in memory, if there is room for two of the largest; else in the system's folder."""
    try:
        if shutil.disk_usage(MEMORY).free > 2 * limits.clip_bytes:
            return MEMORY
    except OSError:  # not Linux
        pass
    place = Path(tempfile.gettempdir())
    log.info("clips are kept under %s while they are worked on and watched, then deleted", place)
    return place
