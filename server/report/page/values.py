"""What stands in report.json, read without trust, and how the page prints it.

A value of another kind than expected is nothing: an old, a foreign or a damaged report loses a line of its page, not the page.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.evaluation.wilson import wilson_interval

NOTHING = "\N{EN DASH}"  # what stands where there is no value
COUNT_AT_MOST = 2.0**53
PRINTABLE = 1e6  # above it decimals say nothing


@dataclass(frozen=True)
class Measure:
    """A value with its interval; None where not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def table(value: Any) -> Mapping[str, Any]:
    """The value if it is a table, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def real(value: Any) -> float | None:
    """The value if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """The value if it is a count: a whole number of 0 or more that a float holds exactly."""
    found = real(value)
    return int(found) if found is not None and 0 <= found <= COUNT_AT_MOST and found == int(found) else None


def names(value: Any) -> tuple[str, ...]:
    """The entries of a list, or the keys of a table, as text."""
    return tuple(str(item) for item in (value if isinstance(value, Mapping) else listed(value)))


def measure(entry: Any, interval: Any = None) -> Measure:
    """From {value, low, high}, or from a plain number and its interval."""
    if isinstance(entry, Mapping):
        return Measure(real(entry.get("value")), real(entry.get("low")), real(entry.get("high")))
    span = table(interval)
    return Measure(real(entry), real(span.get("low")), real(span.get("high")))


def wilson(part: int, of: int) -> Measure:
    """A share with its 95% interval."""
    return Measure(*wilson_interval(part, of))


def number(value: float | None, digits: int = 2) -> str:
    """A number for reading: two decimals, a true minus sign, a dash for None."""
    if value is None:
        return NOTHING
    if abs(value) >= PRINTABLE:
        return f"{value:.3g}"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")  # noqa: RUF001


def signed(value: float | None) -> str:
    """A difference: with a plus sign where it is above 0."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.00" else text


def percent(value: float | None) -> str:
    """A share of 1 as `93%`."""
    return NOTHING if value is None else f"{number(100 * value, 0)}%"


def interval_text(found: Measure) -> str:
    """`0.52 to 0.81`, or nothing."""
    return "" if found.low is None or found.high is None else f"{number(found.low)} to {number(found.high)}"


def measure_text(found: Measure) -> str:
    """`0.70 (0.52 to 0.81)`."""
    interval = interval_text(found)
    return f"{number(found.value)} ({interval})" if interval else number(found.value)


def difference_text(found: Measure) -> str:
    """`+0.12 (0.03 to 0.27)`."""
    interval = interval_text(found)
    return f"{signed(found.value)} ({interval})" if interval else signed(found.value)


def percent_text(found: Measure) -> str:
    """`92% (85% to 97%)`."""
    if found.low is None or found.high is None:
        return percent(found.value)
    return f"{percent(found.value)} ({percent(found.low)} to {percent(found.high)})"


def patients_text(n: int) -> str:
    """`1 patient`, `20 patients`."""
    return f"{n} {'patient' if n == 1 else 'patients'}"


def and_text(words: tuple[str, ...]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
