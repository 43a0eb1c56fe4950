"""What the run and each of its sites are doing now, from the run's events: RUN/status.json, for whoever watches.

    {"state": "waiting" | "training" | "calibrating" | "evaluating" | "finished" | "failed", "round": 3, "rounds": 20,
     "attempt": at that round, "since": when this state and round began, "updated": time of the last event,
     "sites": {NAME: {"state": "asked" | "answered" | "failed" | "paused", "last_seen": time of its last reply or null,
                      "seconds": that this took or null, "bytes_up", "bytes_down", "failures": over the whole run,
                      "reason": of the last failure or pause, else "", "rule": by which it failed last, else ""}}}

Times are ISO 8601 in UTC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Any, TypeAlias

from common.errors import BUDGET_SPENT
from server.events.kinds import (
    BUDGET,
    Answered,
    Asked,
    Began,
    BudgetSpent,
    Ended,
    Opened,
    Paused,
    Refused,
    Resumed,
    Retried,
    Spared,
    StateChanged,
)
from server.events.log import Entry

OfSite: TypeAlias = Asked | Answered | Refused | BudgetSpent | Paused | Spared
UNLABELLED = "not asked: it has no labelled patient, and the round fits the head alone"


@dataclass(frozen=True)
class SiteStatus:
    """The status of one site."""

    state: str = "asked"
    last_seen: str | None = None
    seconds: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    failures: int = 0
    reason: str = ""
    rule: str = ""


@dataclass(frozen=True)
class RunStatus:
    """The status of the run."""

    state: str = "waiting"
    round: int = 0
    rounds: int = 0
    attempt: int = 0
    since: str = ""
    updated: str = ""
    sites: Mapping[str, SiteStatus] = field(default_factory=dict)


def status_of(entries: Iterable[Entry]) -> RunStatus:
    """What a log tells of the run's state."""
    return reduce(after, entries, RunStatus())


def after(status: RunStatus, entry: Entry) -> RunStatus:
    """The status after one more event."""
    time, event = datetime.fromisoformat(entry.time).isoformat(timespec="seconds"), entry.event
    status = replace(status, updated=time)
    match event:
        case Asked() | Answered() | Refused() | BudgetSpent() | Paused() | Spared():
            site = _site(status.sites.get(event.site, SiteStatus()), event, time)
            status = replace(status, sites={**status.sites, event.site: site})
        case StateChanged():
            status = _changed(status, event.state, event.round, time)
        case Ended():
            status = _changed(status, event.state, status.round, time)
        case Began():
            status = replace(status, rounds=event.rounds, since=time)
        case Resumed():
            status = replace(status, rounds=event.rounds, attempt=0)
        case Opened():
            status = replace(status, attempt=1)
        case Retried():
            status = replace(status, attempt=event.attempt)
    return status


def as_table(status: RunStatus) -> dict[str, Any]:
    """status.json."""
    sites = {name: asdict(site) for name, site in sorted(status.sites.items())}
    return {**{name: value for name, value in vars(status).items() if name != "sites"}, "sites": sites}


def _changed(status: RunStatus, state: str, number: int, time: str) -> RunStatus:
    if (state, number) == (status.state, status.round) and status.since:
        return status
    return replace(status, state=state, round=number, since=time)


def _site(site: SiteStatus, event: OfSite, time: str) -> SiteStatus:
    """One site after an event of its own."""
    match event:
        case Asked():
            site = replace(site, state="asked", reason="", rule="", bytes_down=site.bytes_down + event.bytes)
        case Answered():
            up, seconds = site.bytes_up + event.bytes, round(event.seconds, 3)
            site = replace(site, state="answered", last_seen=time, seconds=seconds, bytes_up=up)
        case Refused():
            site = replace(site, state="failed", reason=event.reason, rule=event.rule, failures=site.failures + 1)
        case BudgetSpent():
            site = replace(site, state="failed", reason=BUDGET_SPENT, rule=BUDGET, failures=site.failures + 1)
        case Paused():
            site = replace(site, state="paused", reason=event.reason)
        case Spared():
            site = replace(site, state="paused", reason=UNLABELLED)
    return site
