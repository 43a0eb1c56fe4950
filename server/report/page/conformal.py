"""Answers that own up to doubt: conformal prediction sets, and what is won by leaving unsure patients to people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.report.page.chart import UNIT, Chart, Line, draw, value_axis
from server.report.page.values import Measure, listed, measure, percent, percent_text, real, table, whole

ALL = (
    "Every set holds all classes, and so the truth: too little was known, by too few patients held back, to rule any class out. "
    "These sets say nothing of a patient."
)


@dataclass(frozen=True)
class Size:
    """How many patients have a set of so many classes."""

    classes: str
    n: int
    share: float


@dataclass(frozen=True)
class Conformal:
    """Coverage, promised and seen, and how large the sets are."""

    nominal: float | None
    observed: Measure
    mean_size: float | None
    sizes: tuple[Size, ...]
    said: str


@dataclass(frozen=True)
class Abstention:
    """The curve of risk against coverage."""

    said: str
    drawing: Markup


def read_sets(entry: Mapping[str, Any]) -> Conformal | None:
    """From `calibration.conformal` of report.json."""
    if not entry:
        return None
    found = [(str(classes), whole(n)) for classes, n in table(entry.get("sizes")).items()]
    total = sum(n or 0 for _, n in found)
    sizes = tuple(Size(classes, n, n / total) for classes, n in sorted(found, key=_by_size) if n and total)
    nominal, observed = real(entry.get("coverage")), measure(entry.get("observed"))
    said = ALL if (real(entry.get("threshold")) or 0.0) >= 1 else _kept(nominal, observed)
    return Conformal(nominal, observed, real(entry.get("mean_size")), sizes, said)


def _by_size(pair: tuple[str, Any]) -> tuple[int, str]:
    return (int(pair[0]) if pair[0].isascii() and pair[0].isdigit() and len(pair[0]) < 9 else 10**9, pair[0])


def _kept(nominal: float | None, observed: Measure) -> str:
    """Whether the promise was kept."""
    if nominal is None or observed.low is None or observed.high is None:
        return ""
    if observed.high < nominal:
        return "Fewer sets hold the truth than promised: these patients differ from those that the sets were calibrated on."
    if observed.low > nominal:
        return "More sets hold the truth than promised: they are larger than they need be here."
    return "What was promised lies within the interval of what was seen."


def read_abstention(value: Any) -> Abstention | None:
    """From `calibration.abstention` of report.json: at least two points."""
    found = [_point(table(entry)) for entry in listed(value)]
    points = sorted((p for p in found if p is not None), key=lambda point: point[0])
    if len(points) < 2:
        return None
    line = tuple((coverage, risk.value or 0.0) for coverage, risk in points)
    band = tuple((c, r.low, r.high) for c, r in points if r.low is not None and r.high is not None)
    ends = [end for _, risk in points for end in (risk.value, risk.high) if end is not None]
    half = min(points, key=lambda point: abs(point[0] - 0.5))
    said = (
        f"Answering for every patient, the model is wrong in {percent_text(points[-1][1])}. Answering only for the surest "
        f"{percent(half[0])}, it is wrong in {percent_text(half[1])} of those."
    )
    label = f"Share of wrong answers against share of patients answered for. {said}"
    chart = Chart((Line(line, dots=True),), UNIT, value_axis(ends), label, "share of patients answered for", "share wrong", band)
    return Abstention(said, draw(chart))


def _point(entry: Mapping[str, Any]) -> tuple[float, Measure] | None:
    coverage, risk = real(entry.get("coverage")), real(entry.get("risk"))
    return None if coverage is None or risk is None else (coverage, measure(risk, entry))
