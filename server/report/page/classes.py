"""Which class was taken for which, and the ROC curve of each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.report.page.chart import UNIT, Chart, Line, Point, draw
from server.report.page.values import listed, number, real, table, whole


@dataclass(frozen=True)
class ClassRow:
    """How one class fared. `guesses` are the predicted classes' counts, in the order of the classes."""

    name: str
    support: int
    right: int
    auroc: float | None
    guesses: tuple[int, ...]


@dataclass(frozen=True)
class Roc:
    """One class's curve, drawn."""

    name: str
    auroc: float | None
    drawing: Markup


def read_confusion(external: Mapping[str, Any]) -> tuple[ClassRow, ...]:
    """One row a class; nothing where the matrix does not fit the classes."""
    names = list(table(external.get("support")))
    aurocs = table(table(external.get("auroc")).get("per_class"))
    rows = [tuple(whole(count) or 0 for count in listed(counts)) for counts in listed(external.get("confusion"))]
    if len(rows) != len(names) or any(len(row) != len(names) for row in rows):
        return ()
    return tuple(ClassRow(name, sum(rows[c]), rows[c][c], real(aurocs.get(name)), rows[c]) for c, name in enumerate(names))


def read_roc(external: Mapping[str, Any]) -> tuple[Roc, ...]:
    """The curves that the report has; one with under two points is none."""
    aurocs = table(table(external.get("auroc")).get("per_class"))
    found = ((name, _curve(table(entry))) for name, entry in table(external.get("roc")).items())
    return tuple(Roc(name, real(aurocs.get(name)), _drawn(points)) for name, points in found if len(points) > 1)


def _curve(entry: Mapping[str, Any]) -> tuple[Point, ...]:
    pairs = zip(listed(entry.get("fpr")), listed(entry.get("tpr")), strict=False)
    numbers = ((real(fpr), real(tpr)) for fpr, tpr in pairs)
    return tuple((fpr, tpr) for fpr, tpr in numbers if fpr is not None and tpr is not None)


def _drawn(points: tuple[Point, ...]) -> Markup:
    found = max((tpr for fpr, tpr in points if fpr <= 0.1), default=0.0)
    label = f"ROC curve: {number(found)} of the patients with the class are found where 0.10 of the others are called wrongly"
    lines = (Line(((0.0, 0.0), (1.0, 1.0)), "guide"), Line(points))
    return draw(Chart(lines, UNIT, UNIT, label, "share of the others called wrongly", "share found"), height=230)
