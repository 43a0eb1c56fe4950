"""The finished rounds of a run, from its events: what rounds.jsonl and the report hold."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

from common.errors import BUDGET_SPENT
from server.events.kinds import (
    BUDGET,
    OF_A_ROUND,
    TRAIN,
    Aggregated,
    Answered,
    Asked,
    BudgetEnded,
    BudgetSpent,
    Evaluated,
    Event,
    Kept,
    Opened,
    Paused,
    Refused,
    Resumed,
    Retried,
    Spared,
)
from server.events.log import Entry


class FailedAttempt(NamedTuple):
    """One site in an attempt at a round that was then asked again."""

    attempt: int  # from 1
    site: str
    reason: str
    rule: str = ""  # one of `kinds.RULES`


class Failure(NamedTuple):
    """Why a site's update is not there."""

    reason: str
    rule: str


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, for `rounds.jsonl` and the report."""

    round: int  # from 1
    attempts: int
    seconds: float  # training, messages and aggregation; not the external evaluation
    bytes_up: int  # arrays from the sites
    bytes_down: int  # arrays to the sites
    sites: tuple[str, ...]  # whose update went into the mean
    failures: dict[str, str]  # site -> reason, of the last attempt
    train: dict[str, float]  # loss terms
    external: dict[str, float]  # what `evaluate_fn` measured; for looking only
    epsilon: dict[str, float | None] = field(default_factory=dict)  # site -> what its ledger says is spent; None: no bound
    trained: dict[str, int] = field(default_factory=dict)  # site -> how often it may have trained, lost answers included
    paused: tuple[str, ...] = ()  # connected sites that were not asked, after too many failures in a row
    redone: int = 0  # results from this round on that had gone out, before a resume played it again
    low_rank: dict[str, float] = field(default_factory=dict)  # `common.low_rank.figures`, where single updates are seen
    influence: dict[str, dict[str, float]] = field(default_factory=dict)  # site -> its part (`server.strategy.influence`)
    data: dict[str, str] = field(default_factory=dict)  # site -> keyed hash of what it trained on, where its policy tells it
    idle: tuple[str, ...] = ()  # of `sites`, those that were not asked: without labels they change nothing in such a round
    retried: tuple[FailedAttempt, ...] = ()  # what went wrong in attempts that were followed by another
    rules: dict[str, str] = field(default_factory=dict)  # site of `failures` -> which of `kinds.RULES` it was


@dataclass(frozen=True)
class RoundSoFar:
    """The round in progress."""

    number: int
    trained: Mapping[str, int] = field(default_factory=dict)  # site -> how often it may have trained, over all attempts
    redone: int = 0
    attempts: int = 1
    bytes_up: int = 0
    bytes_down: int = 0
    failures: Mapping[str, Failure] = field(default_factory=dict)
    retried: tuple[FailedAttempt, ...] = ()
    paused: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


NOTHING = RoundSoFar(0)


@dataclass(frozen=True)
class Rounds:
    """All rounds, as far as the events tell."""

    done: tuple[RoundRecord, ...] = ()
    carried: RoundSoFar = NOTHING  # what sites may have spent on the next round before the run was resumed
    open: RoundSoFar | None = None
    closed: RoundRecord | None = None  # has a result that is not on the disk yet
    unfinished: RoundRecord | None = None  # a round that budgets ended: it changed no model, but some sites spent on it


def rounds_of(entries: Iterable[Entry]) -> Rounds:
    """What a log tells of the rounds."""
    return reduce(after, (entry.event for entry in entries), Rounds())


def after(rounds: Rounds, event: Event) -> Rounds:
    """The rounds after one more event."""
    if isinstance(event, Resumed):
        done = tuple(record for record in rounds.done if record.round <= event.round)
        return Rounds(done, RoundSoFar(event.round + 1, event.trained, event.redone))
    if isinstance(event, Opened):
        known = rounds.carried if rounds.carried.number == event.round else RoundSoFar(event.round)
        return replace(rounds, open=known, closed=None)
    return _after_open(rounds, rounds.open, event) if rounds.open else _after_closed(rounds, event)


def _after_open(rounds: Rounds, so_far: RoundSoFar, event: Event) -> Rounds:
    """While a round is in progress."""
    if isinstance(event, Aggregated):
        return replace(rounds, open=None, closed=_closed(so_far, event))
    if isinstance(event, BudgetEnded):
        return replace(rounds, open=None, unfinished=_closed(so_far, event))
    return replace(rounds, open=_so_far(so_far, event))


def _after_closed(rounds: Rounds, event: Event) -> Rounds:
    """Between two rounds."""
    if rounds.closed and isinstance(event, Evaluated) and not event.final:
        return replace(rounds, closed=replace(rounds.closed, external=dict(event.figures)))
    if rounds.closed and isinstance(event, Kept):
        return replace(rounds, closed=None, done=(*rounds.done, rounds.closed))
    return rounds


def _so_far(so_far: RoundSoFar, event: Event) -> RoundSoFar:
    """The round in progress after one more event of it."""
    match event:
        case Retried():
            return _retried(so_far, event)
        case Paused():
            return replace(so_far, paused=(*so_far.paused, event.site))
        case Spared():
            return replace(so_far, idle=(*so_far.idle, event.site))
        case Asked() | Answered() | Refused() | BudgetSpent() if event.what in OF_A_ROUND:
            return _exchanged(so_far, event)
    return so_far


def _retried(so_far: RoundSoFar, event: Retried) -> RoundSoFar:
    failed = (FailedAttempt(so_far.attempts, site, *why) for site, why in sorted(so_far.failures.items()))
    failures = {} if event.anew else so_far.failures
    return replace(so_far, attempts=event.attempt, failures=failures, retried=(*so_far.retried, *failed), paused=())


def _exchanged(so_far: RoundSoFar, event: Asked | Answered | Refused | BudgetSpent) -> RoundSoFar:
    match event:
        case Asked():
            return _asked(so_far, event)
        case Answered():
            return replace(so_far, bytes_up=so_far.bytes_up + event.bytes)
        case Refused():
            return _failed(so_far, event.site, Failure(event.reason, event.rule))
        case BudgetSpent():  # it has not trained
            times = max(0, so_far.trained.get(event.site, 0) - 1)
            trained = {**so_far.trained, event.site: times}
            return _failed(replace(so_far, trained=trained), event.site, Failure(BUDGET_SPENT, BUDGET))


def _asked(so_far: RoundSoFar, event: Asked) -> RoundSoFar:
    """Whatever the site failed in before, its answer to this request counts; and it may train on it."""
    failures = {site: why for site, why in so_far.failures.items() if site != event.site}
    trained = so_far.trained
    if event.what == TRAIN:
        trained = {**trained, event.site: trained.get(event.site, 0) + 1}
    return replace(so_far, bytes_down=so_far.bytes_down + event.bytes, failures=failures, trained=trained)


def _failed(so_far: RoundSoFar, site: str, why: Failure) -> RoundSoFar:
    return replace(so_far, failures={**so_far.failures, site: why})


def _closed(so_far: RoundSoFar, event: Aggregated | BudgetEnded) -> RoundRecord:
    """The record of a round that is over."""
    result = event if isinstance(event, Aggregated) else Aggregated(event.round, event.seconds, event.sites, {})
    return RoundRecord(
        round=so_far.number,
        attempts=so_far.attempts,
        seconds=event.seconds,
        bytes_up=so_far.bytes_up,
        bytes_down=so_far.bytes_down,
        sites=event.sites,
        failures={site: why.reason for site, why in sorted(so_far.failures.items())},
        train=dict(result.train),
        external={},
        epsilon=dict(event.epsilon),
        trained={site: times for site, times in sorted(so_far.trained.items()) if times},
        paused=so_far.paused,
        redone=so_far.redone,
        low_rank=dict(result.low_rank),
        influence=dict(result.influence),
        data=dict(event.data),
        idle=so_far.idle,
        retried=so_far.retried,
        rules={site: why.rule for site, why in sorted(so_far.failures.items())},
    )


def as_line(record: RoundRecord) -> dict[str, Any]:
    """A round as `rounds.jsonl` and `report.json` hold it."""
    line = dataclasses.asdict(record)
    rules = line.pop("rules")
    line["sites"] = list(record.sites)
    line["failures"] = [_with_rule({"site": site, "reason": why}, rules.get(site)) for site, why in record.failures.items()]
    line["external_mcc"] = line.pop("external").get("mcc")
    line["paused"] = list(record.paused)
    line["idle"] = list(record.idle)
    line["retried"] = [_with_rule(failure._asdict(), failure.rule) for failure in record.retried]
    for name in ("epsilon", "paused", "redone", "low_rank", "influence", "data", "idle", "retried"):  # most rounds have none
        if not line[name]:
            del line[name]
    return line


def _with_rule(entry: dict[str, Any], rule: str | None) -> dict[str, Any]:
    known = {key: value for key, value in entry.items() if key != "rule"}
    return known | {"rule": rule} if rule else known
