"""The confusion matrix, and the ROC curve of each class."""

from dataclasses import dataclass

from markupsafe import Markup

from server.report.decode import Measure
from server.report.evaluation import Evaluation
from server.report.page.chart import UNIT, Chart, Line, Point, draw
from server.report.page.values import number


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


def read_confusion(external: Evaluation) -> tuple[ClassRow, ...]:
    """One row a class; nothing where the matrix does not fit the classes."""
    rows = zip(external.support, external.confusion, strict=False)
    return tuple(ClassRow(name, sum(row), row[c], _auroc(external, name), row) for c, (name, row) in enumerate(rows))


def read_roc(external: Evaluation) -> tuple[Roc, ...]:
    """The curves that the report has; one with under two points is none."""
    found = external.roc.items()
    return tuple(Roc(name, _auroc(external, name), _drawn(points)) for name, points in found if len(points) > 1)


def _auroc(external: Evaluation, name: str) -> float | None:
    return external.auroc_of.get(name, Measure()).value


def _drawn(points: tuple[Point, ...]) -> Markup:
    found = max((tpr for fpr, tpr in points if fpr <= 0.1), default=0.0)
    label = f"ROC curve: {number(found)} of the patients with the class are found where 0.10 of the others are called wrongly"
    lines = (Line(((0.0, 0.0), (1.0, 1.0)), "guide"), Line(points))
    return draw(Chart(lines, UNIT, UNIT, label, "share of the others called wrongly", "share found"), height=230)
