"""Checks a site before it joins: reads every patient as training would, and lists what was found.

All of this stays at the site.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.config.modalities import looked_for
from common.config.run import RunConfig
from common.data.cases import Case, Site
from common.data.gate.finding import Finding, Kind, Level, StaysOutError, stay_out
from common.data.gate.patient import Patient, read_patient
from common.data.volumes import Volume

SAME_VOXELS = Kind("volume-twice", Level.WARNING, "two files hold the same voxels")


@dataclass(frozen=True)
class SiteCheck:
    """The result for a site: it can train where somebody is left who has no error."""

    site: str
    patients: int
    modalities: dict[str, int]  # patients that have it
    masks: int
    classes: dict[str, int]  # patients of each class, and `unlabelled`
    findings: tuple[Finding, ...]  # about the site, then patient by patient
    covariates: dict[str, int] = field(default_factory=dict)  # patients of whom it is known, of the run's covariates

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(one for one in self.findings if one.level is level)

    @property
    def used(self) -> int:
        """Patients who would be used."""
        return self.patients - len(stay_out(self.findings))

    @property
    def usable(self) -> bool:
        """Whether the site can train: anybody is left, and nothing is wrong with the site as a whole."""
        return self.used > 0 and not any(not one.patient for one in self.of(Level.ERROR))


def check_site(site: Site, run: RunConfig, *, progress: Callable[[int, int], None] | None = None) -> SiteCheck:
    """Read every volume and mask of a site, as training would.

    Args:
        site: as `read_site` found it.
        run: with which `site` was read.
        progress: called with (patients done, of all).
    """
    findings = list(site.findings)
    contents: dict[str, tuple[Case, Path]] = {}
    out = stay_out(findings)  # by their names or rows: mended first, for else their images would be called bad for it
    for done, case in enumerate(site.cases, start=1):
        if case.id not in out:
            findings += _read(case, run, contents)
        if progress:
            progress(done, len(site.cases))
    labels = [case.label for case in site.cases]
    return SiteCheck(
        site=site.name,
        patients=len(site.cases),
        modalities={m: sum(m in case.files for case in site.cases) for m in looked_for(run.data.modalities)},
        masks=sum(case.mask is not None for case in site.cases),
        classes={**{name: labels.count(i) for i, name in enumerate(run.task.classes)}, "unlabelled": labels.count(-1)},
        findings=tuple(findings),
        covariates=_known(site, run),
    )


def _read(case: Case, run: RunConfig, contents: dict[str, tuple[Case, Path]]) -> list[Finding]:
    """What is found in one patient's images. Adds to `contents`."""
    try:
        read = read_patient(case, run.data)
    except StaysOutError as error:
        return list(error.findings)
    return [*read.findings, *_duplicates(case, read, contents)]


def _known(site: Site, run: RunConfig) -> dict[str, int]:
    """Of how many patients each covariate is known."""
    names = [covariate.name for covariate in run.data.covariates]
    return {name: sum(not math.isnan(case.covariates[i]) for case in site.cases) for i, name in enumerate(names)}


def _duplicates(case: Case, read: Patient, contents: dict[str, tuple[Case, Path]]) -> list[Finding]:
    """Volumes whose voxels were seen before, in another patient or modality. Adds to `contents`."""
    found = []
    for kind, volume in read.images.volumes.items():
        digest = _digest(volume)
        first_case, first_file = contents.setdefault(digest, (case, case.files[kind]))
        if first_file != case.files[kind]:
            text = f"has the same voxels as {first_case.name_of(first_file)}"
            one = SAME_VOXELS.finding(text, "another image", "Find out which of the two it is.")
            found.append(one.of(case.id, case.name_of(case.files[kind])))
    return found


def _digest(volume: Volume) -> str:
    """Equal for equal voxels. Of a volume whose values are counted, one voxel in 16 beside the counts tells it from any other."""
    levels = volume.levels
    if levels is None:
        return hashlib.sha256(f"{volume.voxels.shape}".encode() + volume.voxels.tobytes()).hexdigest()
    some = np.ascontiguousarray(volume.voxels[::4, ::4])
    return hashlib.sha256(
        f"{volume.voxels.shape}".encode() + levels.values.tobytes() + levels.counts.tobytes() + some.tobytes()
    ).hexdigest()
