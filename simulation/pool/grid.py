"""Flower's grid over the pool: each node is a virtual site, and each request goes to an idle worker.

A site comes back to the worker that served it last, whose memory holds its patients, unless that one is busy and another idle.
A request is written out only when a worker takes it, so that a thousand sites cost no thousand copies of the model.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from logging import WARNING
from multiprocessing.connection import Connection, wait
from typing import NamedTuple
from uuid import uuid4

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore import log
from flwr.supercore.run import Run

from common.messages.round import CONFIG
from simulation.pool.worker import read_message, write_message

EMPTY = b""


class Started(NamedTuple):
    """A new worker, and how the one before it in its slot ended: an exit code, below 0 a signal's number."""

    connection: Connection
    before: int


@dataclass
class Slot:
    """Where one worker stands, and after its death the next."""

    number: int
    connection: Connection
    request: Message | None = None  # what it works on


class PoolGrid(Grid):
    """Flower's grid.

    Args:
        nodes: how many virtual sites.
        workers: how many of them at once.
        start: starts the worker of a slot.
    """

    def __init__(self, nodes: int, workers: int, start: Callable[[int], Started]) -> None:
        self._start = start
        self._slots = [Slot(number, start(number).connection) for number in range(workers)]
        self._nodes = range(1, nodes + 1)
        self._memory: dict[int, bytes] = {}  # by node
        self._home: dict[int, int] = {}  # node -> slot that served it last
        self._queues: dict[int | None, deque[Message]] = {}  # by home; None: it has none
        self._open: set[str] = set()  # requests whose reply is still wanted
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take requests; what is left of earlier ones is of no use to anybody."""
        self._queues, self._replies, self._open = {}, {}, set()
        numbers = []
        for message in messages:
            number = str(uuid4())
            message.metadata.__dict__["_message_id"] = number  # as Flower's own grids do
            self._queues.setdefault(self._home.get(message.metadata.dst_node_id), deque()).append(message)
            numbers.append(number)
        self._open.update(numbers)
        self._hand_out()
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, once each."""
        self._collect(0.0)
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def wait(self, seconds: float) -> list[str]:
        """Wait for a reply, at most so long; the requests whose reply can be pulled."""
        if not self._replies:
            self._collect(seconds)
        return list(self._replies)

    def get_node_ids(self) -> list[int]:
        """One node a site."""
        return list(self._nodes)

    def _collect(self, seconds: float) -> None:
        """Read what workers have sent, and give them more to do."""
        busy = [slot for slot in self._slots if slot.request]
        if not busy:
            time.sleep(seconds)
        ready = wait([slot.connection for slot in busy], seconds) if busy else []
        for slot in busy:
            if slot.connection in ready:
                self._receive(slot)
        self._hand_out()

    def _receive(self, slot: Slot) -> None:
        """One worker's reply, or the news of its death."""
        request, slot.request = slot.request, None
        assert request
        node = request.metadata.dst_node_id
        try:
            data, self._memory[node] = slot.connection.recv_bytes(), slot.connection.recv_bytes()
            reply = read_message(data)
        except (EOFError, OSError):
            how = self._replace(slot, str(request.content[CONFIG]["site"]))
            reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, how), reply_to=request)
        reply.metadata.__dict__["_message_id"] = str(uuid4())
        if (number := request.metadata.message_id) in self._open:
            self._open.discard(number)
            self._replies[number] = reply

    def _hand_out(self) -> None:
        for slot in self._slots:
            while slot.request is None and (message := self._next(slot.number)):
                self._send(slot, message)

    def _next(self, number: int) -> Message | None:
        """The next request for a slot: its own sites', then nobody's, then one of the longest queue."""
        queues = self._queues
        longest = max(queues, key=lambda home: len(queues[home]), default=None)
        for home in (number, None, longest):
            if queues.get(home):
                return queues[home].popleft()
        return None

    def _send(self, slot: Slot, message: Message) -> None:
        node = message.metadata.dst_node_id
        self._home[node], slot.request = slot.number, message
        if slot.connection.poll():  # idle, it has nothing to say: it has died since its last reply, which costs nobody a round
            self._replace(slot, "nobody")
        with suppress(OSError):  # it dies at this moment: `_receive` hears of it
            slot.connection.send_bytes(write_message(message))
            slot.connection.send_bytes(self._memory.get(node, EMPTY))

    def _replace(self, slot: Slot, site: str) -> str:
        """Put a new worker in a dead one's place, and say how that ended."""
        slot.connection.close()
        slot.connection, before = self._start(slot.number)
        how = f"was ended by signal {-before}" if before < 0 else f"ended with code {before}"
        log(WARNING, "The worker that computed for %s %s; a new one takes its place.", site, how)
        return how

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Not used: `server.strategy.messaging` pushes and pulls."""
        raise NotImplementedError

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A request."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        """Nothing to note: a pool serves one run."""

    @property
    def run(self) -> Run:
        """Flower knows nothing of this run."""
        raise NotImplementedError
