"""What can be wrong with a database on disk."""

from __future__ import annotations

from streamer.errors import UsageError


class DatasetError(UsageError):
    """A database's folder or sheet is not as described; the message names file, sheet, row and remedy."""
