"""Requests out, replies in, each noted when it comes. No wait here is without an end, whatever the SuperLink does.

Flower's own `send_and_receive` tells nothing before all is over, and its grid tries for ever to reach a SuperLink that is away.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from common.errors import FederationError

ANSWER_SECONDS = 120.0  # for one call; a SuperLink that is started anew is back in about ten seconds
FIRST_POLL, LAST_POLL = 0.05, 2.0  # seconds between two looks; a twentieth of what was waited, between these

Told = TypeVar("Told")
OnReply = Callable[[Message, Message, float], None]  # request, reply, seconds since the request went out


class Replies(NamedTuple):
    """What an exchange gave; both by the request's id."""

    came: dict[str, Message]
    sent: frozenset[str]  # requests that Flower took


def exchange(
    grid: Grid, messages: Sequence[Message], timeout: float, on_reply: OnReply, on_wait: Callable[[], None] = lambda: None
) -> Replies:
    """Send, and wait until all have answered, at most `timeout` seconds.

    Args:
        on_reply: told each reply when it comes.
        on_wait: called between two looks.

    Returns:
        Replies to these very requests: a late one to an earlier request is never asked for, and not taken.

    Raises:
        FederationError: the SuperLink is away.
    """
    began = time.monotonic()
    pushed = answered(lambda: list(grid.push_messages(messages)), timeout) if messages else []
    sent = frozenset(str(number) for number in pushed if number)
    requests = {message.metadata.message_id: message for message in messages}
    waiting, came = set(sent) & requests.keys(), dict[str, Message]()
    while waiting:
        left = timeout - (time.monotonic() - began)
        for reply in answered(lambda: list(grid.pull_messages(list(waiting))), left):
            request = reply.metadata.reply_to_message_id
            if request in waiting:
                waiting.discard(request)
                came[request] = reply
                on_reply(requests[request], reply, time.monotonic() - began)
        on_wait()
        waited = time.monotonic() - began
        if waited >= timeout:
            break
        if waiting:
            time.sleep(min(timeout - waited, max(FIRST_POLL, min(LAST_POLL, waited / 20))))
    return Replies(came, sent)


def answered(call: Callable[[], Told], seconds: float) -> Told:
    """What a call of Flower's grid returns.

    Args:
        seconds: it may take, but `ANSWER_SECONDS` at least: a SuperLink may be started anew close to a deadline.

    Raises:
        FederationError: it took longer. The call itself cannot be stopped: its thread dies with the process.
    """
    limit = max(seconds, ANSWER_SECONDS)
    answer: queue.Queue[tuple[list[Told], BaseException | None]] = queue.Queue(1)

    def work() -> None:
        try:
            answer.put(([call()], None))
        except BaseException as error:
            answer.put(([], error))

    threading.Thread(target=work, daemon=True, name="fedmri-grid").start()
    try:
        told, error = answer.get(timeout=limit)
    except queue.Empty:
        raise FederationError(
            f"Flower's SuperLink gave no answer within {limit:g} s. Start it again, then go on with the run by --resume."
        ) from None
    if error is not None:
        raise error
    return told[0]
