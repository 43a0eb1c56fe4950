"""Values of report.json, read without trust.

A value of another kind than expected is nothing: an old, a foreign or a damaged report loses a line of its page, not the page.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COUNT_AT_MOST = 2.0**53


@dataclass(frozen=True)
class Measure:
    """A value with its interval; None where not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


NO_MEASURE = Measure()


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
