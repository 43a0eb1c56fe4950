"""Replies are noted when they come, late ones are not taken, and no wait is without an end."""

import threading
import time

import httpx
import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from common.errors import FederationError
from server.strategy import messaging as exchanging
from server.strategy.messaging import answered, exchange
from tests.server.conftest import LocalGrid


def messages(*nodes: int) -> list[Message]:
    return [Message(RecordDict({"c": ConfigRecord({"to": node})}), node, MessageType.TRAIN) for node in nodes]


def fine(message: Message) -> RecordDict:
    return RecordDict({"c": ConfigRecord({"from": message.metadata.dst_node_id})})


@pytest.fixture
def slow_grid(local_grid):
    """A grid whose nodes answer only after some looks."""

    class Slow(LocalGrid):
        def __init__(self, nodes, looks):
            super().__init__(nodes)
            self.looks = looks

        def pull_messages(self, message_ids):
            [asked] = [m for m in self.sent if m.metadata.message_id in message_ids]
            node = asked.metadata.dst_node_id
            self.looks[node] = self.looks.get(node, 0) - 1
            return super().pull_messages(message_ids) if self.looks[node] < 0 else []

    return Slow


def test_each_reply_is_noted_when_it_comes(slow_grid):
    grid, noted = slow_grid({1: fine, 2: fine}, {1: 3}), []
    asked = messages(1, 2)
    came = exchange(
        grid, asked, 60.0, lambda request, reply, seconds: noted.append((request.metadata.dst_node_id, dict(grid.looks)))
    )
    assert noted == [(2, {1: 2, 2: -1}), (1, {1: -1, 2: -1})]  # and not one look more once it has answered
    assert {m.metadata.message_id for m in asked} == came.came.keys()
    assert came.lost == {}


def test_a_straggler_is_not_waited_for_and_its_late_reply_is_not_taken(slow_grid):
    grid = slow_grid({1: fine, 2: fine}, {1: 10**9})
    late = messages(1, 2)
    assert len(exchange(grid, late, 0.05, lambda *_: None).came) == 1
    grid.looks = {}  # now the old reply is there
    asked = messages(1)
    came = exchange(grid, asked, 5.0, lambda *_: None).came
    assert list(came) == [asked[0].metadata.message_id]


def test_a_grid_that_hands_out_others_replies_is_not_believed(local_grid):
    class Confused(LocalGrid):
        def pull_messages(self, message_ids):
            return list(self.replies) * 2

    grid = Confused({1: fine})
    grid.push_messages(messages(1))
    asked = messages(1)
    noted = []
    [(number, reply)] = exchange(grid, asked, 5.0, lambda *n: noted.append(n)).came.items()
    assert reply.metadata.reply_to_message_id == number == asked[0].metadata.message_id
    assert len(noted) == 1


def test_a_message_that_flower_did_not_take_is_told(local_grid):
    class Full(LocalGrid):
        def push_messages(self, messages):
            ids = list(super().push_messages(messages))
            return [ids[0], None]

    asked = messages(1, 2)
    replies = exchange(Full({1: fine, 2: fine}), asked, 0.05, lambda *_: None)
    assert list(replies.came) == [asked[0].metadata.message_id]
    assert list(replies.lost) == [asked[1].metadata.message_id]


def test_a_reply_that_flower_cannot_take_apart_costs_its_site_alone(local_grid):
    class Breaking(LocalGrid):
        def pull_messages(self, message_ids):
            if message_ids == [self.sent[0].metadata.message_id]:
                raise ValueError("patient Smith")
            return super().pull_messages(message_ids)

    asked = messages(1, 2)
    replies = exchange(Breaking({1: fine, 2: fine}), asked, 5.0, lambda *_: None)
    assert replies.lost == {asked[0].metadata.message_id: "unreadable reply (ValueError)"}
    assert list(replies.came) == [asked[1].metadata.message_id]


def test_trouble_with_the_superlink_is_no_sites_fault(local_grid):
    class Gone(LocalGrid):
        def pull_messages(self, message_ids):
            raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        exchange(Gone({1: fine}), messages(1), 5.0, lambda *_: None)


def test_nobody_to_ask_is_no_wait(local_grid):
    assert exchange(local_grid({}), [], 60.0, lambda *_: None).came == {}


def test_a_superlink_that_is_away_ends_the_run_with_a_sentence(monkeypatch):
    monkeypatch.setattr(exchanging, "ANSWER_SECONDS", 0.05)
    forever = threading.Event()
    try:
        with pytest.raises(FederationError, match=r"no answer within 0\.1 s.*--resume"):
            answered(forever.wait, 0.1)
    finally:
        forever.set()


def test_an_error_of_the_grid_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 / 0, 1.0)
    assert answered(lambda: time.monotonic() > 0, 1.0) is True
