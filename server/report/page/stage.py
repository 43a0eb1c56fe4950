"""Which round is kept: what the sites' held-back patients say of each candidate, and the curve over the rounds."""

from dataclasses import dataclass

from markupsafe import Markup

from server.report.page.chart import UNIT, Chart, Line, draw, round_axis, value_axis
from server.report.page.values import and_text, patients_text
from server.report.stage import Candidate, Stage

RULE = (
    "Kept is the candidate with the smallest log-loss on patients held out inside the training hospitals, at its own best "
    "calibration, each class weighing the same; of equal ones the latest, then the simplest. The external "
    "patients had no part in it. It is the best of {many} by few patients, so its own loss flatters."
)


@dataclass(frozen=True)
class Section:
    """The section's content. `said` are its sentences."""

    said: tuple[str, ...]
    charts: tuple[tuple[str, Markup], ...]
    rows: tuple[Candidate, ...]
    kept: str
    failures: tuple[tuple[str, str], ...]


def read(found: Stage | None) -> Section | None:
    """The section; None where the last round was kept without a question."""
    if not found:
        return None
    return Section(_said(found), _charts(found), found.candidates, found.kept, found.failures)


def _said(found: Stage) -> tuple[str, ...]:
    kept = f"Kept: {found.kept} (evaluation.stage is {found.asked})."
    if found.why:
        return (kept, found.why)
    count = patients_text(found.patients) if found.patients is not None else "patients whose number a site keeps to itself"
    return (f"{kept} Asked were {and_text(found.sites)}, with {count}.", RULE.format(many=len(found.candidates)))


def _charts(found: Stage) -> tuple[tuple[str, Markup], ...]:
    """Over the candidates that are a round's."""
    rounds = sorted((each.round, each) for each in found.candidates if each.round is not None)
    numbers = [number for number, _ in rounds]
    losses = tuple((float(number), each.loss) for number, each in rounds if each.loss is not None)
    right = tuple((float(number), each.recall) for number, each in rounds if each.recall is not None)
    charts = []
    if len(losses) > 1:
        axis = value_axis([loss for _, loss in losses])
        chart = Chart((Line(losses, dots=True),), round_axis(numbers), axis, "held-out log-loss by round", "round", "log-loss")
        charts.append(("Log-loss of a held-out patient, calibrated", draw(chart, 180)))
    if len(right) > 1:
        chart = Chart((Line(right, dots=True),), round_axis(numbers), UNIT, "held-out recall by round", "round", "share right")
        charts.append(("Share right of each class, averaged, as the model answers before offsets", draw(chart, 180)))
    return tuple(charts)
