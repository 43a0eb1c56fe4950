"""The plan of an import: a table that a person reads, corrects and hands back. One line a series."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.data.candidates import Candidate
from client.data.dicom.header import value
from client.data.dicom.modality import OTHER
from client.data.dicom.series import shown_matrix
from common.config.modalities import DEFAULT_MODALITIES
from common.data.gate.tables import table_text
from common.errors import DataError
from common.files import write_atomic
from common.text import printable

COLUMNS = (
    "use",
    "patient",
    "study",
    "modality",
    "confidence",
    "why",
    "description",
    "matrix",
    "spacing_mm",
    "slices",
    "files",
    "series",
)
EDITED = ("use", "modality")
_SHOWN = 10


@dataclass(frozen=True)
class Line:
    """What a plan's line decides; the other cells are for reading."""

    number: int
    series: str
    patient: str
    study: str
    modality: str


def write_plan(path: Path, listed: Sequence[Candidate]) -> None:
    """Write the table, tab-separated; nobody's edits are overwritten.

    Raises:
        DataError: there is a plan already.
    """
    if path.exists():
        raise DataError(f"{path}: there is a plan already. Use it with --go, or move it away to have a new one made.")
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(_row(candidate) for candidate in listed)
    write_atomic(path, text.getvalue().encode())


def _row(candidate: Candidate) -> tuple[str, ...]:
    decision, series = candidate.decision, candidate.series
    return (
        "yes" if candidate.use else "no",
        candidate.patient,
        str(candidate.study),
        decision.modality,
        f"{decision.confidence:.2f}",
        printable("; ".join((*candidate.reasons, *decision.reasons)), 500),
        printable(str(value(series.header, "SeriesDescription") or ""), 80),
        *shown_matrix(series),
        str(len(series.files)),
        series.id,
    )


def planned_patients(path: Path) -> set[str]:
    """The names in a plan, before its source is read.

    Raises:
        DataError: it cannot be read as a plan.
    """
    return {row["patient"].strip() for _, row in _rows(path) if row["patient"].strip()}


def read_plan(path: Path, listed: Sequence[Candidate]) -> list[tuple[Line, Candidate]]:
    """The lines that are to be used, each with its series.

    Args:
        path: as `write_plan` wrote it and a person corrected it.
        listed: what the source holds now.

    Raises:
        DataError: no such table, or any number of wrong lines, reported together by their numbers.
    """
    known = {candidate.series.id: candidate for candidate in listed}
    lines, problems, seen = [], [], set()
    for number, row in _rows(path):
        trouble = _wrong(row, known)
        if not trouble and row["series"] in seen:
            trouble = f"series {row['series']} stands in an earlier line too"
        seen.add(row["series"])
        if trouble:
            problems.append(f"line {number}: {trouble}")
        elif row["use"].strip().lower() == "yes":
            found = known[row["series"].strip()]
            lines.append((Line(number, found.series.id, found.patient, str(found.study), row["modality"].strip().lower()), found))
    problems += _clashes([line for line, _ in lines])
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{path.name}: {'; '.join(problems[:_SHOWN])}{more}. Correct the plan, or move it away to have a new one made."
        )
    return lines


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = table_text(path)
        delimiter = max("\t;,", key=text.partition("\n")[0].count)  # spreadsheets save what they like
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
        rows = [(reader.line_num, row) for row in reader if any(map(bool, row.values()))]
        header = reader.fieldnames or []
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    absent = [column for column in ("use", "modality", "series", "patient", "study") if column not in header]
    if absent:
        raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(absent)} is missing.")
    return rows


def _wrong(row: dict[str, str], known: dict[str, Candidate]) -> str:
    use, modality, series = (str(row[column]).strip() for column in ("use", "modality", "series"))
    if use.lower() not in ("yes", "no"):
        return f"use: expected yes or no, got {use!r}"
    if modality.lower() not in (*DEFAULT_MODALITIES, OTHER):
        return f"modality: expected {', '.join(DEFAULT_MODALITIES)} or {OTHER}, got {modality!r}"
    if series not in known:
        return f"series {series!r} is not in the source; was the line, or the source, changed?"
    if row["patient"].strip() != known[series].patient:
        return f"patient: the source says {known[series].patient}, the plan {row['patient'].strip()!r}"
    return _unusable(modality.lower(), known[series].series.problem) if use.lower() == "yes" else ""


def _unusable(modality: str, problem: str) -> str:
    if modality == OTHER:
        return f"use is yes, but the modality is {OTHER}: name one of {', '.join(DEFAULT_MODALITIES)}"
    return f"cannot be used: {problem}" if problem else ""


def _clashes(lines: Sequence[Line]) -> list[str]:
    """One study a patient, one series a modality."""
    twice = [key for key, count in Counter((line.patient, line.modality) for line in lines).items() if count > 1]
    clashes = [f"{patient}: {modality} is used more than once; leave one yes" for patient, modality in twice]
    studies: dict[str, set[str]] = {}
    for line in lines:
        studies.setdefault(line.patient, set()).add(line.study)
    return clashes + [
        f"{patient}: series of {len(numbers)} studies are used; sessions are never mixed"
        for patient, numbers in studies.items()
        if len(numbers) > 1
    ]
