"""python -m train: fit | export."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from streamer.errors import StreamerError
from train.export import ExportConfig, export
from train.loop import FitConfig, fit

Command = (
    Annotated[FitConfig, tyro.conf.subcommand("fit")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, a `StreamerError`'s own, or 130 after Ctrl-C."""
    command = tyro.cli(Command, prog="python -m train", description=__doc__, args=arguments)  # pyright: ignore[reportCallIssue, reportArgumentType]
    try:
        if isinstance(command, FitConfig):
            metrics = fit(command)["validation"]
            print(
                f"{command.out}: accuracy {metrics['accuracy']:.3f}, macro F1 {metrics['macro_f1']:.3f} on"
                f" {metrics['samples']} other simulated expressions"
            )
        else:
            print(export(command))
    except StreamerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was there before is unchanged", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
