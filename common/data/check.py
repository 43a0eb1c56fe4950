"""Checks a site before it joins: opens every volume and lists errors and oddities, patient by patient.

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
from common.config.site import MASK
from common.data.cases import Case, Site
from common.data.volumes import Volume, load_volume, resample
from common.errors import DataError

THICK = 2.0  # an axis is thick when its voxels are this much longer than the others


@dataclass(frozen=True)
class Finding:
    """One sentence about one patient's file; `file` is relative to the data folder, or empty."""

    patient: str
    file: str
    sentence: str


@dataclass(frozen=True)
class SiteCheck:
    """The result for a site: `problems` keep it from training, `warnings` deserve a look."""

    site: str
    patients: int
    modalities: dict[str, int]  # patients that have it
    masks: int
    classes: dict[str, int]  # patients of each class, and `unlabelled`
    problems: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    notes: tuple[str, ...]
    covariates: dict[str, int] = field(default_factory=dict)  # patients of whom it is known, of the run's covariates


def check_site(site: Site, run: RunConfig, *, progress: Callable[[int, int], None] | None = None) -> SiteCheck:
    """Open every volume and mask of a site.

    Args:
        site: as `read_site` found it.
        run: with which `site` was read.
        progress: called with (patients done, of all).
    """
    problems: list[Finding] = []
    warnings: list[Finding] = []
    contents: dict[str, tuple[Case, Path]] = {}
    for done, case in enumerate(site.cases, start=1):
        if not any(m in case.files for m in run.data.modalities):
            problems.append(Finding(case.id, "", f"has none of the run's modalities {', '.join(run.data.modalities)}"))
        volumes, troubles = _open(case)
        problems += troubles
        warnings += _oddities(case, volumes)
        warnings += _duplicates(case, volumes, contents)
        if progress:
            progress(done, len(site.cases))
    labels = [case.label for case in site.cases]
    return SiteCheck(
        site=site.name,
        patients=len(site.cases),
        modalities={m: sum(m in case.files for case in site.cases) for m in looked_for(run.data.modalities)},
        masks=sum(case.mask is not None for case in site.cases),
        classes={**{name: labels.count(i) for i, name in enumerate(run.task.classes)}, "unlabelled": labels.count(-1)},
        problems=tuple(problems),
        warnings=tuple(warnings),
        notes=site.notes,
        covariates=_known(site, run),
    )


def _known(site: Site, run: RunConfig) -> dict[str, int]:
    """Of how many patients each covariate is known."""
    names = [covariate.name for covariate in run.data.covariates]
    return {name: sum(not math.isnan(case.covariates[i]) for case in site.cases) for i, name in enumerate(names)}


def _open(case: Case) -> tuple[dict[str, Volume], list[Finding]]:
    """The patient's readable volumes, the mask among them under `mask`, and what cannot be read."""
    volumes, troubles = {}, []
    for kind, file in case.sources():
        try:
            volumes[kind] = load_volume(file, "it")
        except DataError as error:
            troubles.append(_finding(case, file, str(error).removeprefix("it: ").removesuffix(".")))
    return volumes, troubles


def _oddities(case: Case, volumes: dict[str, Volume]) -> list[Finding]:
    """What can be used, but hardly as meant."""
    odd: list[tuple[str, str]] = []
    images = {kind: volume for kind, volume in volumes.items() if kind != MASK}
    reference = next(iter(images.values()), None)
    for kind, volume in images.items():
        if not np.isfinite(volume.voxels).all():
            odd.append((kind, "holds voxels that are not finite numbers; they count as background"))
        if _is_constant(volume):
            odd.append((kind, "is constant: there is nothing to see"))
        thickness = sorted(volume.spacing)
        if thickness[2] > THICK * thickness[1] and max(volume.spacing) != volume.spacing[2]:
            odd.append((kind, f"has thick slices that are not axial ({_mm(volume)} mm): axial images of it are coarse"))
        if reference and not volume.same_grid(reference) and _is_constant(resample(volume, reference)):
            odd.append((kind, "does not overlap the patient's first modality: its images are empty"))
    if MASK in volumes and reference:
        odd += [(MASK, sentence) for sentence in _mask_oddities(volumes[MASK], reference)]
    files = dict(case.sources())
    return [_finding(case, files[kind], sentence) for kind, sentence in odd]


def _is_constant(volume: Volume) -> bool:
    finite = volume.voxels[np.isfinite(volume.voxels)]
    return not finite.size or bool(finite.min() == finite.max())


def _mask_oddities(mask: Volume, reference: Volume) -> list[str]:
    if not (mask.voxels > 0).any():
        return ["is an empty mask: slices are chosen from the whole brain"]
    if mask.same_grid(reference):
        return []
    if not (resample(mask, reference, order=0).voxels > 0).any():
        return ["lies outside the patient's first modality: slices are chosen from the whole brain"]
    return [f"is a mask on another grid ({_grid(mask)}) than the first modality ({_grid(reference)}): it is resampled"]


def _duplicates(case: Case, volumes: dict[str, Volume], contents: dict[str, tuple[Case, Path]]) -> list[Finding]:
    """Volumes whose voxels were seen before, in another patient or modality. Adds to `contents`."""
    found = []
    for kind, volume in volumes.items():
        if kind == MASK or _is_constant(volume):
            continue
        digest = hashlib.sha256(f"{volume.voxels.shape}".encode() + volume.voxels.tobytes()).hexdigest()
        first_case, first_file = contents.setdefault(digest, (case, case.files[kind]))
        if first_file != case.files[kind]:
            found.append(_finding(case, case.files[kind], f"has the same voxels as {first_case.name_of(first_file)}"))
    return found


def _finding(case: Case, file: Path, sentence: str) -> Finding:
    return Finding(case.id, case.name_of(file), sentence)


def _mm(volume: Volume) -> str:
    return " x ".join(f"{length:.3g}" for length in volume.spacing)


def _grid(volume: Volume) -> str:
    return f"{' x '.join(str(n) for n in volume.voxels.shape)} voxels of {_mm(volume)} mm"
