"""The page, written patient by patient: pictures wait in a file beside it, so that memory does not grow with the site."""

import base64
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from client.review.picture import Row, draw_patient
from common.config.axes import how_shown, in_words
from common.config.run import RunConfig
from common.data.cases import Case
from common.data.check import SiteCheck
from common.data.gate.finding import Finding, Level
from common.data.gate.patient import Patient
from common.files import open_atomic

CLEAN = "clean"  # as a level: of a patient of whom nothing was found
LINKED = 5  # patients that the table of codes links to


@dataclass(frozen=True)
class _Drawn:
    """Where one patient's pictures wait."""

    patient: str
    start: int
    length: int


@dataclass(frozen=True)
class _Section:
    """One patient on the page."""

    patient: str
    number: int
    level: str  # the gravest of the findings, or `CLEAN`
    findings: tuple[Finding, ...]


@dataclass
class Page:
    """Draws patients as they come (`watch` of `check_site`), and writes the page once all findings are known."""

    run: RunConfig
    drawn: list[_Drawn] = field(default_factory=list)
    waiting: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.waiting.close()

    def add(self, case: Case, read: Patient | None) -> None:
        """Draw one patient."""
        pictures = draw_patient(case, read, self.run.data)
        tables = [vars(one) | {"drawn": _rows(one.rows), "whole": _rows([one.whole] if one.whole else [])} for one in pictures]
        content = _template("pictures.html").render(tables=tables).encode()
        self.drawn.append(_Drawn(case.id, self.waiting.tell(), self.waiting.write(content)))

    def write(self, path: Path, result: SiteCheck) -> None:
        """Write the page whole, or leave what was there."""
        sections = _sections(result, [one.patient for one in self.drawn])
        place = {one.patient: one for one in self.drawn}
        with open_atomic(path) as file:
            file.write(_template("head.html").render(**_head(result, sections, self.run)).encode())
            for section in sections:
                file.write(_template("patient.html").render(section=section).encode())
                self.waiting.seek(place[section.patient].start)
                file.write(self.waiting.read(place[section.patient].length))
                file.write(b"</article>\n")
            file.write(_template("foot.html").render().encode())


def _sections(result: SiteCheck, patients: list[str]) -> list[_Section]:
    """The gravest first, then in the order of the site."""
    order = [*(level.value for level in Level), CLEAN]
    by_patient: dict[str, list[Finding]] = {patient: [] for patient in patients}
    for one in result.findings:
        if one.patient in by_patient:
            by_patient[one.patient].append(one)
    levels = {patient: min((one.level.value for one in of), key=order.index, default=CLEAN) for patient, of in by_patient.items()}
    ranked = sorted(patients, key=lambda patient: order.index(levels[patient]))
    return [
        _Section(
            patient, number, levels[patient], tuple(sorted(by_patient[patient], key=lambda one: order.index(one.level.value)))
        )
        for number, patient in enumerate(ranked, start=1)
    ]


def _head(result: SiteCheck, sections: list[_Section], run: RunConfig) -> dict[str, Any]:
    numbers = {section.patient: section.number for section in sections}
    return {
        "result": result,
        "levels": {
            level: sum(section.level == level for section in sections) for level in (*(one.value for one in Level), CLEAN)
        },
        "codes": list(_codes(result, numbers)),
        "of_site": [one for one in result.findings if one.patient not in numbers],
        "modalities": run.data.modalities,
        "shown": how_shown(run.data),
        "fields": in_words(run.data),
    }


def _codes(result: SiteCheck, numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    """A row a code: its gravest level, counts, the first finding as an example, and where the first patients are."""
    for code, counts in result.codes.items():
        of = [one for one in result.findings if one.code == code]
        patients = list(dict.fromkeys(one.patient for one in of if one.patient in numbers))
        yield {
            "code": code,
            "level": next(level.value for level in Level if counts[level.value]),
            "findings": len(of),
            "patients": len(patients),
            "example": of[0].found,
            "links": [(patient, numbers[patient]) for patient in patients[:LINKED]],
            "more": max(0, len(patients) - LINKED),
        }


def _rows(rows: Iterable[Row]) -> list[dict[str, str]]:
    return [{"name": row.name.upper(), "why": row.why, "strip": _uri("webp", row.strip)} for row in rows]


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if content else ""


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["png"] = lambda content: _uri("png", content)
    return environment.get_template(name)
