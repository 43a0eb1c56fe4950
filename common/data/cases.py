"""A site's folder as a list of cases: who is there, which modalities, which label. Opens no volume."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from common.config.covariates import read_number
from common.config.modalities import MODALITIES
from common.config.run import RunConfig
from common.config.site import MASK, NO_LABELS, LabelConfig, SiteConfig, SitePolicy, check_name, read_site_config
from common.data.covariates import absent_columns, of_row
from common.data.gate.candidates import Notebook
from common.data.gate.finding import Finding, Level, stay_out
from common.data.gate.participants import Cells, Matched, is_missing, match_rows, one_row
from common.data.gate.patient_files import PatientFiles, find_files
from common.data.gate.tables import Table, read_table
from common.errors import ConfigError, DataError
from common.tasks.task import Task

UNLABELLED = -1
_SHOWN = 10  # problems spelled out in one error
SHOWN = 3  # names spelled out in one finding


@dataclass(frozen=True)
class Case:
    """One patient: the files that are there, and what the table says."""

    id: str
    files: dict[str, Path]  # modality -> file, present ones only, in the order of MODALITIES
    mask: Path | None
    label: int  # the task's target: index in the run's classes; -1: none
    age: float | None  # years
    sex: str | None
    root: Path = Path()  # the data folder, from which messages name files
    covariates: tuple[float, ...] = ()  # in the order of the run's `data.covariates`, NaN where missing; (): nothing is known
    session: str = ""  # label of the one whose files these are; "": the files lie in none

    def sources(self) -> Iterator[tuple[str, Path]]:
        """All files by kind: the modalities, then `mask`."""
        yield from self.files.items()
        if self.mask:
            yield MASK, self.mask

    def name_of(self, file: Path) -> str:
        """A file's name relative to the data folder."""
        return str(file.relative_to(self.root) if file.is_relative_to(self.root) else file)

    def where(self, file: Path) -> str:
        """The words by which a message at the site names one of the patient's files."""
        return f"Patient {self.id}, {self.name_of(file)}"


@dataclass(frozen=True)
class Site:
    """One hospital's usable patients, sorted by id, and what was found about the folder: a patient with an error is left out."""

    name: str
    root: Path  # the data folder
    cases: tuple[Case, ...]
    config: SiteConfig
    findings: tuple[Finding, ...] = ()  # for the site's own eyes


def read_site(path: Path, run: RunConfig, *, simulated: bool = False) -> Site:
    """Find a site's cases.

    Args:
        path: a BIDS folder, or a folder with a `site.toml`, or that file.
        run: its task, and which modalities it uses: of others than the default four no file is looked for.
        simulated: a folder without `site.toml` belongs to the researcher, so nothing in it is secret.

    Raises:
        ConfigError: `site.toml` is wrong.
        DataError: no folder, no patient, a table that cannot be read or is of other patients, or an error with every patient.
    """
    if not path.exists():
        raise DataError(f"Site {path}: no such folder. Name a folder of patients (BIDS), or a site.toml.")
    config, home = read_site_config(path), path if path.is_dir() else path.parent
    if simulated and path.is_dir() and not (path / "site.toml").exists():
        config = replace(config, policy=SitePolicy.simulation())
    name = check_name(config.name or home.resolve().name)
    root = (home / Path(config.data).expanduser()).resolve()
    if not root.is_dir():
        raise DataError(f"Site {name}: data folder {root} does not exist. Correct data in site.toml.")
    folders = patient_folders(name, root, config)
    try:
        table, column, findings = _read_table_of(home, root, config.labels, run)
        rows = match_rows(table, {folder.name for folder in folders})
        _require_labels_of_patients(table, rows, folders, column)
    except (ConfigError, DataError) as error:
        raise type(error)(f"Site {name}: {error}") from error
    findings += [*rows.findings, *_twice(folders), *_about_rows(table, rows, folders)]
    cases = []
    for folder in folders:
        found = find_files(folder, config.files, run.data.modalities, root=root, session=config.session)
        book = Notebook(folder.name, list(found.findings))
        cells = _cells_of(rows.rows.get(folder.name, ()), found, (column, "age", "sex"), run, book)
        cases.append(_case(folder, root, found, cells, column, config.labels, run, book))
        findings += book.findings
    out = stay_out(findings)
    kept = tuple(case for case in cases if case.id not in out)
    if not kept:
        raise_problems(f"Site {name}", [_sentence(one) for one in findings if one.level is Level.ERROR])
    if all(case.label == UNLABELLED for case in kept) and column:
        findings.append(_no_label(table, column))
    return Site(name, root, kept, config, tuple(findings))


def _sentence(finding: Finding) -> str:
    return str(finding).rstrip(".")


def _cells_of(
    rows: Sequence[Cells], found: PatientFiles, columns: Sequence[str], run: RunConfig, book: Notebook
) -> Mapping[str, str]:
    """What the table says of a patient, in the session that is used."""
    used = [name for name in dict.fromkeys((*columns, *(row.name for row in run.data.covariates))) if name]
    cells, differing, several = one_row(rows, found.session, found.cells, used)
    if differing:
        book.add(
            *(Level.ERROR, "rows-contradict"),
            found=f"{len(rows)} rows of the table say different things: {'; '.join(differing)}",
            expected="one row, or rows of sessions that session_id tells apart",
            do="Correct the table",
        )
    elif several:
        book.add(
            *(Level.NOTE, "rows-same"),
            found=f"{len(rows)} rows of the table that say the same",
            expected="one row",
            do="Nothing needs to be done",
        )
    return cells


def _case(
    folder: Path,
    root: Path,
    found: PatientFiles,
    cells: Mapping[str, str],
    column: str,
    labels: LabelConfig,
    run: RunConfig,
    book: Notebook,
) -> Case:
    """One patient; what their row holds that cannot be read is said in `book`."""
    word = cells.get(column, "") if column else ""
    label, known = _target_of(word, labels, run.task)
    if not known:
        book.add(
            *(Level.ERROR, "label-unknown"),
            found=f"label {word!r} is none of {', '.join(run.task.classes + tuple(labels.map))}",
            expected="one of these, or n/a",
            do="Map it in site.toml under labels.map, or write n/a",
        )
    values, unread = of_row(cells, run.data.covariates)
    for sentence in unread:
        found_, _, do = sentence.partition("; ")
        book.add(Level.ERROR, "covariate-unread", found=found_, expected="a value that the run can read", do=do.capitalize())
    age, sex = cells.get("age", ""), cells.get("sex", "")
    return Case(
        folder.name,
        modalities_of(found.files),
        found.files.get(MASK),
        label,
        read_number(age.removesuffix("+")),
        None if is_missing(sex) else sex.upper(),
        root,
        values,
        found.session,
    )


def raise_problems(where: str, problems: list[str]) -> None:
    """Report all problems at once, the first ten in full.

    Raises:
        DataError: where there is any.
    """
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}.")


def patient_folders(name: str, root: Path, config: SiteConfig) -> list[Path]:
    """The patients' folders, sorted by name; among them links to nothing, which stand for patients too.

    Raises:
        DataError: there is none.
    """
    folders = sorted((f for f in root.glob(config.patients) if f.is_dir() or _is_lost(f)), key=lambda f: (f.name, f))
    kept = [f for f in folders if not any(fnmatchcase(f.name, pattern) for pattern in config.exclude)]
    if not kept:
        left_out = f" ({len(folders)} excluded)" if folders else ""
        raise DataError(
            f"Site {name}: no patient folder named {config.patients} in {root}{left_out}. "
            "Correct patients or exclude in site.toml."
        )
    return kept


def _is_lost(folder: Path) -> bool:
    """A link to nothing where a patient's folder should be."""
    return folder.is_symlink() and not folder.exists() and "." not in folder.name


def _twice(folders: list[Path]) -> list[Finding]:
    """Patients of one name in two places: whose files are whose is not known."""
    names = Counter(folder.name for folder in folders)
    return [
        Finding(
            *(name, "patient-twice", Level.ERROR, ""),
            found=f"{count} folders have this name",
            expected="one folder a patient",
            do="Rename them, or narrow patients in site.toml",
        )
        for name, count in sorted(names.items())
        if count > 1
    ]


def modalities_of(found: dict[str, Path]) -> dict[str, Path]:
    """What `find_files` found, without the mask, in the table's order."""
    return {m: found[m] for m in MODALITIES if m in found}


def _read_table_of(home: Path, root: Path, labels: LabelConfig, run: RunConfig) -> tuple[Table, str, list[Finding]]:
    """The table, its column of labels ("": none), and what is said about it as a whole.

    Raises:
        ConfigError: `labels.map` names something that is no class.
        DataError: a table or column that `site.toml` names by itself is not there, or the table cannot be read.
    """
    task, covariates = run.task, run.data.covariates
    wrong = sorted(word for word in labels.map.values() if task.target(word) is None and not is_missing(word))
    if wrong:
        raise ConfigError(f"labels.map: expected classes {', '.join(task.classes)} or n/a, got {', '.join(wrong)}.")
    wanted = "" if labels.column == NO_LABELS else labels.column or task.label
    file = next((f / labels.table for f in (home, root) if (f / labels.table).is_file()), None)
    if file is None:
        _require_no_other_table(home, root, labels)
        sentences = [f"no {labels.table}: the model is told nobody's {covariate.name} here" for covariate in covariates]
        return Table(labels.table), wanted, [_note("table-none", labels.table, text) for text in sentences]
    table = read_table(file, columns=("age", "sex", *((wanted,) if wanted else ()), *(row.name for row in covariates)))
    if labels.column and wanted and wanted not in table.header:
        raise DataError(f"{file.name}: no column {wanted}. It has {', '.join(table.header)}. Correct labels.column.")
    findings = [_note("column-none", file.name, text) for text in absent_columns(file.name, table.header, covariates)]
    for name, there in table.renamed.items():
        findings.append(_note("column-renamed", file.name, f"the column {there!r} is read as {name}"))
    if not wanted:
        findings.append(_note("labels-off", "", "labels.column is none: every patient is unlabelled"))
    return table, wanted, findings


def _require_no_other_table(home: Path, root: Path, labels: LabelConfig) -> None:
    """A table that is not there must not be named by site.toml, nor lie there in another form: its labels would be lost."""
    if labels.table != LabelConfig.table:
        raise DataError(f"Label table {labels.table}: not found beside site.toml nor in {root}. Correct labels.table.")
    stem = Path(labels.table).stem
    others = [file.name for place in dict.fromkeys((home, root)) for file in sorted(place.glob("*")) if _is_table(file, stem)]
    if others:
        raise DataError(
            f"no {labels.table}, but {', '.join(others)}. Save it as tab-separated text under the name {labels.table} (in Excel: "
            "Save As, Text, tab delimited), or set labels.table in site.toml to a table of that form."
        )


def _is_table(file: Path, stem: str) -> bool:
    """Whether a file is called like the table, but for case and ending."""
    return file.stem.lower() == stem and file.suffix.lower() in (".xlsx", ".xls", ".ods", ".csv", ".txt", ".tsv")


def _note(code: str, file: str, found: str) -> Finding:
    return Finding("", code, Level.NOTE, file, found, "what the run asks for", "Nothing needs to be done if that is meant.")


def _require_labels_of_patients(table: Table, rows: Matched, folders: Sequence[Path], column: str) -> None:
    """Labels of which none is any patient's here are an error of names.

    Raises:
        DataError: shows both spellings.
    """
    words = [cells for _, cells in table.rows if column and not is_missing(cells.get(column, ""))]
    if words and not rows.rows:
        raise DataError(
            f"{table.name}: none of its {len(rows.lost)} participants is the name of a patient's folder: the table has "
            f"{', '.join(rows.lost[:SHOWN])}, the folders are {', '.join(folder.name for folder in folders[:SHOWN])}. "
            "Write the folders' names into participant_id."
        )


def _about_rows(table: Table, rows: Matched, folders: Sequence[Path]) -> list[Finding]:
    """Rows without a patient; a warning, with both spellings, where there are patients without a row as well."""
    if not rows.lost:
        return []
    alone = sorted({folder.name for folder in folders} - rows.rows.keys())
    both = f": {', '.join(rows.lost[:SHOWN])}; and {len(alone)} patients no row: {', '.join(alone[:SHOWN])}" if alone else ""
    return [
        Finding(
            *("", "rows-without-patient", Level.WARNING if alone else Level.NOTE, table.name),
            found=f"{len(rows.lost)} rows of {table.name} have no patient folder{both}",
            expected="the same names in the table and the folders",
            do="Correct the spelling if they are the same" if alone else "Nothing needs to be done if that is meant",
        )
    ]


def _no_label(table: Table, column: str) -> Finding:
    """A site that cannot teach the classes, and perhaps was meant to."""
    if not table.header:
        found = f"no {table.name}: every patient is unlabelled"
    elif column not in table.header:
        found = f"{table.name} has no column {column}: every patient is unlabelled; it has {', '.join(table.header)}"
    else:
        found = f"{table.name} has no label for any patient here: every patient is unlabelled"
    do = 'If that is meant, say so in site.toml: column = "none" under [labels]'
    return Finding(
        "", "labels-none", Level.WARNING, table.name if table.header else "", found, f"labels in the column {column}", do
    )


def _target_of(word: str, labels: LabelConfig, task: Task) -> tuple[int, bool]:
    """The task's target, or -1; and whether the word is known."""
    name = labels.map.get(word, word)
    target = task.target(name)
    return (target, True) if target is not None else (UNLABELLED, is_missing(name))
