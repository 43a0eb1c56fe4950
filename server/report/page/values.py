"""How the page prints what stands in report.json."""

from common.evaluation.wilson import wilson_interval
from server.report.decode import Measure

NOTHING = "\N{EN DASH}"  # what stands where there is no value
COUNT_AT_MOST = 2.0**53
PRINTABLE = 1e6  # above it decimals say nothing


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
