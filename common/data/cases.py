"""A site's folder as a list of cases: who is there, which modalities, which label. Opens no volume."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from common.config.modalities import DEFAULT_MODALITIES, MODALITIES, looked_for
from common.config.run import RunConfig
from common.config.site import (
    MASK,
    NO_LABELS,
    FilePatterns,
    LabelConfig,
    SiteConfig,
    SitePolicy,
    check_name,
    read_site_config,
)
from common.data.covariates import NO_WORD, absent_columns, of_row
from common.data.gate.finding import Finding, Kind, Level
from common.errors import ConfigError, DataError
from common.tasks.task import Task

UNLABELLED = -1
TWIN = Kind("twin", Level.ERROR, "the same person is at another hospital of the run, and takes part there")
TWIN_ELSEWHERE = TWIN.finding(
    "this person is at another hospital of the run too", "one hospital", "See twins in docs/hospital.md."
)
_SHOWN = 10  # problems spelled out in one error


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
    by_voxels: bool = False  # the site's masks belong to the voxels of their images (`reading.masks` in site.toml)

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
    """One hospital's cases, sorted by id."""

    name: str
    root: Path  # the data folder
    cases: tuple[Case, ...]
    config: SiteConfig
    notes: tuple[str, ...] = ()  # oddities that are no errors, for the site's own eyes
    findings: tuple[Finding, ...] = ()  # about names and tables; a patient with an error stays out

    def only(self, patients: Iterable[str]) -> "Site":
        """The site with these of its patients alone."""
        kept = set(patients)
        return replace(self, cases=tuple(case for case in self.cases if case.id in kept))


@dataclass(frozen=True)
class Participant:
    """One row of the table, label still in the site's own words."""

    label: str
    age: float | None
    sex: str | None
    cells: Mapping[str, str] = field(default_factory=dict, compare=False)  # the whole row by column


def read_site(path: Path, run: RunConfig, *, simulated: bool = False) -> Site:
    """Find a site's cases.

    Args:
        path: a BIDS folder, or a folder with a `site.toml`, or that file.
        run: its task, and which modalities it uses: of others than the default four no file is looked for.
        simulated: a folder without `site.toml` belongs to the researcher, so nothing in it is secret.

    Raises:
        ConfigError: `site.toml` is wrong.
        DataError: no folder, no patients, or any number of problems with patients, reported together.
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
        participants, notes = _read_table_of(home, root, config.labels, run)
    except (ConfigError, DataError) as error:
        raise type(error)(f"Site {name}: {error}") from error
    problems = _duplicates(folders)
    cases = []
    for folder in folders:
        found, troubles = find_files(folder, config.files, run.data.modalities)
        participant = participants.get(folder.name, Participant("", None, None))
        label, trouble = _target_of(participant.label, config.labels, run.task)
        known, unread = of_row(participant.cells, run.data.covariates)
        problems += [f"patient {folder.name}: {text}" for text in troubles + trouble + unread]
        age, sex = participant.age, participant.sex
        cases.append(
            Case(folder.name, modalities_of(found), found.get(MASK), label, age, sex, root, known, config.reading.by_voxels)
        )
    raise_problems(f"Site {name}", problems)
    absent = len(participants.keys() - {folder.name for folder in folders})
    notes += [f"{absent} rows of {config.labels.table} have no patient folder"] if absent else []
    left_out = tuple(TWIN_ELSEWHERE.of(case.id) for case in cases if f"{home.resolve().name}/{case.id}" in run.twins.left_out)
    return Site(name, root, tuple(cases), config, tuple(notes), left_out)


def read_participants(file: Path, column: str) -> dict[str, Participant]:
    """Read a BIDS `participants.tsv`: `participant_id`, optionally `age` and `sex`, and the label's column.

    Args:
        file: tab-separated.
        column: an absent column gives empty labels; the caller decides whether that is an error.

    Raises:
        DataError: not UTF-8 text, no `participant_id`, a row with too many cells, or an id twice; names the line.
    """
    header, rows = _read_table(file)
    participants: dict[str, Participant] = {}
    for number, row in rows:
        if len(row) > len(header):
            raise DataError(f"{file.name}, line {number}: expected {len(header)} cells between tabs, got {len(row)}.")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        key = cells["participant_id"]
        if key in participants:
            raise DataError(f"{file.name}, line {number}: participant {key} occurs twice. Keep one row.")
        sex = cells.get("sex", "")
        participants[key] = Participant(
            cells.get(column, ""), _number(cells.get("age", "")), None if _is_missing(sex) else sex.upper(), cells
        )
    return participants


def raise_problems(where: str, problems: list[str]) -> None:
    """Report all problems at once, the first ten in full.

    Raises:
        DataError: where there is any.
    """
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}.")


def patient_folders(name: str, root: Path, config: SiteConfig) -> list[Path]:
    """The patients' folders, sorted by name.

    Raises:
        DataError: there is none.
    """
    folders = sorted((f for f in root.glob(config.patients) if f.is_dir()), key=lambda f: (f.name, f))
    kept = [f for f in folders if not any(fnmatchcase(f.name, pattern) for pattern in config.exclude)]
    if not kept:
        left_out = f" ({len(folders)} excluded)" if folders else ""
        raise DataError(
            f"Site {name}: no patient folder named {config.patients} in {root}{left_out}. "
            "Correct patients or exclude in site.toml."
        )
    return kept


def _duplicates(folders: list[Path]) -> list[str]:
    names = [f.name for f in folders]
    return [f"patient {name}: {names.count(name)} folders have this name" for name in sorted(set(names)) if names.count(name) > 1]


def find_files(
    folder: Path, patterns: FilePatterns, modalities: Iterable[str] = DEFAULT_MODALITIES
) -> tuple[dict[str, Path], list[str]]:
    """The file of each modality and the mask, and what is wrong with them.

    Args:
        folder: of one patient.
        patterns: globs relative to it, by modality.
        modalities: that are looked for besides the default four.
    """
    wanted = looked_for(modalities)
    matches = {kind: _matches(folder, globs) for kind, globs in patterns.items() if kind in (*wanted, MASK)}
    for name in wanted:
        for other in MODALITIES[name].unlike:
            matches[name] -= _matches(folder, patterns[other])
    problems = []
    for kind, files in matches.items():
        if len(files) > 1:
            names = ", ".join(sorted(str(f.relative_to(folder)) for f in files)[:3])
            problems.append(f"{len(files)} files match {kind} ({names}); narrow files.{kind} in site.toml")
    if not any(matches[m] for m in wanted):
        problems.append(f"no modality; expected a file for at least one of {', '.join(wanted)} (see files in site.toml)")
    return {kind: min(files) for kind, files in matches.items() if files}, problems


def modalities_of(found: dict[str, Path]) -> dict[str, Path]:
    """What `find_files` found, without the mask, in the table's order."""
    return {m: found[m] for m in MODALITIES if m in found}


def _matches(folder: Path, globs: Iterable[str]) -> set[Path]:
    return {f for pattern in globs for f in folder.glob(pattern) if f.is_file() and not f.name.startswith(".")}


def _read_table_of(home: Path, root: Path, labels: LabelConfig, run: RunConfig) -> tuple[dict[str, Participant], list[str]]:
    """The table's rows and notes about it; a table or column that `site.toml` names by itself must exist."""
    task, covariates = run.task, run.data.covariates
    wrong = sorted(word for word in labels.map.values() if task.target(word) is None and not _is_missing(word))
    if wrong:
        raise ConfigError(f"labels.map: expected classes {', '.join(task.classes)} or n/a, got {', '.join(wrong)}.")
    file = next((f / labels.table for f in (home, root) if (f / labels.table).is_file()), None)
    if file is None:
        if labels.table != LabelConfig.table:
            raise DataError(f"Label table {labels.table}: not found beside site.toml nor in {root}. Correct labels.table.")
        unknown = [f"no {labels.table}: the model is told nobody's {covariate.name} here" for covariate in covariates]
        return {}, [f"no {labels.table}: every patient is unlabelled", *unknown]
    header, _ = _read_table(file)
    absent = absent_columns(file.name, header, covariates)
    if labels.column == NO_LABELS:
        return read_participants(file, ""), ["labels.column is none: every patient is unlabelled", *absent]
    column = labels.column or task.label
    if column not in header:
        if labels.column:
            raise DataError(f"{file.name}: no column {column}. It has {', '.join(header)}. Correct labels.column.")
        return read_participants(file, ""), [f"{file.name} has no column {column}: every patient is unlabelled", *absent]
    return read_participants(file, column), absent


def _read_table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and the numbered, non-empty rows of a tab-separated file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file.name}: cannot be read as UTF-8 text with tabs ({error}).") from error
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if "participant_id" not in header or len(set(header)) != len(header):
        raise DataError(
            f"{file.name}: expected tab-separated columns, each once, participant_id among them; got {', '.join(header)}."
        )
    return header, rows[1:]


def _target_of(word: str, labels: LabelConfig, task: Task) -> tuple[int, list[str]]:
    """The task's target, or -1, and what is wrong."""
    name = labels.map.get(word, word)
    target = task.target(name)
    if target is not None:
        return target, []
    if _is_missing(name):
        return UNLABELLED, []
    known = ", ".join(task.classes + tuple(labels.map))
    return UNLABELLED, [f"label {word!r} is none of {known}; map it in site.toml under labels.map, or write n/a"]


def _is_missing(word: str) -> bool:
    return word.lower() in NO_WORD


def _number(word: str) -> float | None:
    """An age in years; None where missing, unreadable or not finite. BIDS lets `89+` hide the very old."""
    try:
        value = float(word.removesuffix("+"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
