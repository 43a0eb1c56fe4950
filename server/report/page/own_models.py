"""What each site has of its own, and by site the global model beside the personal one."""

from dataclasses import dataclass

from server.report.own_models import OneModel, OwnModels
from server.report.page.values import NOTHING, and_text, number

EXTERNAL = "All other sections are of the global model: the external hospital has nothing of its own."
RULE = (
    "Each site measured both on its own held-back patients, as the models answer before temperature and offsets. Where the "
    "personal model is better it is so for patients like that site's own; of few patients a difference says little."
)


@dataclass(frozen=True)
class Row:
    """One site; "global / personal" in the cells."""

    site: str
    patients: str
    loss: str
    recall: str
    right: str


@dataclass(frozen=True)
class Section:
    """The section's content. `said` are its sentences; `arrays` those that no site has sent."""

    said: tuple[str, ...]
    arrays: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[tuple[str, str], ...]


def read(found: OwnModels | None) -> Section | None:
    """The section; None where sites have nothing of their own."""
    if not found:
        return None
    rows = tuple(_row(*site) for site in found.sites)
    return Section((_said(found), EXTERNAL, *([found.why] if found.why else [RULE])), found.arrays, rows, found.failures)


def _said(found: OwnModels) -> str:
    if found.kept:
        return (
            f"Each site keeps these to itself from the first tuning round on: {and_text(found.kept)}. The global model has "
            "them as they were before."
        )
    return f"Each site trains a copy of its own beside the global model (Ditto, lambda {number(found.ditto_lambda, 3)})."


def _row(site: str, common: OneModel, own: OneModel) -> Row:
    return Row(
        site,
        NOTHING if common.patients is None else str(common.patients),
        f"{number(common.loss, 3)} / {number(own.loss, 3)}",
        f"{number(common.recall)} / {number(own.recall)}",
        "; ".join(
            f"{name} {_count(right)} / {_count(mine)} of {_count(of)}"
            for (name, right, of), (_, mine, _) in zip(common.classes, own.classes, strict=False)
        )
        or NOTHING,
    )


def _count(value: int | None) -> str:
    return NOTHING if value is None else str(value)
