"""The recogniser's command line: `python -m streamer --camera 0`, or `--source clip.mp4`.

Events go to standard output or to `--events`, log lines to standard error. Exit codes: 0 done, 2 usage,
3 no source (any more), 4 no usable engine or model, 130 interrupted, 1 an output failed.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from streamer.cli import load_config
from streamer.errors import SourceError, StreamerError
from streamer.standard_output import reader_left

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recogniser; returns the exit code. `argv` is by default the command line's."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        try:
            config = load_config(sys.argv[1:] if argv is None else argv)
        except SystemExit:  # after --help
            sys.stdout.flush()
            raise
        logging.basicConfig(
            level=config.log_level.upper(), format="%(levelname)s: %(message)s", stream=sys.stderr
        )
        if config.list_cameras:
            return _list_cameras()
        _check_libraries()
        # Only now: these take a second to load, and a wrong flag is answered at once.
        from streamer.pipeline import run

        return run(config)
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # who read standard output has left, as in `--help | head`
        return reader_left()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the program as Ctrl-C does, through every `finally`."""
    raise KeyboardInterrupt


def _check_libraries() -> None:
    try:
        import av  # noqa: F401
        import cv2  # noqa: F401
        import numba  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise StreamerError(
            f"a library cannot be loaded ({error}): set the project up with 'make run' or "
            f"'pip install -e .'; if a file ending in .so is missing, on Debian and Ubuntu: "
            f"apt-get install libegl1 libgles2 libgl1 libglib2.0-0 libsm6 libxext6"
        ) from error


def _list_cameras() -> int:
    _check_libraries()
    from streamer.sources import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        rate = f" at {camera.fps:g} fps" if camera.fps else ""
        print(f"{camera.index}: {camera.name}, {camera.width}x{camera.height}{rate}")
    if not cameras:
        raise SourceError(
            "no camera gives a picture: connect one, and close other programs that use it "
            "(without one, try --source sample)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
