"""Inline drawings for the page, without a viewBox: places across are per cent, so text keeps its size at any width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from markupsafe import Markup

from server.report.decode import Measure
from server.report.page.values import interval_text, number

ROW = 24  # pixels


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with the numbers printed on it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """The position of a value, from 0 to 1; a value outside is put at the edge."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def across(self, value: float) -> str:
        """The same in per cent of a drawing's width."""
        return f"{100 * self.share(value):.2f}%"


def mcc_axis(measures: Sequence[Measure]) -> Axis:
    """From 0, or from the quarter below the lowest end of an interval, to 1."""
    start = max(-1.0, math.floor(min([0.0, *_ends(measures)]) * 4) / 4)
    step = 0.25 if start >= -0.25 else 0.5
    return Axis(start, 1.0, tuple(t for t in (-1 + step * i for i in range(round(2 / step) + 1)) if t >= start))


def difference_axis(measures: Sequence[Measure]) -> Axis:
    """As far to the left of 0 as to the right."""
    reach = max((abs(end) for end in _ends(measures)), default=0.0)
    edge = next((e for e in (0.1, 0.2, 0.5, 1.0) if reach <= e), 2.0)
    return Axis(-edge, edge, (-edge, -edge / 2, 0.0, edge / 2, edge))


def _ends(measures: Sequence[Measure]) -> list[float]:
    return [end for m in measures for end in (m.value, m.low, m.high) if end is not None]


def interval_bar(measure: Measure, axis: Axis, own: bool, what: str = "MCC") -> Markup:
    """One line of a forest plot: the interval as a whisker, the value as a dot."""
    root = figure(ROW, f"{what} {number(measure.value)} {interval_text(measure)}".strip())
    if measure.value is None:
        text(root, "0%", 16, "not defined", "tick", "start")
        return markup(root)
    for tick in axis.ticks:
        line(root, axis.across(tick), 0, axis.across(tick), ROW, "zero" if tick == 0 else "grid")
    kind = "mark own" if own else "mark"
    if measure.low is not None and measure.high is not None:
        low, high = axis.across(measure.low), axis.across(measure.high)
        line(root, low, 12, high, 12, kind)
        for end in (low, high):
            line(root, end, 8, end, 16, kind)
    circle(root, axis.across(measure.value), 12, 5.5 if own else 4.5, kind)
    return markup(root)


def interval_axis(axis: Axis) -> Markup:
    """The numbers under a forest plot."""
    root = figure(18, "")
    for tick in axis.ticks:
        text(root, axis.across(tick), 13, short(tick), "tick", "middle")
    return markup(root)


def share_bar(value: float | None, mark: float | None = None) -> Markup:
    """A share of 1 as a filled strip, with an upright line at `mark`."""
    root = figure(8, "")
    ET.SubElement(root, "rect", {"width": "100%", "height": "8", "rx": "4", "class": "track"})
    ET.SubElement(root, "rect", {"width": _percent(value or 0), "height": "8", "rx": "4", "class": "fill"})
    if mark is not None:
        line(root, _percent(mark), -4, _percent(mark), 12, "goal")
    return markup(root)


def _percent(value: float) -> str:
    return f"{100 * min(max(value, 0), 1):.1f}%"


def short(value: float) -> str:
    """A tick's number without idle zeros."""
    return f"{round(value, 6) + 0.0:g}".replace("-", "−")  # noqa: RUF001


def figure(height: int, label: str) -> ET.Element:
    """An empty drawing; without a label it is hidden from screen readers, since the page says the same in words."""
    spoken = {"role": "img", "aria-label": label} if label else {"aria-hidden": "true"}
    return ET.Element("svg", {"width": "100%", "height": str(height), **spoken})


def line(root: ET.Element, x1: str, y1: float, x2: str, y2: float, kind: str) -> None:
    """A straight line."""
    ET.SubElement(root, "line", {"x1": x1, "y1": f"{y1:g}", "x2": x2, "y2": f"{y2:g}", "class": kind})


def circle(root: ET.Element, x: str, y: float, radius: float, kind: str) -> None:
    """A dot."""
    ET.SubElement(root, "circle", {"cx": x, "cy": f"{y:g}", "r": f"{radius:g}", "class": kind})


def text(root: ET.Element, x: str, y: float, words: str, kind: str, anchor: str) -> None:
    """Words, whose `anchor` (start, middle, end) stands at x."""
    ET.SubElement(root, "text", {"x": x, "y": f"{y:g}", "class": kind, "text-anchor": anchor}).text = words


def markup(root: ET.Element) -> Markup:
    """The drawing as text that the page takes as it is: ElementTree has escaped it."""
    return Markup(ET.tostring(root, encoding="unicode"))
