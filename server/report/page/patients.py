"""The external patients, one by one: probabilities, prediction set, out-of-distribution score, modalities, picture."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from server.report.page.values import NOTHING
from server.report.report import Patient, Report


@dataclass(frozen=True)
class Row:
    """One external patient. `right` is None where the true class is unknown, `missed` says that the set lacks it."""

    id: str
    truth: str | None
    guess: str | None
    right: bool | None
    probabilities: tuple[tuple[str, float | None], ...]
    modalities: str
    set: tuple[str, ...]
    missed: bool
    flagged: bool
    picture: Markup | None


def read(report: Report, pictures: Mapping[str, str]) -> tuple[Row, ...]:
    """The patients of a report.

    Args:
        report: the run's.
        pictures: file name -> data URI, for those that may be shown.
    """
    return tuple(_row(patient, pictures) for patient in report.patients)


def _row(patient: Patient, pictures: Mapping[str, str]) -> Row:
    truth, guess, inside = patient.truth, patient.predicted, patient.prediction_set
    return Row(
        id=NOTHING if patient.id is None else patient.id,
        truth=truth,
        guess=guess,
        right=None if truth is None or guess is None else truth == guess,
        probabilities=patient.probabilities,
        modalities=", ".join(patient.modalities),
        set=inside,
        missed=bool(inside) and truth is not None and truth not in inside,
        flagged=patient.flagged,
        picture=Markup(pictures[patient.picture]) if patient.picture and patient.picture in pictures else None,
    )
