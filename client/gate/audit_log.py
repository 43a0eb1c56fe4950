"""The hospital's audit log: what came in, what went out, what was refused and by which rule. Appended to, never rewritten.

One JSON object a line, hash-chained (`common.hash_chain`), on the disk before anything leaves: a reply whose line cannot be
written
does not leave. Lines cut off at the end are not noticed, nor is a chain forged whole: the log is the hospital's own; copy its
last hash elsewhere (`fedmri-site audit verify` prints it) and the past is fixed.
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

LOG_NAME = "audit.jsonl"
ASKED, ANSWERED, REFUSED = "asked", "answered", "refused"  # of a request: it came; its answer left; a sentence left, and why
EARLIER = {"in": ASKED, "out": ANSWERED}  # what logs of earlier versions call them
UNEXPECTED = "unexpected"  # the `rule` of a refusal that nobody foresaw
TAIL_BYTES = 1 << 20  # one line is far shorter


@dataclass(frozen=True)
class AuditSummary:
    """What `verify` found in a sound log."""

    lines: int
    head: str  # hash of the last line
    first: str  # time of the first line, ISO 8601, UTC; "" where there is none
    last: str
    events: dict[str, int]  # how many lines of each event
    torn: int  # bytes after the last whole line: a crash cut a line short; the next entry takes its place


def record(log: Path, event: str, **facts: Any) -> str:
    """Append one entry; it is on the disk when this returns. Returns its hash.

    Args:
        log: the file; made where it is absent.
        event: ASKED, ANSWERED, REFUSED, or what else happened ("ledger").
        facts: plain values; of a refusal `rule` is the key of site.toml that refused (`policy.hours`), or a code that stays.

    Raises:
        AuditLogError: it cannot be written, or its last line is damaged: nothing may leave then.
    """
    content = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
    with _locked(log) as file:
        head, torn = _end(file, log)
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
            raise AuditLogError(f"Audit log {log}: cannot be written ({error.strerror}). Nothing left the site.") from error
        return head


def verify(log: Path) -> AuditSummary:
    """Follow the whole chain.

    Raises:
        AuditLogError: names the first line that is not as it was written.
    """
    head, lines, first, last, events, torn = START, 0, "", "", Counter[str](), 0
    try:
        with log.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    torn = len(line)
                    break
                content, head = follow(head, line[:-1].decode())
                lines, last = lines + 1, str(content.get("time", ""))
                first = first or last
                events[str(content.get("event"))] += 1
    except FileNotFoundError:
        raise AuditLogError(f"Audit log {log}: no such file. It is begun when the site starts.") from None
    except OSError as error:
        raise AuditLogError(f"Audit log {log}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise AuditLogError(f"Audit log {log}, line {lines + 1}: not as it was written ({error}).") from error
    return AuditSummary(lines, head, first, last, dict(events), torn)


def _locked(log: Path) -> IO[bytes]:
    """The open log, held alone until it is closed."""
    try:
        return locked(log, mode=0o600)
    except OSError as error:
        raise AuditLogError(f"Audit log {log}: cannot be opened ({error.strerror}). Nothing left the site.") from error


def _end(file: IO[bytes], log: Path) -> tuple[str, int]:
    """Hash of the last whole line, and how many bytes stand after it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    whole, _, torn = tail.rpartition(b"\n")
    if not whole:
        if size > len(tail):
            raise AuditLogError(f"Audit log {log}: its last line is damaged. Move the file away, keep it, and start anew.")
        return START, len(torn)
    try:
        return str(json.loads(whole.rsplit(b"\n", 1)[-1])["hash"]), len(torn)
    except (ValueError, KeyError, TypeError) as error:
        raise AuditLogError(f"Audit log {log}: its last line is damaged. Move the file away, keep it, and start anew.") from error


def _take_back(file: IO[bytes], size: int) -> None:
    """After a failed write: what came of the line is cut off, as far as the disk lets us."""
    try:
        os.ftruncate(file.fileno(), size)
    except OSError:
        return
