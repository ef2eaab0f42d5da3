"""python -m train: check | landmarks | loso | reproduce | tables | figures | fit | export | simulate |
magnifier | sample | measure | variants | bench."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from streamer.errors import StreamerError
from streamer.standard_output import reader_left
from train.checkpoint import load_checkpoint
from train.datasets.check import CheckConfig, check
from train.export import ExportConfig, export
from train.fit import fit
from train.landmarks_command import LandmarksConfig, landmarks
from train.loop import FitConfig
from train.loso import LosoConfig, loso
from train.magnify import MagnifierConfig, train_magnifier
from train.measure import MeasureConfig, measure
from train.reproduce import FiguresConfig, ReproduceConfig, TablesConfig, pages, reproduce
from train.sample import SampleConfig, make_sample
from train.simulated_database import SimulateDatabaseConfig, simulate_database
from train.training_bench import BenchConfig, bench
from train.variants import VariantsConfig, variants

Command = (
    Annotated[FitConfig, tyro.conf.subcommand("fit")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[SampleConfig, tyro.conf.subcommand("sample")]
    | Annotated[MeasureConfig, tyro.conf.subcommand("measure")]
    | Annotated[VariantsConfig, tyro.conf.subcommand("variants")]
    | Annotated[CheckConfig, tyro.conf.subcommand("check")]
    | Annotated[LandmarksConfig, tyro.conf.subcommand("landmarks")]
    | Annotated[MagnifierConfig, tyro.conf.subcommand("magnifier")]
    | Annotated[SimulateDatabaseConfig, tyro.conf.subcommand("simulate")]
    | Annotated[LosoConfig, tyro.conf.subcommand("loso")]
    | Annotated[BenchConfig, tyro.conf.subcommand("bench")]
    | Annotated[ReproduceConfig, tyro.conf.subcommand("reproduce")]
    | Annotated[TablesConfig, tyro.conf.subcommand("tables")]
    | Annotated[FiguresConfig, tyro.conf.subcommand("figures")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, a `StreamerError`'s own, or 130 after Ctrl-C."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where it is noticed that the reader has left
    except BrokenPipeError:
        return reader_left()
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was there before is unchanged", file=sys.stderr)
        return 130


def _run(arguments: list[str] | None) -> int:
    command = tyro.cli(Command, prog="python -m train", description=__doc__, args=arguments)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if isinstance(command, FitConfig):
        metrics = fit(command)["validation"]
        data = load_checkpoint(command.out).info["data"]
        whom = "held-out subjects' samples" if command.dataset else "other simulated expressions"
        if data.get("recorded_is_simulated"):
            whom += " (SIMULATED data)"
        print(
            f"{command.out}: accuracy {metrics['accuracy']:.3f}, macro F1 {metrics['macro_f1']:.3f} on"
            f" {metrics['samples']} {whom}"
        )
    elif isinstance(command, ExportConfig):
        print(export(command))
    elif isinstance(command, SampleConfig):
        print(make_sample(command))
    elif isinstance(command, MeasureConfig):
        print(f"{command.out}: {measure(command)['samples']} expressions measured")
    elif isinstance(command, CheckConfig):
        text, lacking = check(command)
        print(text)
        return 1 if lacking else 0
    elif isinstance(command, LandmarksConfig):
        print(landmarks(command))
    elif isinstance(command, MagnifierConfig):
        error, factor = train_magnifier(command)
        print(f"{command.out}: mean absolute error {error:.4f} of a range of 2")
        print(f"asked to magnify motion of up to half a pixel 3 times, it gives {factor:.2f} (drawn scenes)")
    elif isinstance(command, ReproduceConfig):
        print(reproduce(command))
    elif isinstance(command, (TablesConfig, FiguresConfig)):
        print(pages(command))
    elif isinstance(command, LosoConfig):
        print(loso(command))
    elif isinstance(command, BenchConfig):
        print(bench(command))
    elif isinstance(command, SimulateDatabaseConfig):
        print(f"{command.out}: {simulate_database(command)} simulated clips")
    else:
        print(variants(command), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
