"""`rounds` of report.json: participation, failures, seconds, bytes, loss, deviation of low-rank pairs, and the external MCC."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.events.words import refusal
from server.report.decode import listed, measure, names, real, table, whole


@dataclass(frozen=True)
class Failure:
    """A reply that a round dropped, or that did not come."""

    site: str
    reason: str
    rule: str = ""  # by which; "": a report of an earlier version
    attempt: int | None = None  # at the round, of one that was asked again

    @property
    def said(self) -> str:
        """By which rule, and why."""
        return refusal(self.rule, self.reason)


@dataclass(frozen=True)
class Part:
    """What one site had in a round: shares of the weight and of the change, what its change was multiplied by, and what part of
    its distance from the others' middle was left (None: all of it).
    """

    weight: float | None
    change: float | None
    scale: float | None
    drawn: float | None = None


@dataclass(frozen=True)
class Round:
    """One round. `mcc` is the external value, for information only."""

    number: int
    attempts: int | None  # how often it was asked
    seconds: float | None
    up: float | None  # bytes from the sites
    down: float | None  # bytes to the sites
    sites: str | None  # how many updates were used
    there: tuple[str, ...]  # the sites whose update was used, where their names are known
    failures: tuple[Failure, ...]
    retried: tuple[Failure, ...]  # in attempts after which the round was asked again
    paused: tuple[str, ...]
    mcc: float | None
    loss: float | None
    deviation: float | None  # of the product of the mean low-rank factors from the mean of the products, relative
    left: float | None  # of it, after what `federation.low_rank` has made of it
    influence: Mapping[str, Part]  # by site

    @property
    def failed(self) -> tuple[str, ...]:
        """The sites whose reply was not used."""
        return tuple(failure.site for failure in self.failures)


def decode_round(value: Any) -> Round:
    """From a line of rounds.jsonl."""
    entry = table(value)
    sites = entry.get("sites")
    seen = entry.get("external") if entry.get("external") is not None else entry.get("external_mcc")
    seen = seen.get("mcc", seen) if isinstance(seen, Mapping) else seen
    return Round(
        number=whole(entry.get("round")) or 0,
        attempts=whole(entry.get("attempts")),
        seconds=real(entry.get("seconds")),
        up=real(entry.get("bytes_up")),
        down=real(entry.get("bytes_down")),
        sites=str(len(sites)) if isinstance(sites, list | dict) else None if sites is None else str(sites),
        there=names(sites),
        failures=tuple(_failure(each) for each in listed(entry.get("failures"))),
        retried=tuple(_failure(each) for each in listed(entry.get("retried"))),
        paused=names(entry.get("paused")),
        mcc=measure(seen).value,
        loss=real(table(entry.get("train")).get("loss")),
        deviation=real(table(entry.get("low_rank")).get("deviation")),
        left=real(table(entry.get("low_rank")).get("left")),
        influence={site: _part(value) for site, value in table(entry.get("influence")).items()},
    )


def _part(value: Any) -> Part:
    entry = table(value)
    return Part(*(real(entry.get(name)) for name in ("weight", "change", "scale", "drawn")))


def _failure(value: Any) -> Failure:
    entry = value if isinstance(value, Mapping) else {"reason": value}
    site, reason = str(entry.get("site") or "unknown site"), str(entry.get("reason") or "no reason given")
    return Failure(site, reason, str(entry.get("rule") or ""), whole(entry.get("attempt")))
