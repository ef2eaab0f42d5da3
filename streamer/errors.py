"""The errors a user can meet, each with the exit code of the command line.

A message says what happened, to what, and what to do next, in one line.
"""


class StreamerError(Exception):
    """Base of all expected errors; `__main__` prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(StreamerError):
    """A flag, a configuration file or an output path is wrong."""

    exit_code = 2


class SourceError(StreamerError):
    """A source cannot be opened, or is lost for good."""

    exit_code = 3


class EngineError(StreamerError):
    """An engine or a model file cannot be used."""

    exit_code = 4


class OutputError(StreamerError):
    """An output failed while it was written (disk full, folder gone). What was written stays valid."""

    exit_code = 1
