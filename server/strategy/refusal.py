"""Why a site's part is not there: one sentence, and the rule (`server.events.kinds.RULES`) by which it was refused."""

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from common.errors import FederationError
from common.text import printable
from server.events.kinds import CRASHED, GONE, MALFORMED, NO_REPLY, RULES, UNREADABLE
from server.strategy.messaging import AWAY, error_name

LONGEST = 300


def content_of(reply: Message | None, lost: str, timeout: float) -> RecordDict:
    """What a site replied.

    Args:
        reply: None: none came.
        lost: why there will be none; "": for time alone.
        timeout: seconds that there was.

    Raises:
        FederationError: there is no content.
    """
    if reply is None:
        if lost:
            raise FederationError(lost, rule=GONE if lost == AWAY else UNREADABLE)
        raise FederationError(f"no reply within {timeout:g} s", rule=NO_REPLY)
    if reply.has_error():  # its text may quote the site's own exception: the code alone is repeated
        raise FederationError(f"the site's process gave no reply (Flower: {error_name(reply)}){_why(reply)}", rule=CRASHED)
    return reply.content


def _why(reply: Message) -> str:
    """What is behind Flower's code, for whoever must look for it.

    A hospital's gate sends an error without a text where nothing may leave, for it would not stand in the audit log.
    """
    if reply.error.code == ErrorCode.NODE_UNAVAILABLE:
        return ". Its service was stopped or lost its connection since it was asked, or the coordinator has revoked it"
    if reply.error.code != ErrorCode.CLIENT_APP_RAISED_EXCEPTION:
        return ""
    return ". A hospital that cannot write its audit log, on a full disk, answers so; its own log says why"


def refusal_of(error: Exception) -> tuple[str, str]:
    """The sentence and the rule of what was raised over a site's reply; what a parser failed on is told by its kind only."""
    if not isinstance(error, FederationError):
        return f"unreadable reply ({type(error).__name__})", UNREADABLE
    return printable(str(error), LONGEST), error.rule if error.rule in RULES else MALFORMED
