"""What the audit log says of the data that rounds trained on."""

import pytest
from flwr.app import ConfigRecord, RecordDict

from client.gate.audit_log import ANSWERED, record
from client.gate.data_watch import last_data, trained_facts
from common.errors import AuditLogError
from common.messages.round import SITE, Task

A, B = "ab" * 32, "cd" * 32


def told(data: object) -> RecordDict:
    return RecordDict({SITE: ConfigRecord({"data": data} if data is not None else {})})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("before", "data", "facts"),
    [
        ([], A, {"data": A}),
        ([("r1", A)], A, {"data": A}),
        ([("r1", A)], B, {"data": B, "data_changed": True}),
        ([("r1", A), ("r1", B)], B, {"data": B}),
        ([("r2", A)], B, {"data": B}),  # another run may have other patients
        ([("r1", A), ("r2", B)], A, {"data": A}),
        ([("r1", A)], None, {}),
        ([("r1", A)], "a name", {}),
        ([("r1", A)], 7, {}),
    ],
)
def test_a_change_is_one_since_the_same_runs_last_round(tmp_path, before, data, facts) -> None:
    log = tmp_path / "audit.jsonl"
    for run, hashed in before:
        record(log, ANSWERED, run=run, data=hashed)
        record(log, ANSWERED, run=run)
    assert trained_facts(log, told(data), Task(1, "", "", "", "r1")) == facts


def test_a_damaged_log_is_said(tmp_path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"data":"x\n')
    with pytest.raises(AuditLogError, match="audit verify"):
        last_data(tmp_path / "audit.jsonl", "r1")
