"""Flower's grid without Flower: nodes are functions in this process."""

from collections.abc import Callable, Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client.round import train as training
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.errors import DataError
from server.run import federate as run
from tests.server.made_up_sites import hospital

Node = Callable[[Message], Message | RecordDict | None]


class LocalGrid(Grid):
    """Each node answers with content, with a whole message, or (None) not at all."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.sent: list[Message] = []
        self.replies: list[Message] = []

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
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.sent)}"
            self.sent.append(message)
            answer = self.nodes[message.metadata.dst_node_id](message)
            if answer is not None:
                self.replies.append(answer if isinstance(answer, Message) else Message(answer, reply_to=message))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        found = [reply for reply in self.replies if reply.metadata.reply_to_message_id in wanted]
        self.replies = [reply for reply in self.replies if reply not in found]
        return reversed(found)  # the order of arrival is nobody's promise

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


@pytest.fixture
def local_grid(monkeypatch) -> type[LocalGrid]:
    for name in ("_task_id", "_run_id", "_node_id"):  # Flower sets them in each process that it starts
        monkeypatch.setattr(TaskIdentity, name, 1)
    return LocalGrid


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three site folders and an external one; what is in them is made up in memory."""
    data = tmp_path / "data"
    for name in ("a", "b", "broken", "ext"):
        (data / name / "sub-1").mkdir(parents=True)

    def read_site(path, *_, **__):
        if path.name == "broken":
            raise DataError("Patient sub-1: truncated")
        return Site(path.name, path, (), SiteConfig(policy=SitePolicy.simulation()))

    monkeypatch.setattr(training, "read_site", read_site)
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, (0, 1, 2, -1)))
    monkeypatch.setattr(run, "open_external", lambda *_: hospital("ext", (0, 1, 2, 0)))
    monkeypatch.setattr(run, "read_external", lambda *_: {})
    training._simulated_patients.cache_clear()
    yield data
    training._simulated_patients.cache_clear()
