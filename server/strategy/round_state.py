"""The state of a round while it runs, and what is told of it when it is over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flwr.app import Message

from common.aggregation.aggregator import State
from common.messages.round import SiteReply
from common.models.arrays import Arrays
from server.events.kinds import Aggregated, BudgetEnded


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
    """The working state of the round in progress; what is told of it is in `server.events.rounds`."""

    number: int
    current: Arrays
    asked: list[tuple[str, Message]] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)  # of those asked, whose reply was judged when it came
    valid: dict[str, SiteReply] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    lost: dict[str, str] = field(default_factory=dict)  # site -> why the last request has no reply, but for time
    idle: set[str] = field(default_factory=set)
    low_rank: dict[str, float] = field(default_factory=dict)
    influence: dict[str, dict[str, float]] = field(default_factory=dict)


def aggregated(state: OpenRound, seconds: float, train: dict[str, float]) -> Aggregated:
    """What is told of a round that has its new global arrays.

    Args:
        state: all that was collected of the round.
        seconds: from the first request to the aggregate.
        train: loss terms averaged over all sites.
    """
    sites, epsilon, data = _of_sites(state)
    return Aggregated(state.number, seconds, sites, train, epsilon, data, state.low_rank, state.influence)


def budget_ended(state: OpenRound, seconds: float) -> BudgetEnded:
    """What is told of a round that budgets ended."""
    return BudgetEnded(state.number, seconds, *_of_sites(state))


def too_few(state: OpenRound, wanted: int, why: Mapping[str, str], *, unlabelled: bool) -> str:
    """What is said of a round that had too few replies, however often it was asked.

    Args:
        state: as it is left.
        wanted: `federation.min_sites`.
        why: by site, for what reason it has no part.
        unlabelled: whether no site with labels has one.
    """
    reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(why.items())) or "no other site was there"
    none = ", none of a site with labels," if unlabelled else ""
    return (
        f"Round {state.number} ended with {len(state.valid)} valid updates{none} of the {wanted} that federation.min_sites asks "
        f"for, after {state.attempts} attempts. {reasons}"
    )


def _of_sites(state: OpenRound) -> tuple[tuple[str, ...], dict[str, float | None], dict[str, str]]:
    """The sites whose reply is valid, what their ledgers say, and what they trained on."""
    replies = sorted(state.valid.items())
    epsilon = {  # JSON has no infinity
        site: reply.epsilon if math.isfinite(reply.epsilon) else None for site, reply in replies if reply.epsilon >= 0
    }
    data = {site: reply.data for site, reply in replies if reply.data and site not in state.idle}
    return tuple(site for site, _ in replies), epsilon, data
