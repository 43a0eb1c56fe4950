"""The site's table, beside its patients: opened, matched to their folders, and read cell by cell into labels and covariates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config.run import RunConfig
from common.config.site import NO_LABELS, LabelConfig
from common.data.covariates import absent_columns, of_row
from common.data.gate.candidates import Notebook
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.participants import SHOWN, is_missing, match_rows, one_row
from common.data.gate.patient_files import PatientFiles
from common.data.gate.tables import Table, read_table
from common.data.headings import hint
from common.errors import ConfigError, DataError
from common.tasks.task import Task

UNLABELLED = -1
ENDS = (".xlsx", ".xls", ".ods", ".csv", ".txt", ".tsv")  # of what hospitals call their table

NO_TABLE = Kind("table-none", Level.NOTE, "no participants.tsv, so that the model is told nothing but images")
NO_COLUMN = Kind("column-none", Level.NOTE, "a covariate or a finding of the run has no column")
RENAMED = Kind("column-renamed", Level.NOTE, "a column was found by another spelling")
TWICE = Kind(
    "column-twice", Level.WARNING, "another column differs from one that is read in the case of letters, and says otherwise"
)
LABELS_OFF = Kind("labels-off", Level.NOTE, "site.toml says that the site has no labels")
NO_LABEL = Kind("labels-none", Level.WARNING, "no patient of the site has a label, and site.toml does not say that this is meant")
WITHOUT_PATIENT = Kind("rows-without-patient", Level.NOTE, "rows that fit no folder; a warning where folders fit no row, too")
CONTRADICT = Kind("rows-contradict", Level.ERROR, "several rows of a patient say different things")
SAME = Kind("rows-same", Level.NOTE, "several rows of a patient say the same")
UNKNOWN_LABEL = Kind("label-unknown", Level.ERROR, "a label that is no class of the run and not in labels.map")
UNREAD = Kind("covariate-unread", Level.ERROR, "a cell that the run needs cannot be read")
UNREAD_AGE = Kind("age-unread", Level.NOTE, "an age that is no number of years; a warning where it is a number that is no age")
KINDS = (
    NO_TABLE,
    NO_COLUMN,
    RENAMED,
    TWICE,
    LABELS_OFF,
    NO_LABEL,
    WITHOUT_PATIENT,
    CONTRADICT,
    SAME,
    UNKNOWN_LABEL,
    UNREAD,
    UNREAD_AGE,
)


@dataclass(frozen=True)
class SiteTable:
    """The table of one site.

    Attributes:
        table: without columns where there is none.
        columns: of the labels, in the order of `task.columns`; (): none is wanted.
        rows: patient's folder -> their rows.
        findings: about the table as a whole.
    """

    table: Table
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[Mapping[str, str]]]
    findings: tuple[Finding, ...]

    def cells(self, found: PatientFiles, run: RunConfig, book: Notebook) -> dict[str, str]:
        """What the table says of a patient, in the session that is used."""
        rows = self.rows.get(book.patient, ())
        wanted = (*self.columns, "age", "sex", *(row.name for row in run.data.covariates))
        used = [name for name in dict.fromkeys(wanted) if name]
        cells, differing, several = one_row(rows, found.session, found.cells, used)
        if differing:
            book.add(
                CONTRADICT,
                found=f"{len(rows)} rows of the patient differ in {'; '.join(differing)}",
                expected="one row, or rows of sessions that session_id tells apart",
                do="Correct the table.",
            )
        elif several:
            text = f"{len(rows)} rows of the patient say the same"
            book.add(SAME, found=text, expected="one row", do="Nothing needs to be done.")
        return cells

    def no_label(self) -> Finding:
        """What to say of a site that cannot teach the classes, and perhaps was meant to."""
        table, column = self.table, ", ".join(self.columns)
        if not table.header:
            found = f"no {table.name}: every patient is unlabelled"
        elif not set(self.columns) & set(table.header):
            found = f"{table.name} has no column {column} (it has {', '.join(table.header)}): every patient is unlabelled"
            found += f".{hint(self.columns[0], table.header)}".rstrip(".")
        else:
            found = f"{table.name} has no label for any patient here: every patient is unlabelled"
        do = 'Label the patients, or say in site.toml that this is meant: column = "none" under [labels].'
        return NO_LABEL.finding(found, f"labels in a column {column}", do, file=table.name if table.header else "")


def no_mask() -> Finding:
    """What to say of a site that cannot teach where tumours are."""
    do = "Nothing needs to be done if that is meant; else see in docs/hospital.md how masks are named."
    return NO_LABEL.finding("no patient here has a tumour mask: every patient is unlabelled", "masks, for segmentation", do)


def open_table(home: Path, root: Path, labels: LabelConfig, run: RunConfig, patients: Sequence[str]) -> SiteTable:
    """Read the table and match its rows.

    Args:
        home: folder of site.toml, where the table is looked for first.
        root: the data folder.
        labels: of site.toml.
        run: its classes and covariates.
        patients: names of their folders.

    Raises:
        ConfigError: `labels.map` names something that is no class.
        DataError: a table or column that `site.toml` names is not there, the table cannot be read, or it is of other patients.
    """
    task, covariates = run.task, run.data.covariates
    wrong = sorted(word for word in labels.map.values() if task.target(word) is None and not is_missing(word))
    if wrong and not task.decoder:
        kind = "classes" if task.exclusive else "words"
        raise ConfigError(f"labels.map: expected {kind} {', '.join(task.words)} or n/a, got {', '.join(wrong)}.")
    columns = _columns(labels, task)
    file = next((f / labels.table for f in (home, root) if (f / labels.table).is_file()), None)
    said_so = not columns and not task.decoder  # masks need no column
    off = [_meant(LABELS_OFF, "", "labels.column is none: every patient is unlabelled")] if said_so else []
    if file is None:
        _require_no_other(home, root, labels)
        unknown = [f"no {labels.table}: the model is told nobody's {covariate.name} here" for covariate in covariates]
        return SiteTable(Table(labels.table), columns, {}, (*off, *(_meant(NO_TABLE, "", text) for text in unknown)))
    wanted = dict.fromkeys((*columns, "age", "sex", *(row.name for row in covariates)))
    table = read_table(file, columns=tuple(name for name in wanted if name))
    _require_named(labels, task, columns, table)
    matched = match_rows(table, patients)
    _require_patients(table, matched.rows, matched.lost, patients, columns)
    renamed = [f"the column {there!r} is read as {name!r}" for name, there in table.renamed.items()]
    absent = absent_columns(file.name, table.header, covariates)
    findings = (
        *off,
        *(_meant(RENAMED, file.name, text) for text in renamed),
        *(_meant(NO_COLUMN, file.name, text) for text in (*absent, *_unknown_findings(table, columns))),
        *_spelt_twice(table, tuple(wanted)),
        *matched.findings,
        *_about_lost(table, matched.lost, sorted(set(patients) - matched.rows.keys())),
    )
    return SiteTable(table, columns, matched.rows, findings)


def _columns(labels: LabelConfig, task: Task) -> tuple[str, ...]:
    """The table's columns that hold the target.

    Raises:
        ConfigError: `labels.column` names one, and the task has several.
    """
    if labels.column == NO_LABELS or task.decoder:
        return ()
    if labels.column and not task.label:
        raise ConfigError(
            f"labels.column = {labels.column!r} is one column, and the run reads {', '.join(task.columns)}. Take it out; where "
            'your table calls one otherwise, write labels.columns = { NAME-OF-THE-RUN = "your column" }.'
        )
    if labels.column:
        return (labels.column,)
    return tuple(labels.columns.get(name, name) for name in task.columns)


def _require_named(labels: LabelConfig, task: Task, columns: Sequence[str], table: Table) -> None:
    """A column that site.toml names must be there.

    Raises:
        DataError: it is not.
    """
    told = {labels.columns[name]: "labels.columns" for name in task.columns if name in labels.columns}
    told |= {labels.column: "labels.column"} if labels.column else {}
    for column in (column for column in columns if column in told and column not in table.header):
        found = f"{table.name}: no column {column}. It has {', '.join(table.header)}."
        raise DataError(f"{found} Correct {told[column]}.{hint(column, table.header)}")


def _unknown_findings(table: Table, columns: Sequence[str]) -> list[str]:
    """What to say of columns that are not there where others are; of all of them `no_label` says it."""
    absent = [column for column in columns if column not in table.header]
    few = absent if len(absent) < len(columns) else []
    return [f"{table.name} has no column {column}: it is unknown of every patient here" for column in few]


def _spelt_twice(table: Table, wanted: Sequence[str]) -> list[Finding]:
    """Columns beside one that is read, under the same name in other letters, where their cells say something else."""
    found = []
    for name, other in ((name, other) for name in wanted if name in table.header for other in table.header):
        if other == name or other.lower().replace(" ", "_") != name.lower():
            continue
        differing = [line for line, cells in table.rows if _says(cells, other) not in ("", _says(cells, name))]
        if differing:
            where = f"in {len(differing)} rows (line {differing[0]} first)"
            text = f"beside {name!r}, which is read, there is {other!r}, which says otherwise {where}"
            do = "Keep the one that holds, and give the other another name."
            found.append(TWICE.finding(text, "one column of that name", do, file=table.name))
    return found


def _says(cells: Mapping[str, str], column: str) -> str:
    word = cells.get(column, "")
    return "" if is_missing(word) else word


def _meant(kind: Kind, file: str, found: str) -> Finding:
    return kind.finding(found, "what the run asks for", "Nothing needs to be done if that is meant.", file=file)


def _require_no_other(home: Path, root: Path, labels: LabelConfig) -> None:
    """A table that is not there must not be named by site.toml, nor lie there in another form: its labels would be lost."""
    if labels.table != LabelConfig.table:
        raise DataError(f"Label table {labels.table}: not found beside site.toml nor in {root}. Correct labels.table.")
    stem = Path(labels.table).stem
    files = [
        file for place in dict.fromkeys((home.resolve(), root.resolve())) for file in sorted(place.iterdir()) if file.is_file()
    ]
    others = [file.name for file in files if file.stem.lower() == stem and file.suffix.lower() in ENDS]
    if others:
        raise DataError(
            f"no {labels.table}, but {', '.join(others)}. Save it as tab-separated text under the name {labels.table} (in Excel: "
            "Save As, Text, tab delimited), or name a tab-separated table by labels.table in site.toml."
        )


def _require_patients(
    table: Table, rows: Mapping[str, object], lost: Sequence[str], patients: Sequence[str], columns: Sequence[str]
) -> None:
    """Labels of which none is any patient's here are an error of names.

    Raises:
        DataError: shows both spellings.
    """
    labelled = any(not is_missing(cells.get(column, "")) for _, cells in table.rows for column in columns)
    if labelled and not rows:
        raise DataError(
            f"{table.name}: none of its {len(lost)} participants is a patient here: the table has {', '.join(lost[:SHOWN])}, the "
            f"folders are {', '.join(patients[:SHOWN])}. Write the folders' names into participant_id."
        )


def _about_lost(table: Table, lost: Sequence[str], alone: Sequence[str]) -> list[Finding]:
    """Rows without a patient; a warning, with both spellings, where there are patients without a row as well."""
    if not lost:
        return []
    found = f"{len(lost)} rows of {table.name} have no patient folder"
    if not alone:
        return [_meant(WITHOUT_PATIENT, table.name, found)]
    found += f" ({', '.join(lost[:SHOWN])}), and {len(alone)} patients no row ({', '.join(alone[:SHOWN])})"
    do = "Correct the spelling where they are the same."
    return [WITHOUT_PATIENT.finding(found, "the folders' names in the table", do, file=table.name, level=Level.WARNING)]


def target_of(cells: Mapping[str, str], columns: Sequence[str], labels: LabelConfig, task: Task, book: Notebook) -> int:
    """The task's label of a patient's cells, or -1; a word that is none keeps the patient out: unlabelled, they would be used
    for what nobody meant."""
    found = []
    for column in columns:
        word = cells.get(column, "")
        name = labels.map.get(word, word)
        found.append(task.target(name))
        if found[-1] is None and not is_missing(name):
            where = f"{column} " if len(columns) > 1 else ""
            book.add(
                UNKNOWN_LABEL,
                found=f"label {where}{word!r} is none of {', '.join((*task.words, *labels.map))}",
                expected="one of these, or n/a",
                do="Map it in site.toml under labels.map, or write n/a.",
            )
    return task.joined(found)


def values_of(cells: Mapping[str, str], run: RunConfig, book: Notebook) -> tuple[float, ...]:
    """The covariates of a patient's cells."""
    values, unread = of_row(cells, run.data.covariates)
    for sentence in unread:
        found, _, do = sentence.partition("; ")
        book.add(UNREAD, found=found, expected="a value that the run can take, or n/a", do=f"{do.capitalize()}.")
    return values
