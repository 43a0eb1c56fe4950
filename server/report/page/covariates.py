"""Clinical covariates: the model told what is known of the patients, and told nothing."""

from dataclasses import dataclass

from server.report.evaluation import Evaluation
from server.report.page.values import and_text
from server.report.report import Covariates


@dataclass(frozen=True)
class Row:
    """One of the two."""

    name: str
    found: Evaluation


@dataclass(frozen=True)
class Section:
    """Both rows, and how many patients anything is known of."""

    names: str
    said: str
    rows: tuple[Row, ...]


def read(found: Covariates | None) -> Section | None:
    """The section, or None where the run takes no covariates."""
    if found is None:
        return None
    known = and_text(tuple(f"{name} of {count}" for name, count in found.known.items()))
    said = f"Of {found.of if found.of is not None else 'the'} external patients, known are {known}."
    return Section(and_text(tuple(found.known)), said, (Row("with", found.told), Row("without", found.untold)))
