"""Asks sites one thing before the rounds or beside them, and notes who failed and why. No site's answer ends a run."""

from collections.abc import Mapping
from typing import NamedTuple

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from common.messages.round import record_bytes
from server.strategy.aggregation import RefusedForGoodError, judge_status
from server.strategy.messaging import exchange
from server.strategy.progress import Progress
from server.strategy.refusal import content_of, refusal_of
from server.strategy.round_loop import EXPIRY_SLACK
from server.strategy.round_state import Address


class Asked(NamedTuple):
    """The answers by site, and why the others gave none."""

    told: dict[str, RecordDict]
    failures: dict[str, str]
    for_good: set[str]  # of the latter, those who refuse for the whole run


def ask(grid: Grid, requests: Mapping[Address, RecordDict], number: int, timeout: float, group: str, progress: Progress) -> Asked:
    """One exchange.

    Args:
        grid: Flower's, to send by.
        requests: what each site is asked.
        number: of the round that the requests name.
        timeout: seconds.
        group: what Flower calls the exchange.
        progress: notified of sites.

    Raises:
        FederationError: the SuperLink is away.
    """
    messages = {
        address.name: Message(content, address.node, MessageType.TRAIN, ttl=timeout + EXPIRY_SLACK, group_id=group)
        for address, content in requests.items()
    }
    names = {id(message): name for name, message in messages.items()}
    for name, message in messages.items():
        progress.asked(name, _size(message.content), group, number)

    def note(request: Message, reply: Message, seconds: float) -> None:
        progress.answered(names[id(request)], seconds, 0 if reply.has_error() else _size(reply.content), group, number)

    replies = exchange(grid, list(messages.values()), timeout, note, progress.tick)
    asked = Asked({}, {}, set())
    for name, message in messages.items():
        key = message.metadata.message_id
        try:
            content = content_of(replies.came.get(key), replies.lost.get(key, ""), timeout)
            judge_status(content, number)
            asked.told[name] = content
        except Exception as error:  # whatever a hostile reply may set off in a parser, it costs that site its part only
            asked.failures[name], rule = refusal_of(error)
            if isinstance(error, RefusedForGoodError):
                asked.for_good.add(name)
            progress.failed(name, asked.failures[name], rule, group, number)
    return asked


def _size(content: RecordDict) -> int:
    packed = sum(record_bytes(record) for record in content.array_records.values())
    values = [value for record in content.values() if isinstance(record, ConfigRecord) for value in record.values()]
    return packed + sum(len(value) for value in values if isinstance(value, bytes))
