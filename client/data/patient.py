"""One patient from series to a common grid: read, registered to the contrast T1, resampled, brain extracted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from client.data.brain_extraction import NONE, brain_mask, doubt
from client.data.candidates import Candidate
from client.data.dicom.pixels import read_volume
from client.data.registration import register
from client.data.resampling import resample_image, resample_mask
from client.data.sidecar import sidecar
from client.data.site_folder import PatientImages
from client.data.volume import Volume, load_nifti
from common.errors import DataError

REFERENCES = ("t1c", "flair", "t1", "t2")  # the first that the patient has gives the grid


@dataclass(frozen=True)
class TumourMask:
    """A mask that the hospital has: a NIfTI file, and the modality it was drawn on ("": the reference)."""

    file: Path
    modality: str = ""


@dataclass(frozen=True)
class Prepared:
    """A patient, ready to be written, and what could not be taken."""

    images: PatientImages
    left_out: Mapping[str, str] = field(default_factory=dict)  # modality, or `mask` -> why
    notes: tuple[str, ...] = ()


def prepare(
    name: str,
    chosen: Mapping[str, Candidate],
    *,
    tool_log: Path,
    mask: TumourMask | None = None,
    brain: str = NONE,
    row: Mapping[str, str] | None = None,
) -> Prepared:
    """Bring one patient's series onto one grid.

    Args:
        name: `sub-...`.
        chosen: the series of each modality.
        tool_log: what the tool that takes the skull off prints is added to it.
        mask: of the tumour.
        brain: the tool that takes the skull off, or `none`.
        row: of `participants.tsv`.

    Raises:
        DataError: no modality can be read, or the brain is not found.
    """
    volumes, left_out = _read(chosen)
    if not volumes:
        raise DataError(f"{name}: no series can be read ({'; '.join(left_out.values())})")
    first = next(modality for modality in REFERENCES if modality in volumes)
    reference = volumes[first]
    matrices, aligned, notes = {first: np.eye(4)}, {first: reference}, []
    for modality in (m for m in volumes if m != first):
        try:
            found = register(reference, volumes[modality])
        except DataError as error:
            left_out[modality] = f"no registration to {first}: {error}"
            continue
        if found.problem:
            left_out[modality] = f"registration to {first} is not believed: {found.problem}"
            continue
        matrices[modality] = found.matrix
        aligned[modality] = resample_image(volumes[modality], reference, found.matrix)
        notes.append(
            f"{modality}: moved {found.shift:.1f} mm, {found.turn:.1f} degrees; there and back {found.inconsistency:.2f} mm"
        )
    tumour = None
    if mask:
        try:
            tumour = _mask(mask, reference, matrices, first)
        except DataError as error:
            left_out["mask"] = str(error)
    if brain != NONE:
        inside = brain_mask(reference, brain, tool_log, name)
        notes += filter(None, [doubt(reference, inside)])
        aligned = {m: replace(v, voxels=np.where(inside, v.voxels, np.float32(0))) for m, v in aligned.items()}
    sidecars = {m: {**sidecar(chosen[m].series.header), "SkullStripped": brain != NONE} for m in aligned}
    return Prepared(PatientImages(name, aligned, sidecars, tumour, row or {}), left_out, tuple(notes))


def _read(chosen: Mapping[str, Candidate]) -> tuple[dict[str, Volume], dict[str, str]]:
    volumes, left_out = {}, {}
    for modality, candidate in chosen.items():
        try:
            volumes[modality] = read_volume(candidate.series)
        except DataError as error:
            left_out[modality] = str(error)
    return volumes, left_out


def _mask(mask: TumourMask, reference: Volume, matrices: Mapping[str, object], first: str) -> Volume:
    """Onto the grid, by the motion of the modality it was drawn on."""
    drawn_on = mask.modality or first
    if drawn_on not in matrices:
        raise DataError(f"mask: drawn on {drawn_on}, which is not taken")
    volume = load_nifti(mask.file)
    labels = np.unique(volume.voxels)
    if not np.array_equal(labels, np.round(labels)) or labels.min() < 0 or labels.max() > 255:
        raise DataError(f"mask {mask.file}: expected whole labels of 0 to 255")
    resampled = resample_mask(volume, reference, np.asarray(matrices[drawn_on], float))
    kept = float((resampled.voxels > 0).sum() * abs(np.linalg.det(reference.affine[:3, :3])))
    drawn = float((volume.voxels > 0).sum() * abs(np.linalg.det(volume.affine[:3, :3])))
    if drawn and not 0.8 <= kept / drawn <= 1.25:
        raise DataError(
            f"mask {mask.file}: {drawn / 1000:.1f} ml were drawn, {kept / 1000:.1f} ml lie in the image: it is another image's"
        )
    return resampled
