"""What every sink is, how sinks stop a stream, and files that stay whole when writing fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from streamer.errors import OutputError, UsageError
from streamer.messages import Event, Face, Frame, Motion


class Sink(Protocol):
    """Where events and pictures go. All calls come from one thread, in the order of the stream.

    Any call may raise OutputError (the output failed; what was written stays valid) or StreamStop; each
    is raised once, and the sink takes further calls without doing anything.
    """

    def on_event(self, event: Event) -> None:
        """Take the next event."""
        ...

    def on_frame(self, frame: Frame, face: Face | None, motion: Motion | None) -> None:
        """Take the next frame, what is known of the face in it, and how the nodes moved."""
        ...

    def close(self) -> None:
        """Finish the output. May be called again, and after any failure."""
        ...


class StreamStop(Exception):
    """A sink asks for the end of the stream, and nothing is wrong: a closed window, `| head`.

    The message is the reason, fit for `StreamEnded.reason`.
    """


def printable(text: str) -> str:
    """The text on one line, with nothing that steers a terminal: control and format characters become '?'."""
    return "".join(c if c.isprintable() else "?" for c in text)


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """Check the files to be written before anything is opened or emptied.

    Args:
        outputs: flag -> file to be written.
        inputs: flag -> file or folder that is read; those that do not exist are passed over.

    Raises:
        UsageError: a path is a folder, its folder is missing, or it is also another output or an input.
    """
    seen: dict[str, Path] = {}
    for flag, path in outputs.items():
        shown = printable(str(path))
        try:
            if path.is_dir():
                raise UsageError(f"{flag}: {shown} is a folder; give the name of a file in it")
            if not path.absolute().parent.is_dir():
                parent = printable(str(path.absolute().parent))
                raise UsageError(
                    f"{flag}: the folder {parent} does not exist; create it or choose another path"
                )
            for other, input_path in inputs.items():
                if _same_file(path, input_path):
                    raise UsageError(
                        f"{flag} would overwrite {shown}, which {other} reads; choose another path"
                    )
            for other, output_path in seen.items():
                if _same_file(path, output_path):
                    raise UsageError(f"{other} and {flag} both name {shown}; give each its own file")
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise UsageError(
                f"{flag}: {shown} cannot be used: {_reason(error)}; choose another path"
            ) from error
        seen[flag] = path


def _same_file(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return a.samefile(b) and stat.S_ISREG(a.stat().st_mode)  # two outputs may share /dev/null
    return a.resolve() == b.resolve()


class OutputFile:
    """A file whose content is valid whenever a write fails: what a failed write left is cut off again.

    A new file is readable by its owner only (events and pictures are facts about a person). A file that
    exists keeps its mode, and its content until the first write. A file that this object created is
    removed by `close` when nothing is in it. Writes are unbuffered: what `write` took is in the file.
    The first failure is raised, once; from then on writes do nothing, so that the other outputs can be
    finished without hearing of it again.

    path: the file. flag: the command line's name for it. readable: whether `read_at` is needed.

    Raises:
        UsageError: the file cannot be opened for writing.
    """

    _given_up = False

    def __init__(self, path: Path, flag: str, readable: bool = False) -> None:
        self.flag = flag
        self._path: Path | None = path
        access = (os.O_RDWR if readable else os.O_WRONLY) | _BINARY
        try:
            try:
                fd = os.open(path, access | os.O_CREAT | os.O_EXCL, 0o600)
                self._created = True
            except FileExistsError:
                fd = os.open(path, access | os.O_CREAT, 0o600)
                self._created = False
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise UsageError(
                f"{flag}: cannot write {self.name}: {_reason(error)}; choose another path"
            ) from error
        self._untouched = True
        self._fd: int | None = fd
        self.regular = stat.S_ISREG(os.fstat(fd).st_mode)

    @classmethod
    def stdout(cls, flag: str) -> OutputFile:
        """Standard output, past Python's own buffer; never emptied (`>>` appends), never removed.

        Raises:
            UsageError: the process was started without a standard output.
        """
        file = cls.__new__(cls)
        file.flag = flag
        file._path = None
        try:
            file._fd = os.dup(1)
        except OSError as error:
            raise UsageError(f"{flag}: there is no standard output; name a file") from error
        file._created = file._untouched = False
        file.regular = stat.S_ISREG(os.fstat(file._fd).st_mode)
        return file

    @property
    def name(self) -> str:
        """The path, fit for a message."""
        return printable(str(self._path)) if self._path else "standard output"

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data` at the current position, or nothing of it.

        Raises:
            StreamStop: the file is a pipe and its reader is gone.
            OutputError: anything else went wrong; names the path and the remedy.
        """
        fd = self._open_fd()
        if self._given_up:
            return len(data)
        try:
            if self._untouched and self.regular:
                os.ftruncate(fd, 0)
            self._untouched = False
            size = self.size()
            try:
                rest = memoryview(data).cast("B")
                while rest:
                    rest = rest[os.write(fd, rest) :]
            except OSError:
                self.cut(size)
                raise
            # Who redirects standard output into a file without a name reads it by other means.
            if self._path is not None and self.regular and os.fstat(fd).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was deleted while it was being written")
        except BrokenPipeError as error:
            self._given_up = True
            raise StreamStop(f"the reader of {self.name} closed the pipe") from error
        except OSError as error:
            self._given_up = True
            raise self._failure(error) from error
        return len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on; the position stays."""
        position = self.tell()
        self.seek(offset)
        data = os.read(self._open_fd(), count)
        self.seek(position)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as `io.RawIOBase.seek`."""
        return os.lseek(self._open_fd(), offset, whence)

    def tell(self) -> int:
        """The position in bytes."""
        return os.lseek(self._open_fd(), 0, os.SEEK_CUR)

    def size(self) -> int:
        """Size of a regular file in bytes, else 0."""
        return os.fstat(self._open_fd()).st_size if self.regular else 0

    def cut(self, size: int, start: bytes = b"") -> None:
        """Shorten a regular file to `size` bytes, give it back its first bytes, and go to its end."""
        if not self.regular:
            return
        fd = self._open_fd()
        if self.size() > size:
            os.ftruncate(fd, size)
        if start:
            self.seek(0)
            os.write(fd, start[:size])
        self.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; remove it if this object created it and nothing was written.

        Raises:
            OutputError: the system reports only now that it could not keep what was written.
        """
        if self._fd is None:
            return
        useless = self._created and self.size() == 0
        fd, self._fd = self._fd, None
        try:
            os.close(fd)
            if useless and self._path:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.name} is closed")
        return self._fd

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self.flag}: cannot write {self.name}: {_reason(error)}; {_remedy(error)}")


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would else change line ends


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return (text or type(error).__name__).lower()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "free some space or write to another disk"
    if error.errno == errno.EFBIG:
        return "the limit on file sizes is reached (ulimit -f, or the file system's own)"
    return "check that the folder is still there and writable, or choose another path"
