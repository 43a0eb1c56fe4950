"""Which patients a prediction is asked for: one patient's folder, single files, or a site with all its patients. Opens no volume.

Labels are not looked at. A patient with a problem is named, and keeps none of the others from an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.config.modalities import DEFAULT_MODALITIES, MASK, MASKS, MODALITIES, NAMINGS, FilePatterns, file_patterns, looked_for
from common.config.site import SiteConfig, bids_files, find_sites, is_site, read_site_config
from common.data.cases import UNLABELLED, Case, modalities_of, patient_folders
from common.data.gate.finding import Finding
from common.data.gate.patient_files import PatientFiles, find_files
from common.errors import ConfigError, DataError

SITE_FILE = "site.toml"
ABOVE = 3  # folders above a patient's in which a site.toml is looked for
NAMED_MASKS = {"bids": MASKS, "bids_flat": MASKS, "brats": ("*seg.nii*",), "brats_2023": ("*-seg.nii*",)}
NAMED_BUT_BAD = ("file-absent", "contrast-unclear", "session-none", "space-mixed")  # codes of what has a patient's names
Modalities = Sequence[str]
"""Those of the model, which are looked for besides the default four."""


def namings() -> tuple[FilePatterns, ...]:
    """How files are named where no site.toml says it; the first that finds anything counts."""
    return tuple({**file_patterns(naming), MASK: NAMED_MASKS[naming]} for naming in NAMINGS)


def kinds() -> dict[str, str]:
    """The words of `--files` to what they mean."""
    aliases = {alias: row.name for row in MODALITIES.values() for alias in row.aliases}
    return {**{name: name for name in (*MODALITIES, MASK)}, **aliases, "seg": MASK}


@dataclass(frozen=True)
class PredictionInputs:
    """The patients to predict for.

    Attributes:
        name: of the patient or the site.
        cases: patients whose files were found.
        single: it is about one patient.
        broken: {patient: what is wrong with their files}.
        weights: file of the backbone's weights that the site's own site.toml names; "": none.
        findings: how the files of those in `cases` were read.
        told: {patient: cells of the chosen session's row in the patient's sessions.tsv}.
    """

    name: str
    cases: tuple[Case, ...]
    single: bool
    broken: dict[str, str] = field(default_factory=dict)
    weights: str = ""
    findings: tuple[Finding, ...] = ()
    told: dict[str, Mapping[str, str]] = field(default_factory=dict)


def find_patients(path: Path, modalities: Modalities = DEFAULT_MODALITIES) -> PredictionInputs:
    """The patients of a path.

    Args:
        path: a patient's folder, a site's folder or its site.toml, or a folder of patients' folders.
        modalities: of the model.

    Raises:
        ConfigError: there is no such thing, or its site.toml is wrong.
        DataError: no patient in it; or, asked for one patient, what is wrong with their files.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Name a patient's folder, a site's folder, or a site.toml.")
    if path.is_file():
        if path.suffix != ".toml":
            raise ConfigError(
                f"{path}: expected a folder or a site.toml. Single volumes are named by --files t1=FILE flair=FILE."
            )
        return _site(path.parent, read_site_config(path), modalities)
    own = (path / SITE_FILE).is_file()
    config = read_site_config(path)
    if is_site(path) and not (own and _is_patient(path, config, modalities)):
        return _site(path, config, modalities)
    if _holds_patient(path, modalities) and not _holds_folders(path, modalities):
        return _patient(path, modalities)
    inner = [f for f in sorted(path.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    folders = [f for f in inner if _holds_patient(f, modalities)]
    alone = {f for f in folders if not _holds_folders(f, modalities)}
    several = [f.name for f in dict.fromkeys((*find_sites(path), *folders)) if f not in alone]
    if several:
        raise DataError(f"{path}: holds several folders of patients ({', '.join(several[:3])}). Name one of them.")
    if not folders:
        raise DataError(
            f"{path}: no modality of a patient found in it, and no folder of patients. Expected files named as BIDS or BraTS "
            "(*t1.nii.gz, *t1ce.nii.gz, *t2.nii.gz, *flair.nii.gz); other names go into a site.toml, or into --files."
        )
    named = [(folder, _naming_of(folder, modalities)) for folder in folders]
    return _all(path.resolve().name, named, path, "", modalities, config)


def patient_of_files(files: list[str]) -> PredictionInputs:
    """One patient from `kind=file` pairs.

    Raises:
        ConfigError: no pair, an unknown kind, one that stands there twice, or a file that is not there.
    """
    found: dict[str, Path] = {}
    known = kinds()
    for pair in files:
        word, equals, name = pair.partition("=")
        kind = known.get(word.strip().lower())
        if not equals or not name.strip() or kind is None:
            raise ConfigError(f"--files {pair}: expected KIND=FILE, KIND one of {', '.join(known)}; such as t1=brain_t1.nii.gz.")
        if kind in found:
            raise ConfigError(f"--files {pair}: {kind} is given twice. Name one file for it.")
        found[kind] = Path(name.strip()).expanduser()
        if not found[kind].is_file():
            raise ConfigError(f"--files {pair}: no such file.")
        twin = next((other for other, file in found.items() if other != kind and file.samefile(found[kind])), None)
        if twin:
            raise ConfigError(f"--files {pair}: is the file of {twin} as well. Name each modality's own.")
    if not any(m in found for m in MODALITIES):
        raise ConfigError(f"--files: expected at least one of {', '.join(MODALITIES)}, such as t1=brain_t1.nii.gz.")
    first = next(iter(modalities_of(found).values()))
    name = first.name.split(".nii")[0]
    return PredictionInputs(name, (_case(name, PatientFiles(found), first.parent, SiteConfig()),), single=True)


def _site(home: Path, config: SiteConfig, modalities: Modalities) -> PredictionInputs:
    name = config.name or home.resolve().name
    root = (home / Path(config.data).expanduser()).resolve()
    if not root.is_dir():
        raise DataError(f"Site {name}: data folder {root} does not exist. Correct data in site.toml.")
    folders = [(folder, config.files) for folder in patient_folders(name, root, config)]
    return _all(name, folders, root, _weights(home, config), modalities, config)


def _all(
    name: str, folders: list[tuple[Path, FilePatterns]], root: Path, weights: str, modalities: Modalities, config: SiteConfig
) -> PredictionInputs:
    """Every folder's patient; two folders of one name are named by their paths."""
    names = [folder.name for folder, _ in folders]
    cases, broken, findings, told = [], {}, [], {}
    for folder, files in folders:
        patient = folder.name if names.count(folder.name) == 1 else str(folder.relative_to(root))
        found = find_files(folder, files, modalities, root=root, session=config.session)
        if found.errors:
            broken[patient] = "; ".join(found.errors)
        else:
            cases.append(_case(patient, found, root, config))
            told[patient] = found.cells
            findings += [replace(one, patient=patient) for one in found.findings]
    return PredictionInputs(name, tuple(cases), False, broken, weights, tuple(findings), told)


def _patient(folder: Path, modalities: Modalities) -> PredictionInputs:
    """The one patient of a folder.

    Raises:
        DataError: what is wrong with their files.
    """
    name = folder.absolute().name
    home = site_home(folder)
    config = read_site_config(home) if home else SiteConfig()
    root = (home / Path(config.data).expanduser()).resolve() if home else None
    found = find_files(folder.absolute(), _naming_of(folder, modalities), modalities, root=root, session=config.session)
    if found.errors:
        raise DataError(f"Patient {name}: {'; '.join(found.errors).removesuffix('.')}.")
    weights = _weights(home, config) if home else ""
    case = _case(name, found, folder.absolute(), config)
    return PredictionInputs(name, (case,), True, {}, weights, found.findings, {name: found.cells})


def _is_patient(folder: Path, config: SiteConfig, modalities: Modalities) -> bool:
    """Whether a folder with a site.toml is a patient's own: it holds the patient's files, and no patients' folders."""
    if config.data or any(f.is_dir() for f in folder.glob(config.patients)):
        return False
    return _holds_patient(folder, modalities)


def _holds_patient(folder: Path, modalities: Modalities) -> bool:
    return _finds_any(folder, _naming_of(folder, modalities), modalities)


def _finds_any(folder: Path, naming: FilePatterns, modalities: Modalities) -> bool:
    """Whether there are files of a patient, be it that they cannot be used."""
    found = find_files(folder, naming, modalities)
    return bool(modalities_of(found.files)) or any(one.code in NAMED_BUT_BAD for one in found.findings)


def _holds_folders(folder: Path, modalities: Modalities) -> bool:
    """Whether what BIDS finds in a folder lies in folders that are no session of one patient: those are patients of their own.

    Taken for one patient, they would lend each other the modalities that one of them lacks.
    """
    naming = _naming_of(folder, modalities)
    if naming != bids_files():
        return False
    found = find_files(folder, naming, modalities).files
    paths = [file.relative_to(folder).parts for file in modalities_of(found).values()]
    tops = {parts[0] for parts in paths if len(parts) > 1}  # a picture lies in the folder itself
    own = {name for m in looked_for(modalities) for name in MODALITIES[m].folders}
    return any(top not in own and not top.startswith("ses-") for top in tops)


def _naming_of(folder: Path, modalities: Modalities) -> FilePatterns:
    """The patterns of the nearest site.toml, beside the files or above; where it names none, the naming that finds anything."""
    home = site_home(folder)
    own = read_site_config(home).files if home else bids_files()
    if own != bids_files():
        return own
    return next((naming for naming in namings() if _finds_any(folder, naming, modalities)), own)


def site_home(folder: Path) -> Path | None:
    """The nearest folder with a site.toml, from the patient's upwards."""
    here = folder.resolve()
    return next((f for f in (here, *here.parents[:ABOVE]) if (f / SITE_FILE).is_file()), None)


def _weights(home: Path, config: SiteConfig) -> str:
    own = config.connection.weights
    return str(home / Path(own).expanduser()) if own else ""


def _case(name: str, found: PatientFiles, root: Path, config: SiteConfig) -> Case:
    files, by_voxels = found.files, config.reading.by_voxels
    return Case(
        *(name, modalities_of(files), files.get(MASK), UNLABELLED, None, None, root),
        session=found.session,
        by_voxels=by_voxels,
    )
