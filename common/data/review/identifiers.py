"""What may tell who a patient is, in names, headers and tables: names, dates, long numbers, DICOM's own fields.

Patterns find what looks like an identifier; they prove nothing, and a name that looks like any other word is not found. What is
found is never repeated whole: a finding may be printed, mailed or shown on a projector.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.data.gate.finding import Finding, Kind, Level

HEADER = Kind("identifier-header", Level.WARNING, "a header that may tell who the patient is")
NAME = Kind("identifier-name", Level.WARNING, "a name of a folder or file that may tell who the patient is")
COLUMN = Kind("identifier-column", Level.WARNING, "a column of the table that may tell who the patients are")
KINDS = (HEADER, NAME, COLUMN)
SHOWN = 2  # leading characters of a value that a finding shows
OLDEST = 89  # years; HIPAA's safe harbour (45 CFR 164.514(b)(2)) counts greater ages among the identifiers
TEXT_FIELDS = ("descrip", "aux_file", "db_name", "intent_name")
EXTENSIONS = {2: "DICOM", 4: "AFNI", 6: "comment", 18: "PyPickle", 44: "dcm2niix"}

_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_PATTERNS = {
    "a person's name": re.compile(r"[^\W\d_]{2,}\^[^\W\d_]{2,}|\b[^\W\d_]{2,}, ?[^\W\d_]{2,}\b"),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),
    "a date": re.compile(
        rf"(?<!\d)(?:{_YEAR}{_MONTH}{_DAY}|{_YEAR}[-./_]{_MONTH}[-./_]{_DAY}|{_DAY}[-./_]{_MONTH}[-./_]{_YEAR}"
        rf"|{_MONTH}[-./_]{_DAY}[-./_]{_YEAR})(?!\d)"
    ),
    "a DICOM unique identifier": re.compile(r"(?<![\d.])[0-2](?:\.\d+){6,}(?![\d.])"),
    "a number as of a medical record": re.compile(r"(?<![\d.])\d{7,}(?![\d.])"),
    "an accession or record number": re.compile(
        r"(?i)(?<![a-z])(?:acc(?:ession)?|mrn|pid|ssn|nhs)[-_:# ]*(?:no|nr)?[-_:.# ]*\d{4,}"
    ),
}
_TELLING = re.compile(  # the whole heading, in the languages of hospitals that asked
    r"(?i)(?:(?:patient|participant|subject)[_ ]?s?[_ ]?)?"
    r"(?:(?:first|last|given|family|sur|full|middle|maiden)?[_ ]?name|vorname|nachname|nom|prenom|nombre|apellidos?|"
    r"birth(?:[_ ]?(?:date|day))?|date[_ ]?of[_ ]?birth|dob|geburtsdatum|geburtstag|"
    r"address|adresse|street|strasse|city|zip(?:[_ ]?code)?|post(?:al)?[_ ]?code|plz|"
    r"phone|telephone|telefon|mobile|fax|e[-_ ]?mail|"
    r"mrn|medical[_ ]?record(?:[_ ]?(?:number|no))?|accession(?:[_ ]?(?:number|no))?|patient[_ ]?id|ssn|"
    r"nhs(?:[_ ]?number)?|insurance(?:[_ ]?(?:number|no))?|(?:referring[_ ]?)?physician)"
)
# DICOM elements (group, element) that name a person, as an extension of a NIfTI file holds them: little-endian, implicit or
# explicit.
_DICOM = {
    b"\x10\x00\x10\x00": "PatientName",
    b"\x10\x00\x20\x00": "PatientID",
    b"\x10\x00\x30\x00": "PatientBirthDate",
    b"\x10\x00\x40\x10": "PatientAddress",
    b"\x08\x00\x50\x00": "AccessionNumber",
}


@dataclass(frozen=True)
class Trace:
    """One thing that looks like an identifier: what kind, and as much of it as may be shown."""

    kind: str
    shown: str


def masked(value: str) -> str:
    """The first letters, and how much more there is."""
    value = " ".join(value.split())
    return f"{value[:SHOWN]}\N{HORIZONTAL ELLIPSIS} ({len(value)} characters)"


def traces(text: str) -> tuple[Trace, ...]:
    """What in a text looks like an identifier, each place once: a date is not told again as a long number."""
    found, rest = [], text
    for kind, pattern in _PATTERNS.items():
        for match in pattern.finditer(rest):
            found.append(Trace(kind, masked(match.group())))
        rest = pattern.sub(lambda match: " " * len(match.group()), rest)
    return tuple(found)


def header_findings(patient: str, file: str, header: Any) -> tuple[Finding, ...]:
    """What a NIfTI header tells of the patient, in its text fields and extensions.

    Args:
        patient: whose file it is.
        file: relative to the data folder.
        header: nibabel's Nifti1Header or Nifti2Header; another format's has no such fields.
    """
    places = [*_fields(header), *_extensions(header)]
    found = []
    for place, trace in dict.fromkeys(places):
        do = f"Empty {place}, for example with nibabel, or convert the file anew with anonymisation on (dcm2niix -ba y)."
        told = f"the header's {place} holds {trace.kind}: {trace.shown}"
        found.append(HEADER.finding(told, "a header without personal data", do).of(patient, file))
    return tuple(found)


def name_findings(patient: str, files: Iterable[str]) -> tuple[Finding, ...]:
    """What the names of a patient's folder and files tell.

    Args:
        patient: name of the folder, which is the patient's id.
        files: relative to the data folder.
    """
    found = dict.fromkeys(traces(patient), "")
    for file in files:
        for trace in traces(file.replace(patient, " ")):  # the id was looked at once
            found.setdefault(trace, file)
    do = "Rename by a pseudonym, and keep the list that links both outside of this folder."
    return tuple(
        NAME.finding(
            f"the {'path' if file else 'folder'}'s name holds {trace.kind}: {trace.shown}",
            "a pseudonym that tells nothing of the patient",
            do,
            level=Level.NOTE if trace.kind == "a date" and file else None,
        ).of(patient, file)
        for trace, file in found.items()
    )


def column_findings(table: str, rows: Sequence[Mapping[str, str]]) -> tuple[Finding, ...]:
    """Columns of the participants' table that name people, by their heading or by what they hold, and ages over 89.

    Args:
        table: the file's name.
        rows: cells by column.
    """
    found = []
    for column in rows[0] if rows else ():
        cells = [row.get(column) or "" for row in rows]
        trace = _telling_cell(column, cells)
        if trace:
            told = f"the column {column} holds {trace.kind}: {trace.shown}"
            advice = "Delete the column: training reads ids, labels and the run's covariates alone."
            found.append(COLUMN.finding(told, "no personal data", advice, file=table))
        if column.lower() == "age" and any(_years(cell) > OLDEST for cell in cells):
            told = f"{sum(_years(cell) > OLDEST for cell in cells)} ages over {OLDEST} years"
            found.append(COLUMN.finding(told, f"{OLDEST}+ for them", f"Write {OLDEST}+.", file=table, level=Level.NOTE))
    return tuple(found)


def _telling_cell(column: str, cells: Sequence[str]) -> Trace | None:
    filled = [cell for cell in cells if cell.strip() and cell.strip().lower() not in ("n/a", "-")]
    if filled and column != "participant_id" and _TELLING.fullmatch(column.strip()):
        return Trace("what its heading says", masked(filled[0]))
    return next((trace for cell in filled for trace in traces(cell)), None) if column != "participant_id" else None


def _years(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return 0.0


def _fields(header: Any) -> Iterator[tuple[str, Trace]]:
    for name in TEXT_FIELDS:
        if name in getattr(header, "keys", tuple)():
            text = bytes(header[name].tobytes()).split(b"\0")[0].decode("latin-1")
            for trace in traces(_without_times(text)):
                yield name, trace


def _extensions(header: Any) -> Iterator[tuple[str, Trace]]:
    for extension in getattr(header, "extensions", ()):
        code, raw = extension.get_code(), bytes(extension.content)
        place = f"extension {code}" + (f" ({EXTENSIONS[code]})" if code in EXTENSIONS else "")
        for name, value in _dicom_elements(raw) if code == 2 else ():
            yield place, Trace(f"DICOM's {name}", masked(value))
        if code != 2:
            for trace in traces(raw.decode("utf-8", "replace")):
                yield place, trace


def _dicom_elements(raw: bytes) -> Iterator[tuple[str, str]]:
    """Elements that name a person, by their tags' bytes: the whole data set need not be understood."""
    for tag, name in _DICOM.items():
        at = raw.find(tag)
        if at >= 0:
            explicit = raw[at + 4 : at + 6].isalpha()
            length = int.from_bytes(raw[at + 6 : at + 8] if explicit else raw[at + 4 : at + 8], "little")
            value = raw[at + 8 : at + 8 + length].decode("latin-1").strip(" \0")
            if value and length < 512:
                yield name, value


def _without_times(text: str) -> str:
    """A header's text less what dcm2niix writes into it: the time of day, echo time and phase."""
    return re.sub(r"(?i)\b(?:time|te|tr|ti|phase|mb|dt)=[-\d.]+;?", " ", text)
