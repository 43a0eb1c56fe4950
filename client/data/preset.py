"""How a published collection names its files, masks and labels: one TOML file a collection, under `presets/`."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from common.config.modalities import DEFAULT_MODALITIES
from common.errors import ConfigError
from common.schema import build, rows

FOLDER = Path(__file__).parent / "presets"
PRESETS = tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


@dataclass(frozen=True)
class ClassRule:
    """A class, and what the label table must say for it: the first rule that fits counts."""

    name: str  # of the run's classes
    when: dict[str, str]  # column -> a regular expression that the whole cell must match


@dataclass(frozen=True)
class LabelTable:
    """The collection's own table of labels."""

    file: str = ""  # its published name, "": the collection has none, or it was not confirmed
    id: str = ""  # column of the patient
    id_pattern: str = "(.*)"  # regular expression whose group is compared with the patient's
    age: str = ""
    sex: str = ""


@dataclass(frozen=True)
class Preset:
    """One collection."""

    title: str
    source: str  # where it is published
    patients: str  # glob of the patients' folders, anywhere below the source
    patient: str  # regular expression over a folder's name; its first group names the patient
    files: dict[str, str]  # modality or `mask` -> glob in the folder; {folder} and {patient} are filled in
    exclude: str = ""  # regular expression of folders that are left out, such as follow-ups
    excluded_because: str = ""
    mask_files: tuple[str, ...] = ()  # globs from the source, in order of preference, where masks lie elsewhere
    mask_labels: dict[str, str] = field(default_factory=dict)  # value -> tissue
    no_tumour: tuple[int, ...] = ()  # values of the mask that are no tumour, such as a resection cavity
    labels: LabelTable = field(default_factory=LabelTable)
    classes: tuple[ClassRule, ...] = rows(ClassRule, {})
    evidence: str = ""  # where naming and columns were seen
    questions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.files if kind not in (*DEFAULT_MODALITIES, "mask")]
        if wrong:
            raise ConfigError(f"files: expected {', '.join(DEFAULT_MODALITIES)} or mask, got {', '.join(wrong)}.")
        for pattern in (
            self.patient,
            self.exclude,
            self.labels.id_pattern,
            *(p for rule in self.classes for p in rule.when.values()),
        ):
            re.compile(pattern)


def read_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ConfigError: there is none of this name, or its file is wrong.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: unknown. Known: {', '.join(PRESETS)}.")
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    try:
        preset: Preset = build(Preset, table)
    except (ConfigError, re.error) as error:
        raise ConfigError(f"preset {name}: {error}") from error
    return preset
