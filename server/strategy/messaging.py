"""Sends requests and collects replies as they come. Every wait has a limit, whatever the SuperLink does.

Flower's own `send_and_receive` tells nothing before all is over, and its grid tries for ever to reach a SuperLink that is away.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import httpx
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common.errors import FederationError, FedMRIError

ANSWER_SECONDS = 120.0  # for one call; a SuperLink that is started anew is back in about ten seconds
AWAY = "the request could not be handed to the site: it has gone away"
FIRST_POLL, LAST_POLL = 0.05, 2.0  # seconds between two looks; a twentieth of what was waited, between these

Told = TypeVar("Told")
OnReply = Callable[[Message, Message, float], None]  # request, reply, seconds since the request went out


@runtime_checkable
class Notifying(Protocol):
    """A grid that tells which replies are there, so that nobody has to look for them: the pool's."""

    def wait(self, seconds: float) -> Iterable[str]:
        """Wait for a reply, at most so long; the ids of all requests whose reply can be pulled."""


class Replies(NamedTuple):
    """The replies of an exchange, and the requests that will get none; both by the request's id."""

    came: dict[str, Message]
    lost: dict[str, str]  # why there will be no reply


def exchange(
    grid: Grid, messages: Sequence[Message], timeout: float, on_reply: OnReply, on_wait: Callable[[], None] = lambda: None
) -> Replies:
    """Send, and wait until all have answered, at most `timeout` seconds.

    Args:
        grid: Flower's.
        messages: one for each site that is asked.
        timeout: seconds.
        on_reply: called with each reply when it comes.
        on_wait: called between two looks.

    Returns:
        Replies to these very requests: a late one to an earlier request is never asked for, and not taken.

    Raises:
        FederationError: the SuperLink is away.
    """
    began = time.monotonic()
    pushed = answered(lambda: list(grid.push_messages(messages)), timeout) if messages else []
    requests = {message.metadata.message_id: message for message in messages}
    waiting, came = {number: request for number, request in requests.items() if number in pushed}, dict[str, Message]()
    lost = dict.fromkeys(requests.keys() - waiting.keys(), AWAY)
    due: Iterable[str] = waiting
    while waiting:
        for number in [number for number in due if number in waiting]:
            reply = _look(grid, number, timeout - (time.monotonic() - began))
            if reply is None:
                continue
            request = waiting.pop(number)
            if isinstance(reply, str):
                lost[number] = reply
            else:
                came[number] = reply
                on_reply(request, reply, time.monotonic() - began)
        on_wait()
        waited = time.monotonic() - began
        if waited >= timeout:
            break
        if waiting:
            due = _pause(grid, min(timeout - waited, max(FIRST_POLL, min(LAST_POLL, waited / 20))), waiting)
    return Replies(came, lost)


def _pause(grid: Grid, seconds: float, waiting: Iterable[str]) -> Iterable[str]:
    """Wait before the next look, and say for which requests it is worth one."""
    if isinstance(grid, Notifying):
        return list(grid.wait(seconds))
    time.sleep(seconds)
    return waiting


def _look(grid: Grid, number: str, left: float) -> Message | str | None:
    """The reply to one request if it is there, or why it cannot be read.

    One at a time: Flower takes a reply apart while it fetches it, and what a hostile site has sent must cost no other's reply.
    """
    try:
        found = answered(lambda: list(grid.pull_messages([number])), left)
    except (httpx.HTTPError, OSError, FedMRIError):
        raise
    except Exception as error:
        return f"unreadable reply ({type(error).__name__})"
    return next((reply for reply in found if reply.metadata.reply_to_message_id == number), None)


def error_name(reply: Message) -> str:
    """Flower's name for an error reply, such as `client app crashed`; its text is not repeated."""
    names = {value: name.lower().replace("_", " ") for name, value in vars(ErrorCode).items() if isinstance(value, int)}
    return names.get(reply.error.code, str(reply.error.code))


def answered(call: Callable[[], Told], seconds: float) -> Told:
    """The result of a call to Flower's grid, within a time limit.

    Args:
        call: without arguments; run in a thread of its own.
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
