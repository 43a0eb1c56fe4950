"""A log that is appended to and never rewritten: one JSON object a line, hash-chained, on the disk when `append` returns.

Lines cut off at the end are not noticed, nor is a chain forged whole: copy the last hash elsewhere, and the past is fixed.
"""

import errno
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from common.errors import AuditLogError
from common.files import locked
from common.hash_chain import START, follow, link

TAIL_BYTES = 1 << 20  # one line is far shorter


@dataclass(frozen=True)
class LogSummary:
    """What `verify` found in a sound log."""

    lines: int
    head: str  # hash of the last line
    first: str  # time of the first line, ISO 8601, UTC; "" where there is none
    last: str
    events: dict[str, int]  # how many lines of each event
    torn: int  # bytes after the last whole line: a crash cut a line short; the next entry takes its place


@dataclass(frozen=True)
class ChainedLog:
    """One such file.

    Attributes:
        path: the file; made where it is absent.
        name: what messages call it.
        else_: a sentence that they end with where nothing could be written: what does not happen then.
        begun: when the file is made, for who looks for it before.
    """

    path: Path
    name: str
    else_: str
    begun: str

    def append(self, event: str, **facts: Any) -> str:
        """Append one entry; it is on the disk when this returns. Returns its hash.

        Args:
            event: what happened.
            facts: plain values.

        Raises:
            AuditLogError: it cannot be written, or its last line is damaged.
        """
        content = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        with self._locked() as file:
            head, torn = self._end(file)
            if torn:  # of a line that a crash cut short nothing was ever promised
                file.truncate(file.seek(0, os.SEEK_END) - torn)
                content["cut"] = torn
            line, head = link(head, content)
            try:
                size = file.seek(0, os.SEEK_END)
                whole = line.encode() + b"\n"
                if file.write(whole) != len(whole):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError as error:
                _take_back(file, size)
                raise AuditLogError(f"{self._said}: cannot be written ({error.strerror}). {self.else_}") from error
            return head

    def verify(self) -> LogSummary:
        """Follow the whole chain.

        Raises:
            AuditLogError: names the first line that is not as it was written.
        """
        head, lines, first, last, events, torn = START, 0, "", "", Counter[str](), 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        torn = len(line)
                        break
                    content, head = follow(head, line[:-1].decode())
                    lines, last = lines + 1, str(content.get("time", ""))
                    first = first or last
                    events[str(content.get("event"))] += 1
        except FileNotFoundError:
            raise AuditLogError(f"{self._said}: no such file. It is begun {self.begun}.") from None
        except OSError as error:
            raise AuditLogError(f"{self._said}: cannot be read ({error.strerror}).") from error
        except (ValueError, RecursionError) as error:
            raise AuditLogError(f"{self._said}, line {lines + 1}: not as it was written ({error}).") from error
        return LogSummary(lines, head, first, last, dict(events), torn)

    @property
    def _said(self) -> str:
        return f"{self.name} {self.path}"

    def _locked(self) -> IO[bytes]:
        """The open log, held alone until it is closed."""
        try:
            return locked(self.path, mode=0o600)
        except OSError as error:
            raise AuditLogError(f"{self._said}: cannot be opened ({error.strerror}). {self.else_}") from error

    def _end(self, file: IO[bytes]) -> tuple[str, int]:
        """Hash of the last whole line, and how many bytes stand after it."""
        damaged = f"{self._said}: its last line is damaged. Move the file away, keep it, and start anew."
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
        whole, _, torn = tail.rpartition(b"\n")
        if not whole:
            if size > len(tail):
                raise AuditLogError(damaged)
            return START, len(torn)
        try:
            return str(json.loads(whole.rsplit(b"\n", 1)[-1])["hash"]), len(torn)
        except (ValueError, KeyError, TypeError) as error:
            raise AuditLogError(damaged) from error


def _take_back(file: IO[bytes], size: int) -> None:
    """After a failed write: what came of the line is cut off, as far as the disk lets us."""
    try:
        os.ftruncate(file.fileno(), size)
    except OSError:
        return
