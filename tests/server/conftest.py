"""Flower's grid without Flower: nodes are functions in this process."""

from collections.abc import Callable, Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Node = Callable[[Message], Message | RecordDict | None]


class LocalGrid(Grid):
    """Each node answers with content, with a whole message, or (None) not at all."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.sent: list[Message] = []

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.sent)}"
            self.sent.append(message)
            answer = self.nodes[message.metadata.dst_node_id](message)
            if answer is not None:
                replies.append(answer if isinstance(answer, Message) else Message(answer, reply_to=message))
        return reversed(replies)  # the order of arrival is nobody's promise


@pytest.fixture
def local_grid(monkeypatch) -> type[LocalGrid]:
    for name in ("_task_id", "_run_id", "_node_id"):  # Flower sets them in each process that it starts
        monkeypatch.setattr(TaskIdentity, name, 1)
    return LocalGrid
