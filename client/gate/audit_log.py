"""The hospital's audit log: what came in, what went out, what was refused and by which rule. Appended to, never rewritten.

A hash-chained file (`common.deployment.chained_log`), on the disk before anything leaves: a reply whose line cannot be written
does not leave. The log is the hospital's own; copy its last hash elsewhere (`fedmri-site audit verify` prints it) and the past
is fixed.
"""

from pathlib import Path
from typing import Any, TypeAlias

from common.deployment.chained_log import ChainedLog, LogSummary

LOG_NAME = "audit.jsonl"
ASKED, ANSWERED, REFUSED = "asked", "answered", "refused"  # of a request: it came; its answer left; a sentence left, and why
EARLIER = {"in": ASKED, "out": ANSWERED}  # what logs of earlier versions call them
AuditSummary: TypeAlias = LogSummary
UNEXPECTED = "unexpected"  # the `rule` of a refusal that nobody foresaw


def record(log: Path, event: str, **facts: Any) -> str:
    """Append one entry; it is on the disk when this returns. Returns its hash.

    Args:
        log: the file; made where it is absent.
        event: ASKED, ANSWERED, REFUSED, or what else happened ("ledger").
        facts: plain values; of a refusal `rule` is the key of site.toml that refused (`policy.hours`), or a code that stays.

    Raises:
        AuditLogError: it cannot be written, or its last line is damaged: nothing may leave then.
    """
    return _chained(log).append(event, **facts)


def verify(log: Path) -> AuditSummary:
    """Follow the whole chain.

    Raises:
        AuditLogError: names the first line that is not as it was written.
    """
    return _chained(log).verify()


def _chained(log: Path) -> ChainedLog:
    return ChainedLog(log, "Audit log", "Nothing left the site.", "when the site starts")
