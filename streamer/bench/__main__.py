"""python -m streamer.bench: pipeline | spotting."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from streamer.bench.pipeline import PipelineConfig, bench_pipeline
from streamer.errors import StreamerError

Command = Annotated[PipelineConfig, tyro.conf.subcommand("pipeline")]


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; returns the exit code: 0, a `StreamerError`'s own, or 130 after Ctrl-C."""
    command = tyro.cli(Command, prog="python -m streamer.bench", description=__doc__, args=arguments)
    try:
        print(bench_pipeline(command), end="")
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was there before is unchanged", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
