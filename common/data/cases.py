"""A site's folder as a list of cases: who is there, which modalities, which label. Opens no volume."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from common.config.covariates import read_number
from common.config.modalities import MASK, MODALITIES
from common.config.run import RunConfig
from common.config.site import SiteConfig, bids_files, check_name, read_policy, read_site_config
from common.data.gate.candidates import Notebook
from common.data.gate.finding import Finding, Kind, Level, stay_out
from common.data.gate.folders import idle_exclusions, left_folders, where_patients_are
from common.data.gate.idle_patterns import idle_patterns
from common.data.gate.participants import is_missing
from common.data.gate.patient_files import PatientFiles, find_files
from common.data.known_files import content_sha256
from common.data.site_table import UNLABELLED as UNLABELLED  # noqa: PLC0414  a case's label
from common.data.site_table import UNREAD_AGE, SiteTable, no_mask, open_table, target_of, values_of
from common.errors import ConfigError, DataError

MASKED = 0  # the target of a patient with a mask, where masks are the targets
OLDEST = 120  # years
FIRST, LAST = 1890, 2100  # years of birth
TWICE = Kind("patient-twice", Level.ERROR, "two patients' folders of one name")
TWIN = Kind("twin", Level.ERROR, "the same person is at another hospital of the run, and takes part there")
KINDS = (TWICE, TWIN)
TWIN_ELSEWHERE = TWIN.finding(
    "this person is at another hospital of the run too", "one hospital", "See twins in docs/hospital.md."
)


@dataclass(frozen=True)
class Case:
    """One patient: the files that are there, and what the table says."""

    id: str
    files: dict[str, Path]  # modality -> file, present ones only, in the order of MODALITIES
    mask: Path | None
    label: int  # the task's target: index in the run's classes, or findings (`common.ternary`); -1: none
    age: float | None  # years
    sex: str | None
    root: Path = Path()  # the data folder, from which messages name files
    covariates: tuple[float, ...] = ()  # in the order of the run's `data.covariates`, NaN where missing; (): nothing is known
    session: str = ""  # label of the one whose files these are; "": the files lie in none
    by_mask: bool = False  # the target is the mask: `label` says whether there is one
    by_voxels: bool = False  # masks and images of one shape belong voxel to voxel (`reading.place` in site.toml)
    hashed: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)  # by `sha256`

    def sources(self) -> Iterator[tuple[str, Path]]:
        """All files by kind: the modalities, then `mask`."""
        yield from self.files.items()
        if self.mask:
            yield MASK, self.mask

    def sha256(self, file: Path) -> str:
        """Of the content of one of the patient's files, read once: cache, record and ledger of one round need it each.

        Raises:
            OSError: the file cannot be read.
        """
        if file not in self.hashed:
            self.hashed[file] = content_sha256(file)
        return self.hashed[file]

    def name_of(self, file: Path) -> str:
        """A file's name relative to the data folder."""
        return str(file.relative_to(self.root) if file.is_relative_to(self.root) else file)

    def where(self, file: Path) -> str:
        """The words by which a message at the site names one of the patient's files."""
        return f"Patient {self.id}, {self.name_of(file)}"


@dataclass(frozen=True)
class Site:
    """One hospital's patients, sorted by id; `common.data.cache.open_site` leaves out those with an error."""

    name: str
    root: Path  # the data folder
    cases: tuple[Case, ...]
    config: SiteConfig
    findings: tuple[Finding, ...] = ()  # about names and tables, for the site's own eyes

    def only(self, patients: Iterable[str]) -> "Site":
        """The site with these of its patients alone."""
        kept = set(patients)
        return replace(self, cases=tuple(case for case in self.cases if case.id in kept))

    def usable(self) -> "Site":
        """The site without those who stay out by their names or rows; their images may add to these."""
        return self.only({case.id for case in self.cases} - stay_out(self.findings))


def read_site(path: Path, run: RunConfig, *, simulated: bool = False) -> Site:
    """Find a site's cases.

    Args:
        path: a BIDS folder, or a folder with a `site.toml`, or that file.
        run: its task, and which modalities it uses: of others than the default four no file is looked for.
        simulated: a folder without `site.toml` belongs to the researcher, so nothing in it is secret.

    Raises:
        ConfigError: `site.toml` is wrong.
        DataError: no folder, no patient in it, or a table that cannot be read or is of other patients.
    """
    if not path.exists():
        raise DataError(f"Site {path}: no such folder. Name a folder of patients (BIDS), or a site.toml.")
    config, home = read_site_config(path), path if path.is_dir() else path.parent
    config = replace(config, policy=read_policy(path, simulated=simulated))
    name = check_name(config.name or home.resolve().name)
    root = (home / Path(config.data).expanduser()).resolve()
    if not root.is_dir():
        raise DataError(f"Site {name}: data folder {root} does not exist. Correct data in site.toml.")
    folders = patient_folders(name, root, config)
    try:
        table = open_table(home, root, config.labels, run, sorted({folder.name for folder in folders}))
    except (ConfigError, DataError) as error:
        raise type(error)(f"Site {name}: {error}") from error
    excluded = [folder for folder in root.glob(config.patients) if folder not in folders]
    beside = [*left_folders(root, config.patients, folders, excluded), *idle_exclusions(config.exclude, folders, excluded)]
    findings, cases = [*table.findings, *beside, *_twice(folders)], {}
    for folder in folders:
        found = find_files(folder, config.files, run.data.modalities, root=root, session=config.session)
        book = Notebook(folder.name, findings=list(found.findings))
        cases[folder.name] = _case(folder.name, root, found, table, config, run, book)
        findings += book.findings
    files = {file for case in cases.values() for _, file in case.sources()}
    findings += idle_patterns(root, folders, config.files, bids_files(), files)
    findings += [TWIN_ELSEWHERE.of(case) for case in cases if f"{home.resolve().name}/{case}" in run.twins.left_out]
    out = stay_out(findings)
    used = [case for case in cases.values() if case.id not in out]
    if used and all(case.label == UNLABELLED for case in used):
        findings += [no_mask()] if run.task.decoder else [table.no_label()] if table.columns else []
    return Site(name, root, tuple(cases.values()), config, tuple(findings))


def _case(
    name: str, root: Path, found: PatientFiles, table: SiteTable, config: SiteConfig, run: RunConfig, book: Notebook
) -> Case:
    """One patient; what is found in their row is said in `book`."""
    cells = table.cells(found, run, book)
    age, sex = cells.get("age", ""), cells.get("sex", "")
    years = read_number(age.removesuffix("+"))
    if years is None and not is_missing(age):
        book.add(UNREAD_AGE, found=f"age {age!r} is no number of years", expected="such as 54", do="Correct it, or write n/a.")
    elif years is not None and not 0 <= years <= OLDEST:
        birth = "; is it the year of birth, which tells more of the patient than an age?" if FIRST <= years <= LAST else ""
        said = {"found": f"age {age} is no age{birth}", "expected": f"years, 0 to {OLDEST}", "do": "Write the age at the scan."}
        book.add(UNREAD_AGE, **said, level=Level.WARNING)
        years = None
    return Case(
        name,
        modalities_of(found.files),
        found.files.get(MASK),
        _target(found, table, cells, config, run, book),
        years,
        None if is_missing(sex) else sex.upper(),
        root,
        values_of(cells, run, book),
        found.session,
        run.task.decoder is not None,
        config.reading.by_voxels,
    )


def _target(
    found: PatientFiles, table: SiteTable, cells: Mapping[str, str], config: SiteConfig, run: RunConfig, book: Notebook
) -> int:
    """By the table; of a task with masks for targets, by whether there is one (one that marks nothing is none: `open_site`)."""
    if run.task.decoder:
        return MASKED if MASK in found.files else UNLABELLED
    return target_of(cells, table.columns, config.labels, run.task, book)


def patient_folders(name: str, root: Path, config: SiteConfig) -> list[Path]:
    """The patients' folders, sorted by name; among them links to nothing, which stand for patients too.

    Raises:
        DataError: there is none.
    """
    folders = sorted((f for f in root.glob(config.patients) if f.is_dir() or _is_lost(f)), key=lambda f: (f.name, f))
    kept = [f for f in folders if not any(fnmatchcase(f.name, pattern) for pattern in config.exclude)]
    if not kept:
        left_out = f" ({len(folders)} excluded)" if folders else ""
        hint = "" if folders else where_patients_are(root, config.patients)
        raise DataError(
            f"Site {name}: no patient folder named {config.patients} in {root}{left_out}. "
            f"{hint or 'Correct patients or exclude in site.toml.'}"
        )
    return kept


def _is_lost(folder: Path) -> bool:
    """A link to nothing where a patient's folder should be."""
    return folder.is_symlink() and not folder.exists() and "." not in folder.name


def _twice(folders: list[Path]) -> list[Finding]:
    """Patients of one name in two places: whose files are whose is not known."""
    names = Counter(folder.name for folder in folders)
    do = "Rename them, or narrow patients in site.toml."
    several = [(name, count) for name, count in sorted(names.items()) if count > 1]
    return [TWICE.finding(f"{count} folders have this name", "one folder a patient", do).of(name) for name, count in several]


def modalities_of(found: Mapping[str, Path]) -> dict[str, Path]:
    """What `find_files` found, without the mask, in the table's order."""
    return {m: found[m] for m in MODALITIES if m in found}
