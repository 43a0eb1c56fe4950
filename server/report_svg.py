"""Inline drawings for the page, without a viewBox: places across are per cent, so text keeps its size at any width."""

import math
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

from markupsafe import Markup

from server.report_view import Measure, RoundRow, interval_text, number

CURVE_HEIGHT = 170  # pixels
TICKS_AT_MOST = 6


def scale_start(measures: Sequence[Measure]) -> float:
    """Where an MCC axis that ends at 1 begins: 0, or the quarter below the lowest end of an interval."""
    ends = [end for measure in measures for end in (measure.value, measure.low) if end is not None]
    return max(-1.0, math.floor(min([0.0, *ends]) * 4) / 4)


def interval_bar(measure: Measure, start: float, federated: bool) -> Markup:
    """One line of the forest plot: the interval as a whisker, the value as a dot, on an axis from `start` to 1."""
    root = _figure(24, f"MCC {number(measure.value)} {interval_text(measure)}".strip())
    if measure.value is None:
        _text(root, "0%", 16, "not defined", "tick", "start")
        return _markup(root)
    for tick in _ticks(start):
        _line(root, _across(tick, start), 0, _across(tick, start), 24, "zero" if tick == 0 else "grid")
    kind = "mark own" if federated else "mark"
    if measure.low is not None and measure.high is not None:
        low, high = _across(measure.low, start), _across(measure.high, start)
        _line(root, low, 12, high, 12, kind)
        for end in (low, high):
            _line(root, end, 8, end, 16, kind)
    dot = {"cx": _across(measure.value, start), "cy": "12", "r": "5.5" if federated else "4.5", "class": kind}
    ET.SubElement(root, "circle", dot)
    return _markup(root)


def interval_axis(start: float) -> Markup:
    """The numbers under the forest plot."""
    root = _figure(18, "")
    for tick in _ticks(start):
        _text(root, _across(tick, start), 13, f"{number(tick, 2).rstrip('0').rstrip('.')}", "tick", "middle")
    return _markup(root)


def curve_labels(rounds: Sequence[RoundRow]) -> Markup:
    """The numbers beside `curve`, in a narrow drawing of their own."""
    start = scale_start([Measure(row.mcc) for row in rounds])
    root = _figure(CURVE_HEIGHT, "")
    for tick in _ticks(start):
        _text(root, "100%", _down(tick, start) + 4, number(tick, 2).rstrip("0").rstrip("."), "tick", "end")
    return _markup(root)


def curve(rounds: Sequence[RoundRow]) -> Markup:
    """External MCC by round."""
    seen = [(row.number, row.mcc) for row in rounds if row.mcc is not None]
    start = scale_start([Measure(row.mcc) for row in rounds])
    first, last = min(r for r, _ in seen), max(r for r, _ in seen)
    root = _figure(
        CURVE_HEIGHT, f"External MCC from {number(seen[0][1])} in round {first} to {number(seen[-1][1])} in round {last}"
    )

    def place(number_: int) -> str:
        return f"{2 + 96 * (number_ - first) / (last - first) if last > first else 50:.2f}%"

    for tick in _ticks(start):
        _line(root, "0%", _down(tick, start), "100%", _down(tick, start), "zero" if tick == 0 else "grid")
    for (r0, v0), (r1, v1) in pairwise(seen):
        _line(root, place(r0), _down(v0, start), place(r1), _down(v1, start), "mark own")
    for r, v in seen if len(seen) <= 60 else seen[-1:]:
        ET.SubElement(root, "circle", {"cx": place(r), "cy": f"{_down(v, start):.1f}", "r": "3", "class": "mark own"})
    step = max(1, math.ceil((last - first) / (TICKS_AT_MOST - 1)))
    for r in range(last, first - 1, -step):
        _text(root, place(r), CURVE_HEIGHT - 4, str(r), "tick", "middle")
    return _markup(root)


def share_bar(value: float | None) -> Markup:
    """A probability as a filled strip."""
    root = _figure(8, "")
    ET.SubElement(root, "rect", {"width": "100%", "height": "8", "rx": "4", "class": "track"})
    ET.SubElement(root, "rect", {"width": f"{100 * min(max(value or 0, 0), 1):.1f}%", "height": "8", "rx": "4", "class": "fill"})
    return _markup(root)


def _ticks(start: float) -> list[float]:
    """Every quarter from `start` to 1, every half where that would crowd."""
    step = 0.25 if start >= -0.25 else 0.5
    return [t for t in (-1 + step * i for i in range(round(2 / step) + 1)) if t >= start]


def _across(value: float, start: float) -> str:
    return f"{100 * (min(max(value, start), 1) - start) / (1 - start):.2f}%"


def _down(value: float, start: float) -> float:
    return 8 + (CURVE_HEIGHT - 36) * (1 - (min(max(value, start), 1) - start) / (1 - start))


def _figure(height: int, label: str) -> ET.Element:
    """An empty drawing; without a label it is hidden from screen readers, since the table says the same."""
    spoken = {"role": "img", "aria-label": label} if label else {"aria-hidden": "true"}
    return ET.Element("svg", {"width": "100%", "height": str(height), **spoken})


def _line(root: ET.Element, x1: str, y1: float, x2: str, y2: float, kind: str) -> None:
    ET.SubElement(root, "line", {"x1": x1, "y1": f"{y1:g}", "x2": x2, "y2": f"{y2:g}", "class": kind})


def _text(root: ET.Element, x: str, y: float, text: str, kind: str, anchor: str) -> None:
    ET.SubElement(root, "text", {"x": x, "y": f"{y:g}", "class": kind, "text-anchor": anchor}).text = text


def _markup(root: ET.Element) -> Markup:
    return Markup(ET.tostring(root, encoding="unicode"))  # ElementTree has escaped it
