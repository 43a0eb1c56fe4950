"""Counts that may be published together: nothing under the minimum can be worked out from them, by no subtraction.

Every count goes down to a multiple of the minimum m, and means "at least". That alone is not enough: where ten groups of nine
patients are all told as 0 and another topic tells that the patients are ninety, each group must be nine. So counts are lowered by
m until, for every topic, whatever the others tell leaves each of its groups free to be anything from its count to m - 1 more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Counts = dict[str, int]


@dataclass(frozen=True)
class Topic:
    """Patients by group.

    Attributes:
        counts: by group, those with nobody in them too where the groups are `closed`.
        apart: every patient is in one group at most; else groups may share patients.
        closed: everybody is in some group, and the groups are known beforehand.
    """

    counts: Mapping[str, int]
    apart: bool = True
    closed: bool = True


def release(topics: Mapping[str, Topic], patients: int, least: int) -> tuple[int, dict[str, Counts]]:
    """What may be told of one hospital's patients: how many there are at least, and in each group at least.

    Args:
        topics: all that will be told: what is told later or elsewhere is not accounted for.
        patients: in all.
        least: the minimum m, 1 or more; 1 tells all as it is.

    Returns:
        The patients, and by topic the groups; all multiples of m, and 0 where nothing is told.
    """
    total = patients // least * least
    told = {name: {group: count // least * least for group, count in topic.counts.items()} for name, topic in topics.items()}
    if not total:
        return 0, {name: dict.fromkeys(counts, 0) for name, counts in told.items()}
    slack = least - 1
    while slack:
        lower = {name: _at_least(topic, told[name]) for name, topic in topics.items()}
        bound = min((_most(topic, told[name], slack) for name, topic in topics.items()), default=None)
        above = [name for name, value in lower.items() if value > total]
        if above:  # the patients were lowered beneath a topic's sum
            _lower(told[max(above, key=lambda name: lower[name])], least)
        elif bound is not None and total > bound:
            total -= least
        elif bound is not None and any(value > bound for value in lower.values()):
            _lower(told[max(lower, key=lambda name: lower[name])], least)
        else:
            break
    return total, told


def _at_least(topic: Topic, told: Mapping[str, int]) -> int:
    """How many patients there must be for what a topic tells."""
    return sum(told.values()) if topic.apart else max(told.values(), default=0)


def _most(topic: Topic, told: Mapping[str, int], slack: int) -> float:
    """How many patients there may be known to be, so that any one group of the topic can still be as small as it is told."""
    return sum(told.values()) + (len(told) - 1) * slack if topic.closed else float("inf")


def _lower(counts: Counts, least: int) -> None:
    """The largest count, by one step."""
    largest = max(counts, key=lambda group: counts[group])
    counts[largest] -= least
