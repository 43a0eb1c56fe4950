"""The gate's side towards Flower: a SuperNode that took no reply is started anew."""

import fcntl
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.gate import supernode as gate_flower
from client.gate.gate import Gate
from common.deployment.supervisor import LOCK_NAME, STATUS_NAME
from common.messages.parcel import MARK, is_packed, unpacked


@pytest.fixture(autouse=True)
def identity(monkeypatch) -> None:
    """What Flower knows of the task that a process is for."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


@pytest.fixture
def supernode(tmp_path: Path):
    """A process in the SuperNode's place, as the supervisor tells of it."""
    process = subprocess.Popen(["/bin/sleep", "600"])
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STATUS_NAME).write_text(json.dumps({"programs": {"flower-supernode": {"pid": process.pid}}}))
    with (tmp_path / "state" / LOCK_NAME).open("w") as lock:  # a supervisor is alive
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield process
    process.kill()
    process.wait()


def serve_once(tmp_path: Path, monkeypatch, push, **more: ConfigRecord) -> int:
    message = Message(RecordDict({"arrays": ArrayRecord(), **more}), 7, "train", ttl=100.0)
    message.metadata.__dict__["_message_id"] = "m1"
    context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})

    class Bundle:
        content = b"not approved"

    monkeypatch.setattr(gate_flower, "pull_task_input", lambda _: (message, context, None, Bundle))
    monkeypatch.setattr(gate_flower, "push_message", push)
    monkeypatch.setattr(gate_flower, "push_task_output", lambda **_: None)
    monkeypatch.setattr("client.gate.supernode.HeartbeatSender.start", lambda _: None)
    monkeypatch.setattr("client.gate.supernode.HeartbeatSender.stop", lambda _: None)
    (tmp_path / "site.toml").write_text("")
    arguments = ["--runtime-api-address", "127.0.0.1:1", "--token", "t", "--insecure"]
    return gate_flower.serve("flwr-clientapp", arguments, Gate(tmp_path / "site.toml"))


def test_a_supernode_that_takes_no_reply_is_ended(tmp_path, monkeypatch, supernode) -> None:
    def refused(*_):
        raise RuntimeError("401")

    with pytest.raises(RuntimeError, match="401"):
        serve_once(tmp_path, monkeypatch, refused)
    assert supernode.wait(10) == -15


def test_one_that_takes_it_goes_on(tmp_path, monkeypatch, supernode) -> None:
    said = []
    assert serve_once(tmp_path, monkeypatch, lambda client, reply, context: said.append(reply)) == 0
    assert "has not approved" in str(said[0].content["site"]["error"])
    assert supernode.poll() is None


def test_a_number_that_a_dead_supervisor_left_behind_is_not_ended(tmp_path, supernode) -> None:
    (tmp_path / "state" / LOCK_NAME).unlink()
    gate_flower.renew_supernode(tmp_path / "state")
    with pytest.raises(subprocess.TimeoutExpired):
        supernode.wait(0.3)


@pytest.mark.parametrize("may", [True, False])
def test_the_reply_is_packed_where_the_request_says_that_it_may(tmp_path, monkeypatch, may) -> None:
    two = {"a": Array(np.zeros(2, np.float32)), "b": Array(np.ones(2, np.float32))}
    monkeypatch.setattr(
        Gate, "answer", lambda self, message, context, bundle: (RecordDict({"change": ArrayRecord(two)}), context)
    )
    said: list[Message] = []
    serve_once(
        tmp_path, monkeypatch, lambda client, reply, context: said.append(reply), **({MARK: ConfigRecord()} if may else {})
    )
    assert is_packed(said[0].content) is may
    assert dict(unpacked(said[0].content).array_records["change"]) == two


@pytest.mark.parametrize("text", ["", "[]", '{"programs": []}', '{"programs": {"flower-supernode": {"pid": null}}}'])
def test_a_supervisor_that_tells_nothing_ends_nothing(tmp_path, text) -> None:
    (tmp_path / STATUS_NAME).write_text(text)
    gate_flower.renew_supernode(tmp_path)
