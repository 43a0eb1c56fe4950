"""The gate: one patient's files are read and judged here, for `check`, training, prediction and the exported bundle alike.

S slices, X x Y x Z voxels. No module imported here needs torch, nor anything of FedMRI but what stands in the bundle too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.config.axes import VOLUME, fields_of_view
from common.config.modalities import MODALITIES, on_pictures
from common.config.standard import Standard
from common.data.gate import geometry
from common.data.gate.background import settle
from common.data.gate.files import read_file
from common.data.gate.finding import Finding, Level, StaysOutError
from common.data.gate.images import MASK, Images
from common.data.gate.masks import tumour_of
from common.data.gate.picture_kinds import MASK_UNREAD
from common.data.gate.presence import NOT_WANTED, present_of
from common.data.gate.rules import PICTURE_RULES, RULES
from common.data.planes import Plane, choose_cube, choose_plane, window_move
from common.data.volumes import HALF, Mask, Volume, foreground, resample

BRAIN = "brain"  # as `Cut.through`
BRAIN_LEAST = 0.1  # of the fullest slice: where masks decide nothing, slices are spread over all that show so much of the brain


class Files(Protocol):
    """One patient's files: `common.data.cases.Case`, or the bundle's own."""

    @property
    def id(self) -> str:
        """Of the patient."""

    @property
    def files(self) -> Mapping[str, Path]:
        """By modality."""

    @property
    def mask(self) -> Path | None:
        """The tumour's."""

    @property
    def by_voxels(self) -> bool:
        """`Images.by_voxels`."""

    def name_of(self, file: Path) -> str:
        """A file's name in messages."""


class Cut(Protocol):
    """How a patient is cut: `common.config.sections.DataConfig`, or the bundle's own."""

    @property
    def modalities(self) -> Sequence[str]:
        """Of the run, in its order."""

    @property
    def axes(self) -> Sequence[str]:
        """Along which slices lie."""

    @property
    def slices(self) -> int:
        """How many of each axis."""

    @property
    def through(self) -> str:
        """ "tumour" or "brain": what slices go through where there is a mask."""

    @property
    def shift(self) -> float:
        """Most that a patient's window is moved, in mm."""

    @property
    def size(self) -> int:
        """Edge in pixels."""

    @property
    def field_of_view(self) -> float | Sequence[float]:
        """Edge in mm; several: each slice is cut at each of them."""

    @property
    def intensity(self) -> str:
        """ "percentiles" or "zscore": what of a volume becomes 0 to 1."""

    @property
    def low_percentile(self) -> float:
        """Of the foreground, that becomes 0."""

    @property
    def high_percentile(self) -> float:
        """Of the foreground, that becomes 1."""

    @property
    def standard(self) -> Sequence[Standard]:
        """What volumes are mapped to; of a modality that it lacks they are not."""


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient who may be used.

    Attributes:
        images: as they were read.
        volumes: the present modalities, on the grid of `reference`.
        reference: the first modality.
        region: the mask's tumour, else the brain, [X, Y, Z].
        tumour: the region is the mask's tumour.
        guided: slices and windows go through that tumour; else through the brain.
        planes: the chosen slices, one for each axis of the run.
        findings: warnings and notes, in the order of the files.
    """

    images: Images
    volumes: Mapping[str, Volume]
    reference: Volume
    region: Mask
    tumour: bool
    guided: bool
    planes: tuple[Plane, ...]
    findings: tuple[Finding, ...]


def read_patient(case: Files, data: Cut, *, threads: int = 1) -> Patient:
    """Read one patient's files, judge them, and choose the slices.

    Args:
        case: its files of the run's modalities, and its mask, are read whole, each once.
        data: the run's modalities, axes, number of slices and fields of view.
        threads: that read volumes side by side; unpacking leaves Python's lock to others.

    Raises:
        StaysOutError: at least one finding is an error; it carries all findings.
    """
    findings: list[Finding] = []

    def add(found: Iterable[Finding]) -> None:
        findings.extend(one.of(case.id) for one in found)

    names = [m for m in data.modalities if m in case.files]
    if not names:
        add([_none_wanted(case, data)])
        raise StaysOutError(findings)
    if on_pictures(names):
        return _pictured(case, names[0], data)
    with ThreadPoolExecutor(threads) as pool:
        read = list(_spread(pool, threads)(lambda kind: _read(case, kind), [*names, *([MASK] if case.mask else [])]))
    for _, found in read:
        add(found)
    volumes = {name: volume for name, (volume, _) in zip(names, read, strict=False) if volume}
    files = {kind: case.name_of(_file(case, kind)) for kind in (*names, *([MASK] if case.mask else []))}
    images = Images(volumes, read[-1][0] if case.mask else None, files, case.by_voxels)
    for rule in RULES if volumes else ():
        add(rule(images))
    if len(volumes) < len(names) or (case.mask and not images.mask):
        raise StaysOutError(findings)
    images, found = geometry.settled(images)
    add(found)
    images, found = _with_backgrounds(images)
    add(found)
    region, found = tumour_of(images)
    add(found)
    _raise_errors(findings)
    tumour, reference = region is not None, images.reference
    brain = foreground(reference.voxels, reference.levels) if region is None or data.through == BRAIN else region
    region, guided = brain if region is None else region, tumour and data.through != BRAIN
    least = BRAIN_LEAST if data.through == BRAIN else HALF
    moves = (window_move(case.id, axis, data.shift) for axis in data.axes)
    planes = tuple(
        choose_cube(brain, reference, data, move)
        if axis == VOLUME
        else choose_plane(brain, reference, axis, data.slices, tumour=guided, least=least, move=move)
        for axis, move in zip(data.axes, moves, strict=True)
    )
    placed = {name: resample(volume, reference) for name, volume in images.volumes.items()}
    present, found = present_of(images, placed, planes, max(fields_of_view(data)))
    add(found)
    _raise_errors(findings)
    return Patient(images, present, reference, region, tumour, guided, planes, tuple(findings))


def _pictured(case: Files, name: str, data: Cut) -> Patient:
    """A patient's one picture. What the gate asks of MRI (a head, its place and size, a background, a mask) is not asked here.

    Raises:
        StaysOutError: as `read_patient`.
    """
    volume, found = _read(case, name)
    findings = [one.of(case.id) for one in found]
    if volume is None:
        raise StaysOutError(findings)
    images = Images({name: volume}, None, {name: case.name_of(case.files[name])})
    findings += [one.of(case.id) for rule in PICTURE_RULES for one in rule(images)]
    if case.mask:
        told = MASK_UNREAD.finding("a mask beside a picture, not read", "none", "Nothing needs to be done.")
        findings.append(told.of(case.id, case.name_of(case.mask)))
    _raise_errors(findings)
    region = np.ones(volume.voxels.shape, bool)
    planes = tuple(
        choose_plane(region, volume, axis, data.slices, tumour=False, move=window_move(case.id, axis, data.shift))
        for axis in data.axes
    )
    return Patient(images, images.volumes, volume, region, False, False, planes, tuple(findings))


def guided_by(read: Patient, region: Mask, data: Cut) -> Patient:
    """The patient as if somebody had drawn this tumour: slices and windows go through it.

    Args:
        read: as `read_patient` gave them, without a mask.
        region: [X, Y, Z] on the grid of `reference`, not empty.
        data: as for `read_patient`.
    """
    planes = tuple(choose_plane(region, read.reference, axis, data.slices, tumour=True) for axis in data.axes)
    return replace(read, region=region, tumour=True, guided=True, planes=planes)


def _with_backgrounds(images: Images) -> tuple[Images, list[Finding]]:
    """The images with their backgrounds at 0; maps of a quantity stay as they are."""
    volumes, findings = dict(images.volumes), []
    for name, volume in images.volumes.items():
        if MODALITIES[name].quantity is None:
            volumes[name], found = settle(volume)
            findings += [images.finding_of(one, name) for one in found]
    return replace(images, volumes=volumes), findings


def inspect(case: Files, data: Cut) -> tuple[Finding, ...]:
    """All findings of one patient, errors among them, as training and prediction would have them."""
    try:
        return read_patient(case, data).findings
    except StaysOutError as out:
        return out.findings


def _raise_errors(findings: Sequence[Finding]) -> None:
    if any(one.level is Level.ERROR for one in findings):
        raise StaysOutError(findings)


def _none_wanted(case: Files, data: Cut) -> Finding:
    found = f"none of {', '.join(data.modalities)}; it has {', '.join(case.files) or 'nothing'}"
    return NOT_WANTED.finding(found, "a modality of the run", "Add files, or leave the patient out (exclude).")


def _read(case: Files, kind: str) -> tuple[Volume | None, Iterable[Finding]]:
    """A file's volume and findings; None where it cannot be used."""
    file = _file(case, kind)
    try:
        return read_file(file, case.name_of(file))
    except StaysOutError as out:
        return None, out.findings


def _file(case: Files, kind: str) -> Path:
    file = case.mask if kind == MASK else case.files[kind]
    assert file is not None  # nobody asks for the mask of a patient without one
    return file


def _spread(pool: ThreadPoolExecutor, threads: int) -> Callable[..., Iterator[Any]]:
    """Side by side, or with one thread one after the other."""
    return pool.map if threads > 1 else map
