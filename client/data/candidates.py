"""The series of a source, each with what it is taken for, and which of them a site folder takes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from client.data.dicom.header import value
from client.data.dicom.modality import OTHER, Decision, decide
from client.data.dicom.series import Series, is_continued
from client.data.pseudonym import Pseudonyms
from common.config.modalities import DEFAULT_MODALITIES

SURE = 0.5  # less confidence than this is for a person to decide

RULE = (
    "of several series of a modality: not reformatted, then surest, then finest (by its coarsest step), then most slices, then "
    "first acquired; of several studies: most modalities, then earliest"
)
"""How one series a modality and one study a patient are chosen."""


@dataclass(frozen=True)
class Candidate:
    """One series in the plan."""

    series: Series
    patient: str  # new name
    study: int  # 1: the patient's earliest
    decision: Decision
    use: bool = False
    reasons: tuple[str, ...] = field(default_factory=tuple)  # why it is used, or not

    @property
    def study_uid(self) -> str:
        """Of the DICOM header; stays in memory."""
        return str(self.series.header.get("StudyInstanceUID", ""))


def candidates(found: Sequence[Series], names: Pseudonyms) -> list[Candidate]:
    """What each series is, and which are used.

    Returns:
        Sorted by patient, study and time of acquisition.
    """
    by_patient: dict[str, list[Series]] = defaultdict(list)
    for series in found:
        by_patient[patient_id(series)].append(series)
    listed = []
    for patient, members in by_patient.items():
        doubtful = _doubt(members) if patient else "no Patient ID in the header: give one, or name the patient's folder alone"
        name = names.name(patient or f"study {members[0].header.get('StudyInstanceUID', '')}")
        listed += _of_patient(members, name, doubtful)
    return sorted(listed, key=lambda c: (c.patient, c.study, _time(c.series), c.series.id))


def patient_id(series: Series) -> str:
    """The hospital's number of the patient."""
    return str(series.header.get("PatientID", "") or "").strip()


def _doubt(members: Iterable[Series]) -> str:
    """One number for several people, as careless anonymisation leaves it."""
    births = {str(s.header.get("PatientBirthDate", "") or "") for s in members} - {""}
    sexes = {str(s.header.get("PatientSex", "") or "") for s in members} - {"", "O"}
    if len(births) > 1 or len(sexes) > 1:
        return "one Patient ID with several birth dates or sexes: perhaps several people; give each an ID of their own"
    return ""


def _of_patient(members: list[Series], name: str, doubtful: str) -> list[Candidate]:
    studies = sorted({_date(s) for s in members})
    listed = [Candidate(s, name, studies.index(_date(s)) + 1, decide(s.header)) for s in members]
    listed = [c for study in range(1, len(studies) + 1) for c in _weighed([c for c in listed if c.study == study])]
    listed = _with_parts(listed)
    if doubtful:
        return [replace(c, reasons=(doubtful,)) for c in listed]
    return _chosen(listed)


def _weighed(study: list[Candidate]) -> list[Candidate]:
    """With what the study as a whole says of contrast: an agent once given stays; some scanners write it into every series."""
    after = [_time(c.series) for c in study if c.decision.modality == "t1c" and not c.series.problem]
    plain = [c for c in study if c.decision.modality == "t1" and not c.series.problem]
    enhanced = sorted((c for c in study if c.decision.modality == "t1c" and not c.series.problem), key=lambda c: _time(c.series))
    doubts = {c.series.id: "acquired after a series with contrast" for c in plain if after and _time(c.series) > min(after)}
    if len(enhanced) > 1 and not plain:
        doubts[enhanced[0].series.id] = "all T1 of the study say contrast; this is the first: perhaps the plain one"
    return [_less_sure(c, doubts[c.series.id]) if c.series.id in doubts else c for c in study]


def _with_parts(listed: list[Candidate]) -> list[Candidate]:
    """Where a volume lies in two series, each says so: half a head is for a person to decide."""
    able = [c for c in listed if _usable(c)]
    goes_on = {
        one.series.id: other.series
        for one, other in permutations(able, 2)
        if (one.study, one.decision.modality) == (other.study, other.decision.modality) and is_continued(one.series, other.series)
    }
    return [replace(c, reasons=(_part(goes_on[c.series.id]),)) if c.series.id in goes_on else c for c in listed]


def _part(other: Series) -> str:
    return (
        f"one part of a volume: series {other.id} ({len(other.frames)} slices) goes on where it ends; export both as one "
        "series, or decide, and set use"
    )


def _less_sure(candidate: Candidate, reason: str) -> Candidate:
    decision = candidate.decision
    weaker = replace(decision, confidence=min(decision.confidence, 0.4), reasons=(*decision.reasons, reason))
    return replace(candidate, decision=weaker)


def _chosen(listed: list[Candidate]) -> list[Candidate]:
    """One study, and in it one series a modality: see `RULE`."""
    best: dict[int, dict[str, Candidate]] = defaultdict(dict)
    for c in listed:
        if _usable(c):
            rival = best[c.study].get(c.decision.modality)
            if rival is None or _rank(c) < _rank(rival):
                best[c.study][c.decision.modality] = c
    study = min(best, key=lambda number: (-len(best[number]), number), default=0)
    return [_told(c, study, best.get(c.study, {})) for c in listed]


def _usable(candidate: Candidate) -> bool:
    decision = candidate.decision
    sure = decision.modality in DEFAULT_MODALITIES and decision.confidence >= SURE
    return sure and not candidate.series.problem and not candidate.reasons


def _rank(candidate: Candidate) -> tuple[bool, float, float, int, str]:
    spacing = candidate.series.geometry.spacing
    return (
        candidate.decision.reformatted,
        -candidate.decision.confidence,
        round(float(np.max(spacing)), 2),
        -len(candidate.series.frames),
        _time(candidate.series),
    )


def _told(candidate: Candidate, study: int, best: dict[str, Candidate]) -> Candidate:
    """With whether it is used, and why."""
    if candidate.series.problem:
        return replace(candidate, reasons=(candidate.series.problem,))
    if candidate.decision.modality == OTHER or candidate.reasons:
        return candidate
    if candidate.decision.confidence < SURE:
        return replace(candidate, reasons=("not sure enough: decide, and set use",))
    if candidate.study != study:
        return replace(candidate, reasons=(f"another study of the patient is used ({study})",))
    if best.get(candidate.decision.modality) is not candidate:
        return replace(candidate, reasons=(f"a better {candidate.decision.modality} of the study is used",))
    return replace(candidate, use=True)


def _date(series: Series) -> tuple[str, str]:
    """Studies in order of time; the UID tells two of one minute apart."""
    header = series.header
    when = f"{header.get('StudyDate', '') or ''}{str(header.get('StudyTime', '') or '')[:6]}"
    return when, str(header.get("StudyInstanceUID", ""))


def _time(series: Series) -> str:
    """Of acquisition, as DICOM writes it, so that text sorts as time does."""
    stamp = str(value(series.header, "AcquisitionDateTime") or "")
    return stamp or f"{series.header.get('AcquisitionDate') or ''}{series.header.get('AcquisitionTime') or ''}"
