"""A chart of lines, with numbers on both axes: ROC, reliability, risk against coverage, rounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from server.report.page.svg import Axis, circle, figure, line, markup, short, text

HEIGHT = 200  # pixels
TOP, BOTTOM, SIDE = 8, 24, 2.0  # pixels, pixels, per cent
ROUND_TICKS = 6
DOTS_AT_MOST = 60
COUNTS = 52  # pixels
FAR = 1e12  # beyond it nothing is drawn to scale

UNIT = Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))

Point = tuple[float, float]
Span = tuple[float, float, float]  # x, low, high


@dataclass(frozen=True)
class Line:
    """One line of a chart. `kind`: `own` (the result), `other`, or `guide` (dashed: what perfect or chance looks like)."""

    points: tuple[Point, ...]
    kind: str = "own"
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """What is drawn. `spans` are upright whiskers, `band` is a shaded interval."""

    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    label: str  # for screen readers
    along: str  # what the x axis is
    up: str  # what the y axis is
    band: tuple[Span, ...] = ()
    spans: tuple[Span, ...] = ()


def draw(chart: Chart, height: int = HEIGHT) -> Markup:
    """The chart with its axes' names, as wide as there is room."""
    root = ET.Element("div", {"class": "chart"})
    ET.SubElement(root, "span", {"class": "up"}).text = f"↑ {chart.up}"
    beside = figure(height, "")
    for tick in chart.y.ticks:
        text(beside, "100%", _down(chart, tick, height) + 4, short(tick), "tick", "end")
    body = ET.SubElement(root, "div", {"class": "curve"})
    body.extend([beside, _plot(chart, height)])
    ET.SubElement(root, "span", {"class": "along"}).text = f"{chart.along} →"
    return markup(root)


def counts(values: Sequence[tuple[float, int]], x: Axis) -> Markup:
    """Bars with their numbers, to stand under a chart with the same x axis: (place, count)."""
    most, width = max((n for _, n in values), default=1) or 1, 76 / max(len(values), 1)
    root, beside, drawing = ET.Element("div", {"class": "curve"}), figure(COUNTS, ""), figure(COUNTS, "")
    text(beside, "100%", COUNTS - 4, "n", "tick", "end")
    for place, n in values:
        tall, middle = 34 * n / most, _percent(x, place)
        where = {"x": f"{middle - width / 2:.2f}%", "width": f"{width:.2f}%"}
        ET.SubElement(drawing, "rect", {**where, "y": f"{COUNTS - tall:.1f}", "height": f"{tall:.1f}", "class": "bar"})
        if n:
            text(drawing, f"{middle:.2f}%", COUNTS - tall - 3, str(n), "tick small", "middle")
    root.extend([beside, drawing])
    return markup(root)


def round_axis(numbers: Sequence[int]) -> Axis:
    """An axis of round numbers, with few of them printed, the last always."""
    first, last = min(numbers), max(numbers)
    step = max(1, math.ceil((last - first) / (ROUND_TICKS - 1)))
    if last == first:
        return Axis(first - 1.0, first + 1.0, (float(first),))
    return Axis(float(first), float(last), tuple(float(r) for r in range(last, first - 1, -step)))


def value_axis(values: Sequence[float]) -> Axis:
    """An axis that holds 0 and all values, with few round numbers on it."""
    inside = [min(max(value, -FAR), FAR) for value in values]
    low, high = min([0.0, *inside]), max([0.0, *inside])
    rough = max(high - low, 1e-6) / 3
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next((s * scale for s in (1, 2, 5) if s * scale >= rough), 10 * scale)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return Axis(first * step, last * step, tuple(k * step for k in range(first, last + 1)))


def _plot(chart: Chart, height: int) -> ET.Element:
    root = figure(height, chart.label)
    for tick in chart.y.ticks:
        down = _down(chart, tick, height)
        line(root, "0%", down, "100%", down, "zero" if tick == 0 else "grid")
    for tick in chart.x.ticks:
        text(root, _across(chart, tick), height - 6, short(tick), "tick", "middle")
    _frame(root, chart, height)
    for x, low, high in chart.spans:
        line(root, _across(chart, x), _down(chart, low, height), _across(chart, x), _down(chart, high, height), "mark thin")
    for each in chart.lines:
        if (each.dots and len(each.points) <= DOTS_AT_MOST) or len(each.points) == 1:
            for x, y in each.points:
                circle(root, _across(chart, x), _down(chart, y, height), 3.5, f"mark {each.kind}")
    return root


def _frame(root: ET.Element, chart: Chart, height: int) -> None:
    """The lines, in a drawing of their own that stretches: 100 units wide and high."""
    place = {"y": str(TOP), "width": "100%", "height": str(height - TOP - BOTTOM)}
    frame = ET.SubElement(root, "svg", {**place, "viewBox": "0 0 100 100", "preserveAspectRatio": "none"})

    def points(of: Sequence[Point]) -> str:
        return " ".join(f"{_percent(chart.x, x):.2f},{100 * (1 - chart.y.share(y)):.2f}" for x, y in of)

    if chart.band:
        edge = [(x, high) for x, _, high in chart.band] + [(x, low) for x, low, _ in reversed(chart.band)]
        ET.SubElement(frame, "polygon", {"points": points(edge), "class": "band"})
    for each in chart.lines:
        if len(each.points) > 1:
            kind = {"class": f"line {each.kind}", "vector-effect": "non-scaling-stroke"}
            ET.SubElement(frame, "polyline", {"points": points(each.points), **kind})


def _percent(x: Axis, value: float) -> float:
    return SIDE + (100 - 2 * SIDE) * x.share(value)


def _across(chart: Chart, value: float) -> str:
    return f"{_percent(chart.x, value):.2f}%"


def _down(chart: Chart, value: float, height: int) -> float:
    return round(TOP + (height - TOP - BOTTOM) * (1 - chart.y.share(value)), 1)
