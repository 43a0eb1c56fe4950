"""The audit log holds a keyed hash of what each round trained on: data that were replaced in mid-run leave a trace."""

import json
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from common.errors import AuditLogError
from common.messages.round import SITE, Task, data_hash

DATA, CHANGED = "data", "data_changed"  # in lines of the audit log


def trained_facts(log: Path, content: RecordDict, task: Task) -> dict[str, Any]:
    """For the line of an answer: the hash of what was trained on, and whether it is another than in the run's last round.

    Args:
        log: the audit log.
        content: the bundle's reply, before the policy takes out what does not leave.
        task: the request's.

    Raises:
        AuditLogError: the log cannot be read.
    """
    data = data_hash(content.config_records.get(SITE, ConfigRecord()))
    if not data:
        return {}
    before = last_data(log, task.run)
    return {DATA: data} | ({CHANGED: True} if before and before != data else {})


def last_data(log: Path, run: str) -> str:
    """The hash of what the run trained on last, as the log has it; "" where it has none.

    Raises:
        AuditLogError: the log cannot be read.
    """
    found = ""
    try:
        with log.open("rb") as file:
            for line in file:
                if b'"data":"' in line and line.endswith(b"\n"):
                    entry = json.loads(line)
                    found = str(entry[DATA]) if entry.get("run") == run else found
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError) as error:
        raise AuditLogError(f"Audit log {log}: cannot be read ({error}). `fedmri-site audit verify` says where.") from error
    return found
