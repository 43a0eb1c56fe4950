"""A published collection of NIfTI files becomes a site folder: linked or copied, named as BIDS, labelled by its own table."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.data.preset import Preset
from client.data.site_folder import PatientImages, SiteFolder
from client.data.tables import Row, read_table
from client.data.volume import Volume, load_nifti
from common.errors import DataError

LABEL = "subtype"  # the column of participants.tsv
MISSING = "n/a"


@dataclass(frozen=True)
class Copied:
    """How many patients came, and what is to be said."""

    imported: int
    there_already: int
    notes: tuple[str, ...]


def copy_collection(
    preset: Preset,
    source: Path,
    out: Path,
    *,
    table: Path | None = None,
    link: bool = False,
    progress: Callable[[int, int], None],
) -> Copied:
    """Make a site folder of a collection; patients that are in it stay as they are.

    Args:
        preset: how the collection names things.
        source: its folder.
        out: the site folder.
        table: of labels; None: the published one, where it lies below the source.
        link: to the files, which must then stay where they are.
        progress: called with (patients done, of all).

    Raises:
        DataError: no patient's folder, two files for one modality, a table that is not the published one, or another import
            that fills the site folder.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder. Name the folder of {preset.title}, unpacked.")
    notes: list[str] = []
    folders = _folders(preset, source, notes)
    labels = _labels(preset, source, table, notes)
    site, done, there = SiteFolder(out), 0, 0
    with site.alone():
        site.tidy()
        for count, (patient, folder) in enumerate(sorted(folders.items()), start=1):
            name = f"sub-{re.sub('[^A-Za-z0-9]', '', folder.name.removesuffix('_nifti'))}"
            if site.has(name):
                there += 1
            else:
                site.add(_images(preset, source, folder, name, labels.get(patient), notes), link=link)
                done += 1
            progress(count, len(folders))
        site.describe(f"Images of {preset.title} ({preset.source}), named as BIDS names them; tumour masks are 0 and 1.")
    absent = sum(patient not in labels for patient in folders)
    if labels and absent:
        notes.append(f"{absent} patients are not in the table of labels, and stay unlabelled")
    return Copied(done, there, tuple(notes))


def _folders(preset: Preset, source: Path, notes: list[str]) -> dict[str, Path]:
    """Patient to folder; of several examinations the first."""
    folders: dict[str, Path] = {}
    for folder in sorted(f for f in source.rglob(preset.patients) if f.is_dir()):
        found = re.fullmatch(preset.patient, folder.name)
        if not found:
            continue
        if preset.exclude and re.fullmatch(preset.exclude, folder.name):
            notes.append(f"{folder.name} left out: {preset.excluded_because}")
        elif found[1] in folders:
            notes.append(f"{folder.name} left out: {folders[found[1]].name} is of the same patient")
        elif any(_files(preset, folder, kind) for kind in preset.files):
            folders[found[1]] = folder
    if not folders:
        raise DataError(f"{source}: no patient's folder named {preset.patients} with files as {preset.title} names them.")
    return folders


def _files(preset: Preset, folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(preset.files[kind].format(folder=folder.name))) if kind in preset.files else []


def _images(preset: Preset, source: Path, folder: Path, name: str, row: Row | None, notes: list[str]) -> PatientImages:
    files = {}
    for kind in (kind for kind in preset.files if kind != "mask"):
        found = _files(preset, folder, kind)
        if len(found) > 1:
            raise DataError(f"{folder.name}: {len(found)} files for {kind} ({', '.join(f.name for f in found[:3])}); leave one.")
        if found:
            files[kind] = found[0]
        else:
            notes.append(f"{name}: no {kind}")
    masks = _files(preset, folder, "mask") or [f for pattern in preset.mask_files for f in _anywhere(source, pattern, folder)]
    mask = _binary(masks[0], preset) if masks else None
    told = _told(preset, row) if preset.labels.id else {}
    return PatientImages(name, files, {}, mask, told)


def _anywhere(source: Path, pattern: str, folder: Path) -> Iterator[Path]:
    yield from sorted(source.glob(pattern.format(folder=folder.name)))


def _binary(file: Path, preset: Preset) -> Volume:
    """The tumour, 0 and 1, of the collection's label map.

    Raises:
        DataError: it holds a value that the collection does not have.
    """
    volume = load_nifti(file)
    values = set(np.unique(volume.voxels).tolist()) - {0.0}
    unknown = values - {float(value) for value in preset.mask_labels}
    if unknown:
        known = ", ".join(preset.mask_labels)
        raise DataError(
            f"{file.name}: expected the labels {known}, got {', '.join(f'{value:g}' for value in sorted(unknown))} too."
        )
    tumour = np.isin(volume.voxels, list(values - set(map(float, preset.no_tumour))))
    return replace(volume, voxels=tumour.astype(np.float32))


def _labels(preset: Preset, source: Path, table: Path | None, notes: list[str]) -> Mapping[str, Row]:
    """The table's rows by patient."""
    published = next(iter(sorted(source.rglob(preset.labels.file))), None) if preset.labels.file else None
    path = table or published
    if not path:
        if preset.labels.id:
            wanted = preset.labels.file or f"with {preset.labels.id}"
            notes.append(f"no table of labels ({wanted}): every patient is unlabelled; name it with --labels")
        return {}
    rows: dict[str, Row] = {}
    for cell, row in read_table(path, preset.labels.id).items():
        found = re.fullmatch(preset.labels.id_pattern, cell)
        if found:
            rows[found[1]] = row
    columns = {
        *(column for rule in preset.classes for column in rule.when),
        *filter(None, (preset.labels.age, preset.labels.sex)),
    }
    absent = sorted(columns - set(next(iter(rows.values()), {})))
    if absent:
        raise DataError(f"{path.name}: no column {', '.join(absent)}, or no row of this collection. Is it the published table?")
    return rows


def _told(preset: Preset, row: Row | None) -> dict[str, str]:
    """Of participants.tsv: label, and age and sex where the table has them."""
    row = row or {}
    told = {LABEL: next((rule.name for rule in preset.classes if _fits(rule.when, row)), MISSING)}
    if preset.labels.age:
        told["age"] = _age(row.get(preset.labels.age, ""))
    if preset.labels.sex:
        told["sex"] = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}.get(row.get(preset.labels.sex, "").upper(), MISSING)
    return told


def _fits(when: Mapping[str, str], row: Row) -> bool:
    return all(re.fullmatch(pattern, row.get(column, "")) for column, pattern in when.items())


def _age(cell: str) -> str:
    try:
        years = float(cell)
    except ValueError:
        return MISSING
    return "89+" if years > 89 else f"{years:g}"
