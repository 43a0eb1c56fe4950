"""The coordinator's own log: who was let in or out, what was run, stopped and released, by which user and when.

Hash-chained, as the hospitals' audit logs are, and written before the act: what cannot be written down is not done. What came to
nothing has a second line, which says why. To stop, cancel and revoke is always possible: these are written down afterwards.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from common.deployment.chained_log import ChainedLog
from common.errors import FedMRIError
from common.text import printable
from server.deployment.home import Home

NAME = "acts.jsonl"
INVITE, ADMIT, REVOKE = "invite", "admit", "revoke"
START, STOP, RENEW = "start", "stop", "renew"
RUN, SURVEY, CANCEL, RELEASE = "run", "survey", "cancel", "release"
ALWAYS = (STOP, CANCEL, REVOKE)  # a full disk keeps no hospital in, and nothing running


@contextmanager
def acting(home: Home, act: str, **facts: Any) -> Iterator[None]:
    """Write an act down, then let it be done.

    Raises:
        AuditLogError: it cannot be written; the act is not done then.
    """
    log = acts_of(home)
    if act not in ALWAYS:
        log.append(act, who=_who(), **facts)
    try:
        yield
    except FedMRIError as error:
        log.append(act, who=_who(), **facts, failed=printable(str(error), 300))
        raise
    if act in ALWAYS:
        replace(log, else_="What was asked for was done all the same.").append(act, who=_who(), **facts)


def acts_of(home: Home) -> ChainedLog:
    """The log of this home."""
    return ChainedLog(home.folder / NAME, "The coordinator's log", "Nothing was done.", "with the first act")


def _who() -> str:
    """Name of the user on this machine; where there is none, as in a container, the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
