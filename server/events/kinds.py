"""All that can happen in a run, as the server sees it: the closed list of what a line of events.jsonl may tell.

Nothing stands here that the server does not hold anyway: names of sites, bytes, seconds, sentences that sites let go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

TRAIN = "train"  # what a site is asked for: to train, or (secure) for the stage in which it does
SECURE = "secure"  # a stage of a secure round in which nobody trains
OF_A_ROUND = (TRAIN, SECURE)  # the rest (weights, held-out, twins-..., calibration, survey, model) is beside the rounds

NO_REPLY = "no-reply"  # nothing came in time
GONE = "gone"  # the request could not be handed over
CRASHED = "crashed"  # the site's process gave no reply; Flower says so
UNREADABLE = "unreadable"  # a parser failed on it
MALFORMED = "malformed"  # names, types, shapes, sizes or values are not those of such a reply; values that are not finite, too
OTHER_ROUND = "other-round"
TOO_LARGE = "federation.max_update_norm"
ODD_ONE_OUT = "federation.max_update_ratio"
IMPLAUSIBLE = "implausible"  # sums for the calibration that no patients can have
SUM_REFUSED = "secure-sum"  # the sum of a secure round could not be unmasked
AT_THE_SITE = "site"  # the site itself refused or could not; its sentence says no more than it lets go
AT_THE_SITE_FOR_GOOD = "site-for-good"  # the same for the whole run
BUDGET = "budget"  # the site's privacy budget is spent
RULES = (
    *(NO_REPLY, GONE, CRASHED, UNREADABLE, MALFORMED, OTHER_ROUND, TOO_LARGE, ODD_ONE_OUT),
    *(IMPLAUSIBLE, SUM_REFUSED, AT_THE_SITE, AT_THE_SITE_FOR_GOOD, BUDGET),
)
UNANSWERED = (NO_REPLY, GONE, CRASHED)  # no reply came that could be refused

AFTER_FAILURES, CLOSED = "failures", "closed"  # why a site is paused: too many failures in a row; not asked in this run


@dataclass(frozen=True)
class Began:
    """A run begins."""

    rounds: int  # that it is to have


@dataclass(frozen=True)
class Resumed:
    """A run goes on after `round`; what is told of later rounds counts no more, but for what sites may have spent on them."""

    round: int
    rounds: int
    trained: dict[str, int] = field(default_factory=dict)  # by site: trainings of rounds that are not kept
    redone: int = 0  # results that had gone out to the sites and are not kept
    torn: bool = False  # a crash had cut off the log's end, which was dropped


@dataclass(frozen=True)
class StateChanged:
    """The run does something else now."""

    state: str  # waiting, comparing, training, evaluating, calibrating
    round: int


@dataclass(frozen=True)
class Opened:
    """The first attempt at a round begins."""

    round: int


@dataclass(frozen=True)
class Retried:
    """The round is asked again: too few sites were in."""

    round: int
    attempt: int  # that begins
    anew: bool = False  # replies to earlier attempts count no more (secure aggregation)


@dataclass(frozen=True)
class Asked:
    """A request goes out."""

    round: int
    attempt: int  # 0: beside the rounds
    site: str
    what: str
    bytes: int


@dataclass(frozen=True)
class Answered:
    """A reply has come, good or bad; nobody has judged it yet."""

    round: int
    attempt: int
    site: str
    what: str
    seconds: float  # since the request went out
    bytes: int


@dataclass(frozen=True)
class Refused:
    """A reply was refused, or is the site's own refusal, or none came."""

    round: int
    attempt: int
    site: str
    what: str
    rule: str  # one of `RULES`
    reason: str


@dataclass(frozen=True)
class BudgetSpent:
    """A site's privacy budget does not allow what it was asked for; it has not trained."""

    round: int
    attempt: int
    site: str
    what: str


@dataclass(frozen=True)
class Paused:
    """A connected site is not asked in this round."""

    round: int
    site: str
    why: str  # `AFTER_FAILURES` or `CLOSED`
    reason: str


@dataclass(frozen=True)
class Spared:
    """A site is not asked, for its answer is known: without labels it changes nothing in such a round."""

    round: int
    site: str


@dataclass(frozen=True)
class Aggregated:
    """The round has its new global arrays."""

    round: int
    seconds: float  # training, messages and aggregation, over all attempts
    sites: tuple[str, ...]  # whose update went in
    train: dict[str, float]  # loss terms over all sites
    epsilon: dict[str, float | None] = field(default_factory=dict)  # site -> what its ledger says is spent; None: no bound
    data: dict[str, str] = field(default_factory=dict)  # site -> keyed hash of what it trained on, where its policy tells it
    low_rank: dict[str, float] = field(default_factory=dict)
    influence: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetEnded:
    """The round has no result, and training ends: too few sites have budget left. What some of them spent on it is spent."""

    round: int
    seconds: float
    sites: tuple[str, ...]  # whose reply was valid, to no use
    epsilon: dict[str, float | None] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """The global model was measured on the external patients; chooses nothing."""

    round: int
    figures: dict[str, float]
    final: bool = False  # of the model that the run leaves


@dataclass(frozen=True)
class Kept:
    """The round's checkpoint is on the disk: it is finished."""

    round: int


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    state: str  # finished or failed
    reason: str = ""


Event: TypeAlias = (
    Began
    | Resumed
    | StateChanged
    | Opened
    | Retried
    | Asked
    | Answered
    | Refused
    | BudgetSpent
    | Paused
    | Spared
    | Aggregated
    | BudgetEnded
    | Evaluated
    | Kept
    | Ended
)
KINDS: Mapping[str, type] = {
    "began": Began,
    "resumed": Resumed,
    "state": StateChanged,
    "round": Opened,
    "retried": Retried,
    "asked": Asked,
    "answered": Answered,
    "refused": Refused,
    "budget": BudgetSpent,
    "paused": Paused,
    "spared": Spared,
    "aggregated": Aggregated,
    "budget-ended": BudgetEnded,
    "evaluated": Evaluated,
    "kept": Kept,
    "ended": Ended,
}
NAMES: Mapping[type, str] = {kind: name for name, kind in KINDS.items()}
