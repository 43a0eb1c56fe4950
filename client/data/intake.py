"""An import: what the source holds, then what the plan says, patient by patient."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.data import demographics
from client.data.brain_extraction import NONE
from client.data.candidates import Candidate, candidates, patient_id
from client.data.dicom.header import IndexFileError, read_header
from client.data.dicom.series import group_series
from client.data.dicom.sources import find_files
from client.data.outcome_log import ABSENT, LEFT_OUT, THERE, UNDER_WAY, OutcomeLog
from client.data.patient import TumourMask, prepare
from client.data.plan import Line
from client.data.pseudonym import Pseudonyms
from client.data.site_folder import SiteFolder
from client.data.tables import Row
from common.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """What the person asked for."""

    age: bool = False
    sex: bool = False
    labels: Mapping[str, Row] = field(default_factory=dict)  # by the hospital's patient number
    columns: tuple[str, ...] = ()  # of the labels that are taken
    masks: Mapping[str, TumourMask] = field(default_factory=dict)
    brain: str = NONE


@dataclass(frozen=True)
class Outcome:
    """How an import ended."""

    imported: tuple[str, ...]
    there_already: tuple[str, ...]
    failed: Mapping[str, str]  # patient -> why
    notes: tuple[str, ...]


def scan(source: Path, scratch: Path, names: Pseudonyms, log: OutcomeLog, progress: Progress | None = None) -> list[Candidate]:
    """Read every header of a source.

    Raises:
        DataError: there is no source, or nothing in it is DICOM.
    """
    headers, indexes = [], {}
    for count, file in enumerate(find_files(source, scratch, lambda name, why: log.add(name, LEFT_OUT, why)), start=1):
        try:
            headers.append((file, read_header(file)))
        except DataError as error:
            log.add(file.name, LEFT_OUT, str(error))
            if isinstance(error, IndexFileError):
                indexes[file.name] = error.named
        if progress:
            progress(count, len(headers))
    if indexes and not headers:
        raise DataError(f"{source}: a DICOMDIR names the images and holds none. Name the folder that it lies in, with all files.")
    if not headers:
        raise DataError(f"{source}: no DICOM file in it. Name the folder, or the zip archive, that an archive or a CD exported.")
    found = candidates(group_series(headers), names)
    for candidate in found:
        why = "; ".join((*candidate.reasons, *candidate.decision.reasons)) or candidate.decision.modality
        for file in candidate.series.files:
            log.add(file.name, LEFT_OUT, why, series=candidate.series.id, patient=candidate.patient)
    for index, named in indexes.items():
        _say_absent(log, index, named)
    return found


def _say_absent(log: OutcomeLog, index: str, named: Iterable[str]) -> None:
    """What an index names and the source lacks: a disc that was copied in part. Copies may change the case of names."""
    there = {name.casefold() for name in log.knows()}
    for name in named:
        if name.casefold() not in there:
            log.add(name, ABSENT, f"named by {index}, and not in the source")


def carry_out(
    lines: Sequence[tuple[Line, Candidate]],
    folder: SiteFolder,
    options: Options,
    log: OutcomeLog,
    progress: Progress | None = None,
) -> Outcome:
    """Import the plan's patients; one that fails does not stop the others.

    Whatever is killed at whatever point, the next run ends in the same bytes: a patient's rows of the log are written before
    their folder is moved in, as under way, and of a patient who is there the rows that are written already stand, as used.

    Raises:
        DataError: another import fills the folder.
    """
    patients: dict[str, dict[str, Candidate]] = defaultdict(dict)
    for line, candidate in lines:
        patients[line.patient][line.modality] = candidate
    with folder.alone():
        return _filled(patients, folder, options, log, progress)


def _filled(
    patients: Mapping[str, Mapping[str, Candidate]],
    folder: SiteFolder,
    options: Options,
    log: OutcomeLog,
    progress: Progress | None,
) -> Outcome:
    imported: list[str] = []
    failed: dict[str, str] = {}
    notes: list[str] = []
    folder.tidy()
    there = [name for name in sorted(patients) if folder.has(name)]
    for name in there:
        if not log.keep(name):
            _say(log, patients[name].items(), THERE, "the patient is in the site folder; remove their folder to import anew")
    log.write()
    for done, name in enumerate((name for name in sorted(patients) if name not in there), start=len(there) + 1):
        try:
            notes += [f"{name}: {note}" for note in _import_one(name, patients[name], folder, options, log)]
            imported.append(name)
        except DataError as error:
            failed[name] = str(error)
            _say(log, patients[name].items(), LEFT_OUT, str(error))
            if mask := _mask(patients[name], options):
                log.add(str(mask.file), LEFT_OUT, str(error), patient=name)
            log.write()
        if progress:
            progress(done, len(patients))
    if imported or there:
        folder.describe(
            "Imported from DICOM: each patient's modalities are registered to one of them and resampled to its grid. Names are "
            "keyed hashes; headers keep how an image was made, and nothing of whom, where or when."
        )
    return Outcome(tuple(imported), tuple(there), failed, tuple(notes))


def _import_one(name: str, chosen: Mapping[str, Candidate], folder: SiteFolder, options: Options, log: OutcomeLog) -> list[str]:
    number, mask = patient_id(next(iter(chosen.values())).series), _mask(chosen, options)
    tool_log = log.path.with_suffix(".log")
    prepared = prepare(name, chosen, tool_log=tool_log, mask=mask, brain=options.brain, row=_row(chosen, options, number))
    for modality, candidate in chosen.items():
        if modality in prepared.left_out:
            _say(log, [(modality, candidate)], LEFT_OUT, prepared.left_out[modality])
        else:
            _say(log, [(modality, candidate)], UNDER_WAY, f"as {modality}")
    if mask:
        why = prepared.left_out.get("mask", "")
        log.add(str(mask.file), LEFT_OUT if why else UNDER_WAY, why or "as tumour mask", patient=name)
    log.write()
    try:
        folder.add(prepared.images)
    except OSError as error:
        raise DataError(f"{name}: cannot be written ({error.strerror or error})") from error
    log.in_place(name)
    log.write()
    return [f"{modality} left out: {why}" for modality, why in prepared.left_out.items()] + list(prepared.notes)


def _mask(chosen: Mapping[str, Candidate], options: Options) -> TumourMask | None:
    return options.masks.get(patient_id(next(iter(chosen.values())).series))


def _row(chosen: Mapping[str, Candidate], options: Options, number: str) -> dict[str, str]:
    """Of participants.tsv: only what was asked for."""
    header = next(iter(chosen.values())).series.header
    row = {}
    if options.age:
        row["age"] = demographics.age(header)
    if options.sex:
        row["sex"] = demographics.sex(header)
    labels = options.labels.get(number, {})
    return {**row, **{column: labels.get(column) or demographics.MISSING for column in options.columns}}


def _say(log: OutcomeLog, chosen: Iterable[tuple[str, Candidate]], outcome: str, why: str) -> None:
    for _, candidate in chosen:
        for file in candidate.series.files:
            log.add(file.name, outcome, why, series=candidate.series.id, patient=candidate.patient)
