"""The files of a patient that could be an image or a mask, and the patterns of site.toml among them."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.links import files_under
from common.data.gate.names import Name

DERIVATIVES = "derivatives"
NATIVE = re.compile(r"|t1w?|t1c|t2w?|flair|orig|native|individual|scanner|subject|anat")  # spaces that are the patient's own


@dataclass
class Notebook:
    """Findings about one patient, as they come.

    Attributes:
        patient: whose.
        home: their folder, relative to the data folder, from which findings name files; "": the two are one.
        findings: so far.
    """

    patient: str
    home: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: Kind, file: str = "", *, found: str, expected: str, do: str, level: Level | None = None) -> None:
        """One more, about a file of the patient's, or one under `derivatives/`."""
        file = f"{self.home}/{file}" if file and self.home and not file.startswith(f"{DERIVATIVES}/") else file
        self.findings.append(kind.finding(found, expected, do, file=file, level=level).of(self.patient))


@dataclass(frozen=True)
class Candidate:
    """A file that could be one of a modality, or the mask.

    Attributes:
        path: relative to the patient's folder; under `derivatives/` to the data folder.
        file: where it is.
        session: label; "": none.
        exact: named as BIDS names it, or as site.toml says, and not in a wider sense.
    """

    path: str
    file: Path
    session: str = ""
    exact: bool = True

    @cached_property
    def name(self) -> Name:
        """Of the file."""
        return Name(self.file.name)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Of the path."""
        return PurePosixPath(self.path).parts

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Of the path; those that only say where derivatives lie are left out."""
        return self.parts[3:-1] if self.dataset else self.parts[:-1]

    @cached_property
    def dataset(self) -> str:
        """Name of the folder under `derivatives/` that holds it; "": it is raw."""
        return self.parts[1] if self.parts[0] == DERIVATIVES and len(self.parts) > 3 else ""

    @cached_property
    def space(self) -> str:
        """Of the entity `space-`, in lower case; "": the patient's own."""
        space = self.name.entities.get("space", "").lower()
        return "" if NATIVE.fullmatch(space) else space


Candidates = dict[str, list[Candidate]]
"""By modality, or `mask`."""


def own_files(folder: Path) -> list[Candidate]:
    """What lies in the patient's folder.

    Raises:
        OSError: it cannot be read.
    """
    return [Candidate(path, folder / path) for path in files_under(folder)]


def derived_files(root: Path, patient: str) -> list[Candidate]:
    """The patient's files under `derivatives/NAME/PATIENT`; of a data folder `rawdata`, under the `derivatives` beside it too.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for home in (root, root.parent) if root.name in ("rawdata", "raw") else (root,):
        for dataset in sorted((home / DERIVATIVES).iterdir()) if (home / DERIVATIVES).is_dir() else []:
            folder = dataset / patient
            place = f"{DERIVATIVES}/{dataset.name}/{patient}/"
            found += [Candidate(place + path, folder / path) for path in files_under(folder)] if folder.is_dir() else []
    return found


def matching(files: Iterable[Candidate], globs: Sequence[str]) -> list[Candidate]:
    """Those that fit a glob of site.toml. Of a volume's file and what lies beside it (sidecars, checksums) the volume alone."""
    found = [one for one in files if any(_fits(one, PurePosixPath(glob).parts) for glob in globs)]
    return [one for one in found if one.name.end] or found


def _fits(one: Candidate, glob: Sequence[str]) -> bool:
    """Globs that start with `derivatives/` speak of derivatives, others of the patient's own folder."""
    return (glob[0] == DERIVATIVES) == bool(one.dataset) and _fits_parts(one.parts, glob)


def _fits_parts(path: Sequence[str], glob: Sequence[str]) -> bool:
    """As `Path.glob` matches, but that `**` enters linked folders."""
    if not glob or not path:
        return not glob and not path
    if glob[0] == "**":
        return any(_fits_parts(path[start:], glob[1:]) for start in range(len(path)))
    return fnmatchcase(path[0], glob[0]) and _fits_parts(path[1:], glob[1:])


def without_copies(files: Sequence[Candidate]) -> Iterator[Candidate]:
    """Each file once: links to one and the same, and the two halves of a .hdr and .img pair, of which the .img is named."""
    seen: set[str] = set()
    for one in sorted(files, key=lambda one: (one.file.is_symlink(), one.path)):
        end = one.name.end.lower()
        target = os.path.realpath(one.file)  # of a link to itself too, where `resolve` raises
        twin = re.sub(r"\.hdr(\.gz)?$", r".img\1", one.file.name, flags=re.IGNORECASE)
        if target in seen or (end.startswith(".hdr") and any(other.file.name == twin for other in files)):
            continue
        seen.add(target)
        yield one
