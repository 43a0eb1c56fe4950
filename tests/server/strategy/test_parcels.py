"""Who sends by the grid sees no parcel; a site is sent one once it has sent one."""

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict

from common.errors import FederationError
from common.messages.parcel import KIND, MARK, is_packed, packed, unpacked
from common.messages.round import pack_arrays, unpack_arrays
from server.strategy.parcels import ParcelGrid

CONTENT = RecordDict({"arrays": pack_arrays({"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)})})


class Hospitals:
    """In the grid's place: node 1 has a gate that packs, node 2 an earlier one."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, RecordDict]] = []
        self.replies: list[Message] = []
        self.spoil = self.earlier = False

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            numbers.append(f"m{len(self.sent)}")
            message.metadata.__dict__["_message_id"] = numbers[-1]
            self.sent.append((message.metadata.dst_node_id, message.content))
            content = packed(CONTENT) if message.metadata.dst_node_id == 1 and not self.earlier else CONTENT
            if self.spoil and message.metadata.dst_node_id == 1:
                content.array_records["arrays"][KIND].data = b"\xff" * 9
            self.replies.append(Message(content, reply_to=message))
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for reply in self.replies if reply.metadata.reply_to_message_id in message_ids]


def ask(grid: ParcelGrid, *nodes: int) -> list[Message]:
    requests = [Message(CONTENT, node, "train", ttl=100.0) for node in nodes]
    numbers = grid.push_messages(requests)
    assert [request.metadata.message_id for request in requests] == numbers
    assert all(request.content is CONTENT for request in requests)
    return grid.pull_messages(numbers)


@pytest.fixture(autouse=True)
def identity(monkeypatch) -> None:
    """What Flower knows of the task that a process is for."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


def test_a_site_gets_parcels_once_it_has_sent_one() -> None:
    hospitals = Hospitals()
    grid = ParcelGrid(hospitals)  # type: ignore[arg-type]
    for _ in range(2):
        replies = ask(grid, 1, 2)
        assert [reply.content for reply in replies] == [CONTENT, CONTENT]
    assert [(node, is_packed(content), MARK in content) for node, content in hospitals.sent] == [
        (1, False, True),
        (2, False, True),
        (1, True, True),
        (2, False, True),
    ]
    assert all(unpacked(content) == CONTENT for _, content in hospitals.sent)


def test_a_parcel_that_cannot_be_read_is_that_sites_alone() -> None:
    hospitals = Hospitals()
    hospitals.spoil = True
    grid = ParcelGrid(hospitals)  # type: ignore[arg-type]
    broken, whole = ask(grid, 1, 2)
    assert whole.content == CONTENT
    with pytest.raises(FederationError, match="Array names differ"):
        unpack_arrays(broken.content.array_records["arrays"], {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)})
    assert grid.takers == set()


def test_without_arrays_nothing_is_packed() -> None:
    grid = ParcelGrid(Hospitals())  # type: ignore[arg-type]
    message = Message(RecordDict({"arrays": ArrayRecord()}), 3, "train", ttl=100.0)
    grid.push_messages([message])
    assert not is_packed(grid.grid.sent[0][1])  # type: ignore[attr-defined]


def test_a_site_that_goes_back_to_an_earlier_version_gets_no_parcel_from_its_next_reply_on() -> None:
    hospitals = Hospitals()
    grid = ParcelGrid(hospitals)  # type: ignore[arg-type]
    ask(grid, 1)
    hospitals.earlier = True
    ask(grid, 1)
    ask(grid, 1)
    assert [is_packed(content) for _, content in hospitals.sent] == [False, True, False]
