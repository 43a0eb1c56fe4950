"""The hospital's own file, `site.toml`: where its patients are, how files are named, what labels mean, what may leave.

Without a `site.toml` a folder is read as BIDS and nothing but updates may leave it.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from common.config.modalities import MASK, MASKS, MODALITIES, FilePatterns, file_patterns
from common.errors import ConfigError
from common.schema import build, check_ranges, choice, ranged

NO_LABELS = "none"  # as `labels.column`: this site has no labels, whatever its table holds
SITE_CONFIG = "site-config"  # key of the node configuration: the path of site.toml at a hospital
SITE_VARIABLE = "FEDMRI_SITE"  # in the environment of a hospital's programs: the same path


@dataclass(frozen=True)
class SitePolicy:
    """The hospital's policy: what may leave the site besides updates, and what it trains. By default nothing else leaves.

    A server that chooses frozen weights and adapters freely can read images out of gradients (PEFTLeak, arXiv 2506.04453): the
    pins hold it to those that were agreed (`fedmri-site pins`).
    """

    share_counts: bool = False  # how many patients, and how many of them labelled
    share_metrics: bool = False  # the training losses
    metrics: tuple[str, ...] = ("*",)  # globs of the names of those that may leave, where share_metrics is set
    share_calibration: bool = False  # sums over held-out patients, and of features of all; docs/hospital.md
    share_data_hash: bool = False  # a keyed hash of what a round trained on, for the report
    twins: str = choice("off", "off", "keep", "drop", "refuse")  # look for patients whom others have too; what then
    share_twins: bool = False  # how many patients are left out of a run for being at another hospital too
    survey: tuple[str, ...] = ()  # globs of the topics that a survey may be told; docs/hospital.md
    share_pictures: bool = False  # slices of patients in the report, where this site is the external one
    min_patients: int = ranged(10, 1, 1_000_000)  # a smaller cohort sends no counts, losses or sums
    backbone_sha256: str = ""  # pinned backbone; "": the one that this machine's configuration loads, whatever it is
    initial_sha256: str = ""  # pinned arrays of the first round; "": any
    secure_only: bool = False  # no update leaves but masked, by secure aggregation
    min_summed: int = ranged(3, 2, 1000)  # a secure sum of fewer sites is not taken part in
    arrays: tuple[str, ...] = ("*",)  # globs of the names of the trained arrays that may leave
    max_megabytes: float = ranged(64.0, 0.001, 1e5)  # of one reply
    max_update_norm: float = ranged(0.0, 0.0, 1e9)  # of (reply - global), all arrays together; 0: any
    max_rank: int = ranged(
        0, 0, 256
    )  # of an adapter, that the site trains; 0: any. Runs with `low_rank = "svd"` allow less than theirs
    hours: str = ""  # local time in which the site trains, such as "19:00-06:30"; "": always
    max_hours: float = ranged(6.0, 0.01, 168.0)  # that one request may take, whatever the server allows
    take_weights: bool = True  # small frozen weights that the coordinator hands over; else by `fedmri-site weights add` alone
    keep_models: bool = True  # released models that the coordinator hands over, where their signature fits
    approval: bool = True  # only bundles approved by `fedmri-site approve` run at a deployed site

    def __post_init__(self) -> None:
        for name in ("backbone_sha256", "initial_sha256"):
            value = getattr(self, name)
            if value and not re.fullmatch("[0-9a-f]{64}", value):
                raise ConfigError(f"policy.{name}: expected 64 hexadecimal digits (see `fedmri-site pins`), got {value!r}.")
        check_ranges(self, "policy.")
        if self.hours:
            read_hours(self.hours)

    @classmethod
    def simulation(cls) -> "SitePolicy":
        """The policy of virtual sites, whose data are the researcher's own: everything may leave."""
        told: dict[str, Any] = {"twins": "drop", "share_twins": True, "survey": ("*",), "min_summed": 2}
        return cls(share_counts=True, share_metrics=True, share_calibration=True, share_pictures=True, min_patients=1, **told)


@dataclass(frozen=True)
class SiteConnection:
    """How a deployed site reaches its coordinator (`fedmri-site init` fills it in). Paths are relative to site.toml."""

    server: str = ""  # host:port of the coordinator; "": the site is not deployed
    ca: str = "ca.crt"  # the coordinator's certificate authority, and no other is trusted
    key: str = "keys/site"  # private key, made here; its public half is keys/site.pub
    state: str = "state"  # logs, audit log, what runs now
    weights: str = ""  # local file of the backbone's weights; "": what the run's model.weights says

    def __post_init__(self) -> None:
        if self.server:
            split_address("connection.server", self.server)


@dataclass(frozen=True)
class SitePrivacy:
    """The hospital's privacy budget, for all runs together (`fedmri-site budget`)."""

    epsilon: float = ranged(0.0, 0.0, 1e6)  # that no patient may exceed; 0: none is set, and runs without privacy are taken too
    delta: float = ranged(1e-3, 1e-12, 0.5)
    ledger: str = "privacy-ledger.jsonl"  # relative to site.toml
    same_patient: str = choice("refuse", "refuse", "charge")  # two patients who are one person: what a private round does

    def __post_init__(self) -> None:
        check_ranges(self, "privacy.")
        if not self.ledger.strip():
            raise ConfigError("privacy.ledger: expected a file name, got ''.")


def bids_files() -> FilePatterns:
    """How BIDS names the files of each modality, and the tumour's mask."""
    return {**file_patterns(), MASK: MASKS}


@dataclass(frozen=True)
class ReadingConfig:
    """How the site's files are read where a file can be read in two ways."""

    place: str = choice("header", "header", "voxels")  # of masks and images that do not meet, but have the first modality's shape

    @property
    def by_voxels(self) -> bool:
        """Images and masks of one shape belong voxel to voxel."""
        return self.place == "voxels"

    def __post_init__(self) -> None:
        check_ranges(self, "reading.")


@dataclass(frozen=True)
class LabelConfig:
    """Where the labels are, and which class of the run each of the site's words means."""

    table: str = "participants.tsv"  # looked for beside site.toml, then in the data folder
    column: str = ""  # "": the run's `task.label`; "none": this site has no labels
    columns: dict[str, str] = field(default_factory=dict)  # of runs of several findings: the run's name -> the table's column
    map: dict[str, str] = field(default_factory=dict)  # the table's word -> a class of the run (of findings: yes or no), or "n/a"


@dataclass(frozen=True)
class SiteConfig:
    """All that `site.toml` may hold."""

    name: str = ""  # "": the name of the folder
    data: str = ""  # folder of the patients, relative to site.toml; "": beside it
    patients: str = "sub-*"  # glob of the patients' folders
    exclude: tuple[str, ...] = ()  # globs of patient ids to leave out
    session: str = ""  # glob of the session that is used, such as "preop"; "": by the rule of `common.data.gate.sessions`
    files: FilePatterns = field(default_factory=bids_files)  # in site.toml: one glob or several; what it does not name is BIDS
    labels: LabelConfig = field(default_factory=LabelConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    policy: SitePolicy = field(default_factory=SitePolicy)
    privacy: SitePrivacy = field(default_factory=SitePrivacy)
    connection: SiteConnection = field(default_factory=SiteConnection)

    def __post_init__(self) -> None:
        _check_pattern("patients", self.patients)
        for kind, patterns in self.files.items():
            if kind not in (*MODALITIES, MASK):
                raise ConfigError(f"Unknown key 'files.{kind}'. Known here: {', '.join((*MODALITIES, MASK))}.")
            for pattern in patterns:
                _check_pattern(f"files.{kind}", pattern)
        if self.name:
            check_name(self.name)


def read_site_config(path: Path) -> SiteConfig:
    """Read `site.toml`; a folder without one gives the defaults, which are BIDS and the strict policy.

    Args:
        path: a site's folder, or the file itself.

    Raises:
        ConfigError: unreadable, not TOML, unknown key or wrong value, with the file's name and the dotted key.
    """
    file = path / "site.toml" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        return SiteConfig()
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}). Name a site folder or its site.toml.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested beyond reason
        raise ConfigError(f"{file}: not valid TOML ({error}).") from error
    try:
        config: SiteConfig = build(SiteConfig, _with_lists(table))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return config


def read_policy(path: Path, *, simulated: bool) -> SitePolicy:
    """The policy of a site alone, without its patients; errors as `read_site_config`.

    Args:
        path: a site's folder, or its site.toml.
        simulated: a folder without `site.toml` belongs to the researcher, so nothing in it is secret.
    """
    if simulated and path.suffix != ".toml" and not (path / "site.toml").exists():
        return SitePolicy.simulation()
    return read_site_config(path).policy


def is_site(folder: Path) -> bool:
    """Whether `folder` looks like a site: it has a `site.toml`, a `participants.tsv` or patients named `sub-*`."""
    if not folder.is_dir() or folder.name.startswith("."):
        return False
    return any((folder / name).is_file() for name in ("site.toml", "participants.tsv")) or any(
        child.is_dir() for child in folder.glob("sub-*")
    )


def find_sites(folder: Path) -> tuple[Path, ...]:
    """The site folders directly under `folder`, sorted by name; empty where there are none."""
    return tuple(sorted(child for child in folder.iterdir() if is_site(child))) if folder.is_dir() else ()


def check_name(name: str) -> str:
    """Return a site's name unchanged.

    Raises:
        ConfigError: empty, longer than 64, not printable, or holding `/` (patient ids) or `+` (several external sites).
    """
    if not name.strip() or len(name) > 64 or not name.isprintable() or {"/", "+"} & set(name):
        raise ConfigError(
            f"Site name {name!r}: expected 1 to 64 printable characters without '/' and '+'. Set name in site.toml."
        )
    return name


def split_address(key: str, address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`.

    Args:
        key: name of the setting, for the error.
        address: as the user wrote it.

    Raises:
        ConfigError: it is neither.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", address)
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ConfigError(f"{key}: expected host:port, such as fedmri.example.org:8443, got {address!r}.")
    return found[1].strip("[]"), int(found[2])


def read_hours(hours: str) -> tuple[int, int]:
    """Begin and end of `HH:MM-HH:MM`, in minutes after midnight; the end may lie on the next day.

    Raises:
        ConfigError: it is no such span.
    """
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", hours)
    span = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if span[0] == span[1]:
        raise ConfigError(f'policy.hours: expected a span of local time such as "19:00-06:30", got {hours!r}.')
    return span


def _check_pattern(key: str, pattern: str) -> None:
    """Refuse globs that are empty or lead out of the folder they start from."""
    parts = PurePosixPath(pattern).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ConfigError(f"{key}: expected a relative glob pattern without '..', got {pattern!r}.")


def _with_lists(table: dict[str, Any]) -> dict[str, Any]:
    """Let a single pattern stand for a list of one, "" for a kind of file that the site does not have, and BIDS for the rest."""
    files = table.get("files")
    if not isinstance(files, dict):
        return table
    listed = {key: ([value] if value else []) if isinstance(value, str) else value for key, value in files.items()}
    return {**table, "files": bids_files() | listed}
