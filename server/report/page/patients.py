"""The external patients, one by one: probabilities, prediction set, how strange the images are, modalities, picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.report.page.values import NOTHING, listed, names, real, table


@dataclass(frozen=True)
class Patient:
    """One external patient. `right` is None where the truth is unknown, `missed` says that the set lacks the truth."""

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


def read(report: Mapping[str, Any], pictures: Mapping[str, str]) -> tuple[Patient, ...]:
    """The patients of a report.

    Args:
        report: as `server.report.report.assemble` makes it.
        pictures: file name -> data URI, for those that may be shown.
    """
    classes = [str(name) for name in table(table(report["external"]).get("support"))]
    return tuple(_patient(table(entry), classes, pictures) for entry in listed(report["patients"]))


def _patient(entry: Mapping[str, Any], classes: Sequence[str], pictures: Mapping[str, str]) -> Patient:
    given = entry.get("probabilities")
    values = [real(value) for value in (given.values() if isinstance(given, Mapping) else listed(given))]
    called = list(names(given)) if isinstance(given, Mapping) else classes or [f"class {c}" for c in range(len(values))]
    pairs = tuple(zip(called, values, strict=False))
    guess = max(((name, value) for name, value in pairs if value is not None), key=lambda pair: pair[1], default=(None, 0.0))[0]
    label, inside, picture = _label(entry.get("label"), called), names(entry.get("prediction_set")), entry.get("picture")
    return Patient(
        id=str(entry.get("id", NOTHING)),
        truth=label,
        guess=guess,
        right=None if label is None or guess is None else label == guess,
        probabilities=pairs,
        modalities=", ".join(names(entry.get("modalities"))),
        set=inside,
        missed=bool(inside) and label is not None and label not in inside,
        flagged=table(entry.get("ood")).get("flagged") is True,
        picture=Markup(pictures[picture]) if isinstance(picture, str) and picture in pictures else None,
    )


def _label(label: Any, called: Sequence[str]) -> str | None:
    """The true class by name, whether it came as a name or as an index; None where it is not known."""
    if isinstance(label, bool) or not isinstance(label, int):
        return label if isinstance(label, str) else None
    return called[label] if 0 <= label < len(called) else None
