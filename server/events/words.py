"""Events and rounds in words: the lines of the server's log, of `fedmri-server log --run`, and of consoles that follow a run."""

from collections.abc import Mapping
from logging import INFO, WARNING
from typing import Any

from common.text import printable
from server.events.kinds import (
    AFTER_FAILURES,
    AT_THE_SITE_FOR_GOOD,
    TRAIN,
    UNANSWERED,
    Aggregated,
    Answered,
    Asked,
    Began,
    BudgetEnded,
    BudgetSpent,
    Ended,
    Evaluated,
    Event,
    Kept,
    Opened,
    Paused,
    Refused,
    Resumed,
    Retried,
    Spared,
    StateChanged,
)

LONGEST = 400


def said(event: Event) -> str:
    """An event as one line."""
    return printable(_said(event), LONGEST)


def level(event: Event) -> int:
    """How loud the server's own log tells of it: logging's INFO or WARNING; 0: not at all."""
    match event:
        case Refused() | BudgetSpent() | Retried() | BudgetEnded():
            return WARNING
        case Resumed():
            return WARNING if event.torn else INFO
        case Aggregated():
            return INFO
        case Paused():
            return INFO if event.why == AFTER_FAILURES else 0
    return 0


def _said(event: Event) -> str:
    match event:
        case Began():
            return f"The run begins: {_many(event.rounds, 'round')}"
        case Resumed():
            torn = "; the log's end had been cut off by a crash, and was dropped" if event.torn else ""
            return f"The run goes on after round {event.round} of {event.rounds}{torn}"
        case StateChanged():
            return f"Round {event.round}: {event.state}"
        case Ended():
            return f"The run has {event.state}" + (f": {event.reason}" if event.reason else "")
        case Asked() | Answered() | Refused() | BudgetSpent() | Paused() | Spared():
            return f"Round {event.round}: {event.site}: {_of_site(event)}"
    return f"Round {event.round}: {_of_round(event)}"


def _of_site(event: Asked | Answered | Refused | BudgetSpent | Paused | Spared) -> str:
    what = "" if isinstance(event, Paused | Spared) or event.what == TRAIN else f" ({event.what})"
    match event:
        case Asked():
            return f"asked{what}, {_megabytes(event.bytes)}{_attempt(event.attempt)}"
        case Answered():
            return f"answered{what} after {event.seconds:.1f} s, {_megabytes(event.bytes)}"
        case Refused():
            again = ". It is not asked again in this run; --resume asks it once more"
            return f"{refusal(event.rule, event.reason)}{what}{again if event.rule == AT_THE_SITE_FOR_GOOD else ''}"
        case BudgetSpent():
            return f"its privacy budget is spent{what}"
        case Paused():
            return event.reason
        case Spared():
            return "not asked: it has no labelled patient, and changes nothing in this round"


def _of_round(event: Opened | Retried | Aggregated | BudgetEnded | Evaluated | Kept) -> str:
    match event:
        case Opened():
            return "begins"
        case Retried():
            return f"too few sites are in; attempt {event.attempt} begins"
        case Aggregated():
            return f"aggregated, {_many(len(event.sites), 'site')} in {event.seconds:.1f} s"
        case BudgetEnded():
            return "training ends: too few sites have privacy budget left"
        case Evaluated():
            figures = ", ".join(f"{name} {value:.3f}" for name, value in event.figures.items()) or "nothing could be measured"
            return f"measured on the external patients{' (final model)' if event.final else ''}: {figures}"
        case Kept():
            return "finished"


def refusal(rule: str, reason: str) -> str:
    """By which rule an update is not there, and why."""
    if not rule:  # of an earlier version
        return reason
    return f"{rule}: {reason}" if rule in UNANSWERED else f"refused by {rule}: {reason}"


def round_line(line: Mapping[str, Any]) -> str:
    """A finished round on the console, with a line for each attempt of a site that came to nothing.

    Args:
        line: of rounds.jsonl.
    """
    sites, size = line.get("sites") or (), (line.get("bytes_up") or 0) + (line.get("bytes_down") or 0)
    parts = [f"Round {line.get('round')}: {_many(len(sites), 'site')}", f"{line.get('seconds') or 0:.1f} s", _megabytes(size)]
    if line.get("external_mcc") is not None:
        parts.append(f"external MCC {line['external_mcc']:.2f}")
    if (attempts := line.get("attempts") or 1) > 1:
        parts.append(f"{attempts} attempts")
    return "\n  ".join([", ".join(parts), *troubles(line)])


def troubles(line: Mapping[str, Any]) -> list[str]:
    """What went wrong at single sites in a finished round, one sentence each: attempts that were made again first.

    Args:
        line: of rounds.jsonl.
    """
    again = [f"attempt {each.get('attempt')}: {_trouble(each)}; asked again" for each in line.get("retried") or ()]
    rest = [f"{site} not asked" for site in line.get("paused") or ()]
    return [*again, *(_trouble(each) for each in line.get("failures") or ()), *rest]


def _trouble(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('site')}: {refusal(entry.get('rule', ''), entry.get('reason', ''))}"


def _attempt(number: int) -> str:
    return f", attempt {number}" if number > 1 else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
