"""What a hospital has, as counts of patients by topic: for a survey before anything trains.

Groups are the same for every survey of one label; of what is told about each, `common.data.suppression` decides.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, combinations

import numpy as np

from common.config.modalities import DEFAULT_MODALITIES
from common.config.modalities import MODALITIES as MODALITY_ROWS
from common.config.run import RunConfig
from common.data.cases import UNLABELLED, Case, Site
from common.data.gate.finding import StaysOutError
from common.data.gate.patient import Patient, read_patient
from common.data.harmonisation import DIGITS, landmarks
from common.data.slices import intensity_rule
from common.data.suppression import Counts, Topic, release
from common.data.volumes import foreground

MODALITIES, CLASSES, AGES, SPACING, SCANNER, FINDINGS = "modalities", "classes", "ages", "spacing", "scanner", "findings"
INTENSITIES = "intensities"
TOPICS = (MODALITIES, CLASSES, AGES, SPACING, SCANNER, FINDINGS, INTENSITIES)
UNKNOWN = "unknown"
LABELLED = "labelled"  # of a run of findings: who has which together may tell who it is
AGE_BANDS = ((0, "under 20"), (20, "20 to 39"), (40, "40 to 59"), (60, "60 to 79"), (80, "80 and over"))  # years, from
SPACING_BANDS = ((0.0, "under 1.5 mm"), (1.5, "1.5 to 3 mm"), (3.0, "3 to 5 mm"), (5.0, "5 mm and over"))  # of slices, from
LANDMARKS = (5, 50, 95)  # percentiles of the foreground


@dataclass(frozen=True)
class Facts:
    """One patient's."""

    id: str
    modalities: str
    label: str
    age: str
    spacing: str
    scanner: str
    findings: tuple[str, ...]  # codes
    intensities: Mapping[str, tuple[float, ...]]  # by modality, at LANDMARKS
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by modality, of `common.data.harmonisation`

    @property
    def digest(self) -> str:
        """A hash that changes with any of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a hospital tells. Counts mean "at least", in steps of `least`; what is under it is 0.

    Attributes:
        landmarks: medians over patients, two digits, of modalities that at least `least` patients have.
        scales: means over patients of the landmarks between 0 and 1, three digits, of the same modalities.
    """

    least: int
    patients: int
    topics: Mapping[str, Counts]
    landmarks: Mapping[str, tuple[float, ...]]
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def site_facts(site: Site, run: RunConfig, progress: Callable[[int, int], None] | None = None) -> list[Facts]:
    """Read everybody, as training would."""
    facts = []
    for done, case in enumerate(site.cases, start=1):
        codes = {one.code for one in site.findings if one.patient == case.id}
        try:
            read: Patient | None = read_patient(case, run.data)
            codes |= {one.code for one in read.findings} if read else set()
        except StaysOutError as out:
            read, codes = None, codes | {one.code for one in out.findings}
        facts.append(_facts(case, read, codes, run))
        if progress:
            progress(done, len(site.cases))
    return facts


def answer(facts: Sequence[Facts], run: RunConfig, least: int, topics: Iterable[str]) -> Answer:
    """What may be told.

    Args:
        facts: of everybody.
        run: its classes and modalities are the groups.
        least: the minimum of patients behind a number.
        topics: those that the hospital's policy lets out.
    """
    counted = counts(facts, run)
    patients, told = release({name: counted[name] for name in topics if name in counted}, len(facts), least)
    told = {name: {g: n for g, n in groups.items() if n or counted[name].closed} for name, groups in told.items()}
    if INTENSITIES not in topics or not patients:
        return Answer(least, patients, told, {})
    return Answer(least, patients, told, _landmarks(facts, least), _scales(facts, least))


def counts(facts: Sequence[Facts], run: RunConfig) -> dict[str, Topic]:
    """Everybody by topic."""
    subsets = chain.from_iterable(combinations(run.data.modalities, n) for n in range(len(run.data.modalities) + 1))
    return {
        MODALITIES: _counted((one.modalities for one in facts), ["+".join(subset) or "none" for subset in subsets]),
        CLASSES: _counted((one.label for one in facts), [*_classes(run), "unlabelled"]),
        AGES: _counted((one.age for one in facts), [*(name for _, name in AGE_BANDS), UNKNOWN]),
        SPACING: _counted((one.spacing for one in facts), [*(name for _, name in SPACING_BANDS), UNKNOWN]),
        SCANNER: Topic(Counter(one.scanner for one in facts), closed=False),
        FINDINGS: Topic(Counter(code for one in facts for code in one.findings), apart=False, closed=False),
    }


def definition(run: RunConfig) -> str:
    """Hash of what the groups are: two surveys with different ones could be played against each other."""
    data = replace(run.data, standard=()).of_slices()  # nothing that is told depends on it
    said = [run.task.classes, run.task.label, run.data.modalities, data, DEFAULT_MODALITIES]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _classes(run: RunConfig) -> tuple[str, ...]:
    """Groups of labelled patients, one a patient."""
    return run.task.classes if run.task.exclusive or run.task.decoder else (LABELLED,)


def _class_of(case: Case, run: RunConfig) -> str:
    return run.task.named(case.label)[0] if run.task.exclusive or run.task.decoder else LABELLED


def _counted(values: Iterable[str], groups: Iterable[str]) -> Topic:
    found = Counter(values)
    return Topic({group: found[group] for group in groups})


def _facts(case: Case, read: Patient | None, codes: Iterable[str], run: RunConfig) -> Facts:
    spacing = read.reference.spacing if read else None
    return Facts(
        id=case.id,
        modalities="+".join(m for m in run.data.modalities if m in case.files) or "none",
        label="unlabelled" if case.label == UNLABELLED else _class_of(case, run),
        age=_band(case.age, AGE_BANDS),
        spacing=_band(spacing[2] if spacing else None, SPACING_BANDS),
        scanner=_scanner(read) if read else UNKNOWN,
        findings=tuple(sorted(codes)),
        intensities={name: _percentiles(read, name) for name in read.volumes} if read else {},
        scales=_own_scales(read, run) if read else {},
    )


def _scanner(read: Patient) -> str:
    """Patients of one protocol have one grid: its voxels (mm) and its matrix in the plane."""
    x, y, z = read.reference.spacing
    across, down, _ = read.reference.voxels.shape
    return f"{x:.2g} x {y:.2g} x {z:.2g} mm, {across} x {down}"


def _percentiles(read: Patient, name: str) -> tuple[float, ...]:
    voxels = read.volumes[name].voxels
    inside = voxels[foreground(voxels)]
    return tuple(float(value) for value in np.percentile(inside, LANDMARKS)) if inside.size else (0.0,) * len(LANDMARKS)


def _landmarks(facts: Sequence[Facts], least: int) -> dict[str, tuple[float, ...]]:
    """Medians over patients; of few of them nothing."""
    names = sorted({name for one in facts for name in one.intensities})
    known = {name: [one.intensities[name] for one in facts if name in one.intensities] for name in names}
    return {
        name: tuple(float(f"{value:.2g}") for value in np.median(values, axis=0))
        for name, values in known.items()
        if len(values) >= least
    }


def _own_scales(read: Patient, run: RunConfig) -> dict[str, tuple[float, ...]]:
    """A patient's landmarks, as the run's own window makes them; not of volumes without contrast, nor of physical quantities."""
    plain = {name: volume for name, volume in read.volumes.items() if MODALITY_ROWS[name].quantity is None}
    found = {name: landmarks(volume, intensity_rule(volume, name, run.data)) for name, volume in plain.items()}
    return {name: tuple(round(mark, DIGITS) for mark in marks) for name, marks in found.items() if marks}


def _scales(facts: Sequence[Facts], least: int) -> dict[str, tuple[float, ...]]:
    """Means over patients; of few of them nothing."""
    names = sorted({name for one in facts for name in one.scales})
    known = {name: [one.scales[name] for one in facts if name in one.scales] for name in names}
    return {
        name: tuple(round(float(mark), 3) for mark in np.mean(marks, axis=0))
        for name, marks in known.items()
        if len(marks) >= least
    }


def _band(value: float | None, bands: Sequence[tuple[float, str]]) -> str:
    if value is None or math.isnan(value) or value < 0:
        return UNKNOWN
    return [name for least, name in bands if value >= least][-1]
