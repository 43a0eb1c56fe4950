"""RUN/events.jsonl: all that happened in a run, one JSON object a line, only ever added to.

    {"time": "2026-11-29T12:00:00.123+00:00", "event": one of `kinds.KINDS`, ...the fields of that kind}

Each line is handed to the operating system when its event happens, and is on the disk when a round is finished. A crash may cut
off the last ones: what cannot be read at the end is dropped, and said, when the run goes on.
"""

import contextlib
import errno
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple

from common.errors import ConfigError, FederationError
from common.schema import build
from server.events.kinds import KINDS, NAMES, Event

EVENTS = "events.jsonl"
TIME, KIND = "time", "event"


class Entry(NamedTuple):
    """One line."""

    time: str  # ISO 8601, UTC
    event: Event


class Read(NamedTuple):
    """What a log holds."""

    entries: tuple[Entry, ...]
    whole: int  # bytes of it
    torn: bool  # whether something that is no line follows


def as_text(event: Event) -> str:
    """The line of an event that happens now, without its end."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({TIME: time, KIND: NAMES[type(event)], **asdict(event)}, allow_nan=False)


def parse(text: str | bytes) -> Entry:
    """One line.

    Raises:
        ValueError: it is none, or not of this version: says what is wrong.
    """
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("expected a table")
    time, kind = table.pop(TIME, None), table.pop(KIND, None)
    if not isinstance(time, str) or not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"expected a time, and one of {', '.join(KINDS)}; got {str(kind)[:40]!r}")
    datetime.fromisoformat(time)
    try:
        return Entry(time, build(KINDS[kind], table))
    except (ConfigError, TypeError) as error:
        raise ValueError(f"'{kind}': {error}") from error


def read_events(run: Path) -> Read:
    """The events of a run folder; none where it has no log, as those of earlier versions.

    Raises:
        FederationError: a line is damaged that another one follows, or the file cannot be read.
    """
    path = run / EVENTS
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    except OSError as error:
        raise FederationError(f"{path}: cannot be read ({error.strerror}).") from error
    found = [_parsed(line) for line in lines[:-1]]  # what the last end of a line does not end is torn
    count = next((row for row, one in enumerate(found) if not isinstance(one, Entry)), len(found))
    if any(isinstance(one, Entry) for one in found[count:]):
        raise FederationError(
            f"{path}, line {count + 1}: expected an event ({found[count]}). The log is damaged, or of another version. To go on "
            "with the run without it, move it away: rounds.jsonl and the checkpoints are enough."
        )
    entries = tuple(one for one in found[:count] if isinstance(one, Entry))
    whole = sum(len(line) + 1 for line in lines[:count])
    return Read(entries, whole, torn=count < len(found) or bool(lines[-1]))


def _parsed(line: bytes) -> Entry | str:
    """The line, or why it is none."""
    try:
        return parse(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return str(error)[:200]


class EventLog:
    """Adds to the log of one run.

    Args:
        run: the run folder; the log is opened with the first event.
        keep: bytes of the file that is there; the rest is cut off. 0: a new log.
    """

    def __init__(self, run: Path, keep: int = 0) -> None:
        self.path, self._size = run / EVENTS, keep
        self._file: IO[bytes] | None = None

    def append(self, text: str, *, sync: bool = False) -> None:
        """Add a line; with `sync` it is on the disk when this returns, and so are all before it.

        Raises:
            FederationError: it cannot be written: a run of which nothing is known any more does not go on.
        """
        line = text.encode() + b"\n"
        try:
            file = self._opened()
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(file.fileno())
            self._size += len(line)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line would spoil the next one
                os.truncate(self.path, self._size)
            raise FederationError(
                f"Run folder {self.path.parent}: {EVENTS} could not be written ({error.strerror or error}). The finished rounds "
                "are kept: make room, then go on with --resume."
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self._size)
        return self._file


def read_lines(run: Path) -> list[str]:
    """The log's lines as they are, of whichever version; also while the run goes on.

    Raises:
        FederationError: there is none, or it cannot be read.
    """
    path = run / EVENTS
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError as error:
        raise FederationError(
            f"{path}: cannot be read ({error.strerror}). Expected the folder of a run; runs of earlier versions have no such log."
        ) from error
