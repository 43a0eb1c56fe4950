"""A log of bounded size, for what a program prints."""

from logging import LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

LOG_BYTES, LOG_FILES = 5_000_000, 5


class _Handler(RotatingFileHandler):
    """A full disk loses lines; it does not end the program."""

    def handleError(self, record: LogRecord) -> None:  # noqa: N802  logging's name
        """Ignored: there is no other place to report it."""


def copy_lines(output: IO[bytes], log: Path) -> None:
    """Copy all lines of a program's output, and close it."""
    handler = _Handler(log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True)
    with output:
        for line in output:
            handler.handle(LogRecord("", 20, "", 0, line.decode("utf-8", "replace").rstrip("\n"), None, None))
    handler.close()
