"""The ClientApp is wiring: a message comes in, the reply goes back to its sender, an error is a reply too."""

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from common.errors import FederationError
from common.messages.round import read_reply


def test_a_bad_request_is_answered_not_raised(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    message = Message(RecordDict(), 7, MessageType.TRAIN)
    reply = app(message, Context(1, 7, {}, RecordDict(), {}))
    assert reply.metadata.dst_node_id == message.metadata.src_node_id
    assert read_reply(reply.content, {}).error == FederationError.public_default


def test_other_kinds_of_message_are_not_served(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    with pytest.raises(ValueError, match="query"):
        app(Message(RecordDict(), 7, MessageType.QUERY), Context(1, 7, {}, RecordDict(), {}))
