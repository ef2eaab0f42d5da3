"""python -m streamer.bench: pipeline | latency | spotting | calibrate."""

from __future__ import annotations

import sys
from typing import Annotated, TypeAlias

import tyro

from streamer.bench.calibrate import CalibrateConfig, calibrate
from streamer.bench.latency import LatencyConfig, bench_latency
from streamer.bench.pipeline import PipelineConfig, bench_pipeline
from streamer.bench.spotting import SpottingBenchConfig, bench_spotting
from streamer.errors import StreamerError

Command: TypeAlias = (
    Annotated[PipelineConfig, tyro.conf.subcommand("pipeline")]
    | Annotated[LatencyConfig, tyro.conf.subcommand("latency")]
    | Annotated[SpottingBenchConfig, tyro.conf.subcommand("spotting")]
    | Annotated[CalibrateConfig, tyro.conf.subcommand("calibrate")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; returns the exit code: 0, a `StreamerError`'s own, or 130 after Ctrl-C."""
    try:
        command = tyro.cli(Command, prog="python -m streamer.bench", description=__doc__, args=arguments)
        if isinstance(command, PipelineConfig):
            print(bench_pipeline(command), end="")
        elif isinstance(command, LatencyConfig):
            print(bench_latency(command), end="")
        elif isinstance(command, CalibrateConfig):
            print(calibrate(command), end="")
        else:
            print(bench_spotting(command), end="")
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was there before is unchanged", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
