"""Uncertainty: conformal prediction sets, and abstention (leaving uncertain patients to a clinician)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.report.calibration import Conformal
from server.report.decode import Measure
from server.report.page.chart import UNIT, Chart, Line, draw, value_axis
from server.report.page.values import percent, percent_text

ALL = (
    "Every set holds all classes, the true one included: too few patients were held back to rule any class out. "
    "These sets say nothing of a patient."
)
FEWER = "Fewer sets contain the true class than nominal: these patients differ from those that the sets were calibrated on."
MORE = "More sets contain the true class than nominal: they are larger than they need be here."
AS_PROMISED = "The nominal coverage lies within the interval of the observed one."


@dataclass(frozen=True)
class Size:
    """How many patients have a set of so many classes."""

    classes: str
    n: int
    share: float


@dataclass(frozen=True)
class Sets:
    """Coverage, nominal and observed, and the sizes of the sets."""

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


def read_sets(found: Conformal | None) -> Sets | None:
    """The section; None where there are no sets."""
    if not found:
        return None
    total = sum(n or 0 for _, n in found.sizes)
    sizes = tuple(Size(classes, n, n / total) for classes, n in sorted(found.sizes, key=_by_size) if n and total)
    said = ALL if (found.threshold or 0.0) >= 1 else _kept(found.coverage, found.observed)
    return Sets(found.coverage, found.observed, found.mean_size, sizes, said)


def _by_size(pair: tuple[str, Any]) -> tuple[int, str]:
    return (int(pair[0]) if pair[0].isascii() and pair[0].isdigit() and len(pair[0]) < 9 else 10**9, pair[0])


def _kept(nominal: float | None, observed: Measure) -> str:
    """Whether the promise was kept."""
    if nominal is None or observed.low is None or observed.high is None:
        return ""
    if observed.high < nominal:
        return FEWER
    if observed.low > nominal:
        return MORE
    return AS_PROMISED


def read_abstention(points: Sequence[tuple[float, Measure]]) -> Abstention | None:
    """The curve, of at least two points."""
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
