"""The audit log holds the privacy ledger's last head: a ledger that was deleted, cut or put back from a backup is noticed.

After each message under which the ledger grew, the gate writes a line with the ledger's head. A ledger that has no line of that
hash any more has forgotten charges: training with privacy stays closed until the ledger is back, or until a person decides to go
on without (`fedmri-site ledger accept`), which stands in the log with their reason. Who deletes the log too is not noticed: copy
its last hash elsewhere (`fedmri-site audit verify`).
"""

import json
from pathlib import Path

from client.gate.audit_log import record
from client.privacy.ledger import Ledger
from common.errors import AuditLogError, PrivacyError

EVENT = "ledger"  # lines of the audit log
GROWN, MOVED, ACCEPTED = "charged", "salt moved to the keys", "accepted by a person"


def known_head(log: Path) -> str:
    """The ledger's head as the log has it last; "" where it says nothing of one.

    Raises:
        AuditLogError: the log cannot be read.
    """
    head, mark = "", f'"event":"{EVENT}"'.encode()
    try:
        with log.open("rb") as file:
            for line in file:
                if mark in line and line.endswith(b"\n"):
                    head = str(json.loads(line)["ledger"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError) as error:
        raise AuditLogError(f"Audit log {log}: cannot be read ({error}). `fedmri-site audit verify` says where.") from error
    return head


def require_known(log: Path, ledger: Ledger, path: Path) -> None:
    """Refuse a ledger that has forgotten what the log knows of.

    Args:
        log: the audit log.
        ledger: as read.
        path: of the ledger, for the message.

    Raises:
        PrivacyError: it has.
        AuditLogError: the log cannot be read.
    """
    head = known_head(log)
    if head and head not in ledger.hashes():
        state = "is not there" if not ledger.lines else "lacks charges that were written"
        raise PrivacyError(
            f"Privacy ledger {path}: {state}; the audit log knows of a line {head[:12]}. It was deleted, cut, or put back from "
            "an older backup. Put the newest back. If it is lost: `fedmri-site ledger accept SITE --reason TEXT` goes on without "
            "it, and what was spent since is then spent twice."
        )


def note_grown(log: Path, ledger: Ledger) -> None:
    """Write the ledger's head into the log, where lines came after the last one that the log knows of.

    Raises:
        AuditLogError: it cannot be written.
    """
    known = known_head(log)
    if ledger.lines and ledger.head != known and (not known or known in ledger.hashes()):
        _write(log, ledger, GROWN)


def note_moved(log: Path, ledger: Ledger) -> None:
    """Write the head of a ledger that the gate itself has written anew, without its salt.

    Raises:
        AuditLogError: it cannot be written.
    """
    _write(log, ledger, MOVED)


def accept(log: Path, ledger: Ledger, reason: str) -> None:
    """A person's decision to go on with the ledger as it is.

    Raises:
        AuditLogError: it cannot be written.
    """
    _write(log, ledger, ACCEPTED, reason=reason)


def _write(log: Path, ledger: Ledger, what: str, **facts: str) -> None:
    record(log, EVENT, ledger=ledger.head if ledger.lines else "", charges=len(ledger.entries), what=what, **facts)
