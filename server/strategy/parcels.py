"""Flower's grid, over which a message's arrays travel as one (`common.messages.parcel`) to each site that can take them so."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from common.errors import FederationError
from common.messages.parcel import is_packed, marked, packed, unpacked


class ParcelGrid(Grid):
    """Whoever sends or receives by it sees no parcel.

    Args:
        grid: Flower's, to hospitals.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.takers: set[int] = set()  # nodes from which a packed reply came

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send; each message is afterwards what it was, but for its number."""
        requests: Sequence[Message] = list(messages)
        contents = [request.content for request in requests]
        try:
            for request, content in zip(requests, contents, strict=True):
                takes = request.metadata.dst_node_id in self.takers
                request.content = marked(packed(content) if takes else content)
            return list(self.grid.push_messages(requests))
        finally:
            for request, content in zip(requests, contents, strict=True):
                request.content = content

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there; one whose parcel cannot be read stays as it came: its arrays are nobody's then."""
        replies = list(self.grid.pull_messages(message_ids))
        for reply in replies:
            if not reply.has_content():
                continue
            if is_packed(reply.content):
                with suppress(FederationError):
                    reply.content = unpacked(reply.content)
                    self.takers.add(reply.metadata.src_node_id)
            elif any(isinstance(record, ArrayRecord) and len(record) > 1 for record in reply.content.values()):
                self.takers.discard(reply.metadata.src_node_id)  # a site that went back to an earlier version
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Not used: `server.strategy.messaging` waits in its place."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """As Flower's."""
        return self.grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        """As Flower's."""
        return self.grid.get_nodes()

    def set_run(self, run: Run) -> None:
        """As Flower's."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """As Flower's."""
        return self.grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """As Flower's."""
        return self.grid.create_message(*arguments, **named)
