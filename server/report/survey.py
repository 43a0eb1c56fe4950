"""A survey for people: one page, and a table for the terminal. Counts mean "at least"."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from common.errors import FedMRIError
from common.files import write_atomic
from server.report.page.page import template

HTML_NAME = "survey.html"
TITLES = {
    "modalities": "Patients by modalities",
    "classes": "Patients by class",
    "ages": "Patients by age",
    "spacing": "Patients by slice distance",
    "scanner": "Patients by grid: voxels and matrix",
    "findings": "Patients by finding of the data gate",
}


@dataclass(frozen=True)
class Row:
    """One group: a cell for each hospital, and their sum."""

    name: str
    cells: tuple[str, ...]
    total: str


@dataclass(frozen=True)
class Section:
    """One topic."""

    title: str
    rows: tuple[Row, ...]


def sections(survey: Mapping[str, Any]) -> list[Section]:
    """The topics that anybody tells of, without groups that nobody has."""
    found = []
    for topic, title in TITLES.items():
        told = {name: site["topics"].get(topic) for name, site in survey["sites"].items()}
        groups = survey["total"]["topics"].get(topic, {})
        names = [group for group, count in groups.items() if count]
        if names:
            rows = (Row(group, tuple(_cell(survey, n, t, group) for n, t in told.items()), f"{groups[group]}") for group in names)
            found.append(Section(title, tuple(rows)))
    return found


def patients_row(survey: Mapping[str, Any]) -> Row:
    """How many each has."""
    cells = tuple(_count(site["patients"], site["least"]) for site in survey["sites"].values())
    return Row("Patients", cells, f"{survey['total']['patients']}")


def landmarks(survey: Mapping[str, Any]) -> list[Row]:
    """Median intensities by modality: 5th, 50th and 95th percentile of what is not air."""
    names = sorted({name for site in survey["sites"].values() for name in site["landmarks"]})
    told = [site["landmarks"] for site in survey["sites"].values()]
    return [Row(n, tuple(" / ".join(f"{v:g}" for v in each[n]) if n in each else "" for each in told), "") for n in names]


def write_survey_page(out: Path, survey: Mapping[str, Any]) -> Path:
    """Write OUT/survey.html.

    Raises:
        FedMRIError: it cannot be written.
    """
    page = out / HTML_NAME
    try:
        write_atomic(page, render_survey(survey).encode("utf-8"))
    except OSError as error:
        raise FedMRIError(f"{page} could not be written ({error.strerror or error}).") from error
    return page


def render_survey(survey: Mapping[str, Any]) -> str:
    """One self-contained page."""
    return template("survey.html").render(
        title="Survey of the hospitals",
        sites=list(survey["sites"]),
        patients=patients_row(survey),
        sections=sections(survey),
        landmarks=landmarks(survey),
        failures=list(survey["failures"].items()),
        least=sorted({site["least"] for site in survey["sites"].values()}),
    )


def survey_table(survey: Mapping[str, Any]) -> Table:
    """The same for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, title=Text("Patients, at least", style="bold"), title_justify="left", pad_edge=False)
    table.add_column("", overflow="fold")
    for name in (*survey["sites"], "all"):
        table.add_column(Text(name), justify="right")
    _add(table, patients_row(survey))
    for section in sections(survey):
        table.add_section()
        table.add_row(Text(section.title, style="bold"))
        for row in section.rows:
            _add(table, row)
    return table


def _add(table: Table, row: Row) -> None:
    table.add_row(*(Text(cell) for cell in (row.name, *row.cells, row.total)))


def _cell(survey: Mapping[str, Any], site: str, told: Mapping[str, int] | None, group: str) -> str:
    """A count; nothing where the hospital does not tell of the topic."""
    return "" if told is None else _count(told.get(group, 0), survey["sites"][site]["least"])


def _count(count: int, least: int) -> str:
    """Told counts are steps of the minimum; what is under it may be anything under it."""
    return f"{count}" if count or least == 1 else f"< {least}"
