"""The state of a round while it runs, and its record when it is over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flwr.app import Message

from common.aggregation.aggregator import State
from common.messages.round import SiteReply
from common.models.arrays import Arrays


class FailedAttempt(NamedTuple):
    """One site in an attempt at a round that was then asked again."""

    attempt: int  # from 1
    site: str
    reason: str


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
    idle: tuple[str, ...] = ()  # of `sites`, those that were not asked: without labels they change nothing in such a round
    retried: tuple[FailedAttempt, ...] = ()  # what went wrong in attempts that were followed by another


@dataclass(frozen=True)
class ResumePoint:
    """The state from which a run begins or continues."""

    run: str  # what hospitals' ledgers know it by; the same over every resume
    round: int = 0  # the last one that is kept
    arrays: Arrays | None = None  # of that round; None: the model's own, before the first
    lines: tuple[Mapping[str, Any], ...] = ()  # of rounds.jsonl: the rounds that are kept
    trained: Mapping[str, int] = field(default_factory=dict)  # by site: trainings of rounds that are not kept
    redone: int = 0  # how many results that had gone out to the sites are not kept
    state: State = field(default_factory=dict)  # the aggregator's, of that round


class Address(NamedTuple):
    """Where a site is reached."""

    name: str
    node: int
    site: str  # the folder that the node stands for (simulation); "" at a hospital


@dataclass
class OpenRound:
    """The state of the round in progress."""

    number: int
    current: Arrays
    asked: list[tuple[str, Message]] = field(default_factory=list)
    valid: dict[str, SiteReply] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)  # site -> how often it may have trained, over all attempts
    bytes_up: int = 0
    bytes_down: int = 0
    attempts: int = 0
    lost: dict[str, str] = field(default_factory=dict)  # site -> why the last request has no reply, but for time
    paused: tuple[str, ...] = ()
    redone: int = 0
    low_rank: dict[str, float] = field(default_factory=dict)
    influence: dict[str, dict[str, float]] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    retried: list[FailedAttempt] = field(default_factory=list)


def finished(state: OpenRound, attempts: int, seconds: float, train: dict[str, float]) -> RoundRecord:
    """The record of a finished round.

    Args:
        state: all that was collected of the round.
        attempts: at this round, 1 or more.
        seconds: from the first request to the aggregate.
        train: loss terms averaged over all sites.
    """
    return RoundRecord(
        round=state.number,
        attempts=attempts,
        seconds=seconds,
        bytes_up=state.bytes_up,
        bytes_down=state.bytes_down,
        sites=tuple(sorted(state.valid)),
        failures=dict(sorted(state.failures.items())),
        epsilon={  # JSON has no infinity
            site: reply.epsilon if math.isfinite(reply.epsilon) else None
            for site, reply in sorted(state.valid.items())
            if reply.epsilon >= 0
        },
        trained={site: times for site, times in sorted(state.trained.items()) if times},
        paused=state.paused,
        redone=state.redone,
        low_rank=state.low_rank,
        influence=state.influence,
        idle=state.idle,
        retried=tuple(state.retried),
        train=train,
        external={},
    )
