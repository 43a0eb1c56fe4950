"""Sites spoilt on purpose, each in one way that hospitals' data have: every one is found under its code and level."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension
from scipy import ndimage

from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.check import SiteCheck, check_site
from common.errors import DataError

P1, P2 = "sub-0001", "sub-0002"
SUFFIXES = {"t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR", "mask": "desc-tumour_mask"}
Spoil = Callable[[Path], object]


def load(file: Path) -> Any:
    return nib.load(file)


def path(site: Path, kind: str, patient: str = P1) -> Path:
    return site / patient / "anat" / f"{patient}_{SUFFIXES[kind]}.nii.gz"


def rewrite(site: Path, kind: str, change: Callable[[np.ndarray], np.ndarray], dtype: type = np.float32) -> None:
    """Change the voxels, keep the header's affine."""
    image = load(path(site, kind))
    voxels = change(np.asarray(image.dataobj, np.float32))
    nib.save(nib.Nifti1Image(voxels.astype(dtype), image.affine), path(site, kind))


def reheader(site: Path, kind: str, change: Callable[[nib.Nifti1Image], Any]) -> None:
    """Change the header in place, keep the voxels."""
    image = load(path(site, kind))
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    nib.save(change(image) or image, path(site, kind))


def moved(mm: float) -> Callable[[nib.Nifti1Image], nib.Nifti1Image]:
    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        affine = image.affine.copy()
        affine[:3, 3] += mm
        return nib.Nifti1Image(np.asarray(image.dataobj), affine)

    return change


def sform_elsewhere(image: nib.Nifti1Image) -> None:
    image.set_qform(image.affine, code=1)
    image.set_sform(np.diag([1, 1, 1, 1]) @ image.affine + np.array([[0, 0, 0, 12.0]] * 3 + [[0, 0, 0, 0]]), code=2)


def no_codes(image: nib.Nifti1Image) -> None:
    image.set_qform(None, code=0)
    image.set_sform(None, code=0)


def pixdim_off(image: nib.Nifti1Image) -> None:
    image.set_qform(None, code=0)
    image.set_sform(image.affine, code=1)
    image.header["pixdim"][1:4] *= 1.5


def in_metres(image: nib.Nifti1Image) -> nib.Nifti1Image:
    made = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)
    made.header.set_xyzt_units("meter", "sec")
    return made


def in_centimetres(site: Path) -> None:
    """The whole patient, and no unit code."""

    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        made = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([0.1, 0.1, 0.1, 1]) @ image.affine)
        made.header["xyzt_units"] = 0
        return made

    for kind in SUFFIXES:
        reheader(site, kind, change)


def sheared(image: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = image.affine.copy()
    affine[:3, 2] += 0.2 * affine[:3, 1]
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def one_slice(site: Path) -> None:
    for kind in SUFFIXES:
        reheader(site, kind, lambda image: nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 14:15], image.affine))


def tomogram(voxels: np.ndarray) -> np.ndarray:
    """Air, fat, brain and bone on Hounsfield's scale, where the phantom has air, and its tissues from dark to bright."""
    head, noise = voxels > 0.1 * voxels.max(), np.random.default_rng(0).normal(0, 8, voxels.shape)
    rim = head & ~ndimage.binary_erosion(head, iterations=2)
    skin = ndimage.binary_dilation(head, iterations=2) & ~head
    return np.select([rim, head, skin], [900, 35, -100], -1000) + noise


def mask_of_one_voxel(voxels: np.ndarray) -> np.ndarray:
    return np.arange(voxels.size).reshape(voxels.shape) == np.flatnonzero(voxels)[0]


def off_by_15_mm(image: nib.Nifti1Image) -> nib.Nifti1Image:
    affine = image.affine.copy()
    affine[:2, 3] += 15 / np.sqrt(2)
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def in_any_order(voxels: np.ndarray) -> np.ndarray:
    return voxels[:, :, np.random.default_rng(1).permutation(voxels.shape[2])]


def inverted_copy(site: Path) -> None:
    """T1 as contrast T1, bright for dark within the head."""
    image = load(path(site, "t1"))
    voxels = np.asarray(image.dataobj, np.float32)
    head, top = voxels > 0.05 * voxels.max(), float(voxels.max())
    nib.save(nib.Nifti1Image(np.where(head, 1.05 * top - voxels, 0).astype(np.int16), image.affine), path(site, "t1c"))


def noise(voxels: np.ndarray) -> np.ndarray:
    return np.where(voxels > 0, np.random.default_rng(0).uniform(1, 1000, voxels.shape), 0)


def squeezed(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(image.dataobj), np.diag([0.02, 0.02, 0.02, 1]) @ image.affine)


def with_header(site: Path, kind: str, **fields: bytes) -> None:
    def change(image: nib.Nifti1Image) -> None:
        for name, value in fields.items():
            image.header[name] = value

    reheader(site, kind, change)


def extended(site: Path, code: int, content: bytes) -> None:
    reheader(site, "t2", lambda image: image.header.extensions.append(Nifti1Extension(code, content)))


def swap(site: Path, a: str, b: str) -> None:
    first, second = path(site, a), path(site, b)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def copy(site: Path, a: str, b: str, patient: str = P1) -> None:
    path(site, b, patient).write_bytes(path(site, a).read_bytes())


def near_copy(site: Path) -> None:
    """T1 as contrast T1: another gamma, 8 bits, and half a voxel along X."""
    image = load(path(site, "t1"))
    voxels = np.asarray(image.dataobj, np.float32)
    shifted = ndimage.shift(voxels, (0.5, 0, 0), order=3)
    affine = image.affine @ np.array([[1, 0, 0, -0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    grey = np.rint(255 * np.clip(shifted / shifted.max(), 0, 1) ** 0.85).astype(np.uint8)
    nib.save(nib.Nifti1Image(grey, affine), path(site, "t1c"))


def person_twice(site: Path) -> None:
    """The second patient's T1 is the first's, in other numbers."""
    image = load(path(site, "t1"))
    voxels = np.asarray(image.dataobj, np.float32)
    nib.save(nib.Nifti1Image((3.7 * voxels + 1).astype(np.float32)[2:-2], image.affine), path(site, "t1", P2))


def with_skull(site: Path) -> None:
    """A ring of scalp round every modality, 8 mm off the brain."""
    for kind in ("t1", "t1c", "t2", "flair"):
        image = load(path(site, kind))
        voxels = np.pad(np.asarray(image.dataobj, np.float32), ((12, 12), (12, 12), (0, 0)))
        brain = ndimage.binary_fill_holes(voxels > 0.1 * np.percentile(voxels, 99))
        sampling = np.linalg.norm(image.affine[:3, :3], axis=0)
        ring = np.zeros_like(brain)
        for z in range(brain.shape[2]):
            if brain[:, :, z].any():
                distance = ndimage.distance_transform_edt(~brain[:, :, z], sampling=sampling[:2])
                ring[:, :, z] = (distance > 8) & (distance <= 14)
        voxels[ring] = np.percentile(voxels[brain], 90)
        affine = image.affine @ np.array([[1, 0, 0, -12], [0, 1, 0, -12], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), path(site, kind))


def truncated(site: Path) -> None:
    path(site, "flair").write_bytes(path(site, "flair").read_bytes()[:4000])


def corrupted(site: Path) -> None:
    raw = bytearray(path(site, "t1").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path(site, "t1").write_bytes(bytes(raw))


def dicom_named_nifti(site: Path) -> None:
    path(site, "t1").write_bytes(gzip.compress(b"\0" * 128 + b"DICM" + b"\0" * 400))


def four_d(site: Path) -> None:
    reheader(site, "t2", lambda image: nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 3, axis=-1), image.affine))


def coloured(site: Path) -> None:
    image = load(path(site, "t2"))
    rgb = np.zeros(image.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, image.affine), path(site, "t2"))


def complex_numbers(site: Path) -> None:
    rewrite(site, "t2", lambda v: v + 1j * v[::-1], np.complex64)


def slab(site: Path) -> None:
    """T2 of four slices at the top, beyond the tumour."""
    image = load(path(site, "t2"))
    top = np.asarray(image.dataobj)[:, :, -4:]
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (image.shape[2] - 4)
    nib.save(nib.Nifti1Image(top, affine), path(site, "t2"))


def filled_up(site: Path) -> None:
    """T2 of the tumour's upper half and what lies above it, zeros below: a slab that was brought to T1's grid."""
    depth = np.atleast_1d(np.asarray(load(path(site, "mask")).dataobj).any((0, 1)))
    middle = int(np.flatnonzero(depth).mean())
    rewrite(site, "t2", lambda voxels: np.where(np.arange(len(depth)) >= middle, voxels, 0), np.int16)


def brain_of(site: Path) -> np.ndarray:
    voxels = np.asarray(load(path(site, "t1")).dataobj)
    return np.asarray(ndimage.binary_fill_holes(voxels > 0.1 * np.percentile(voxels, 99)))


def large(site: Path) -> None:
    brain = brain_of(site)
    rewrite(site, "mask", lambda v: brain & (np.arange(len(brain)) < len(brain) // 2 + 2)[:, None, None], np.uint8)


def into_air(site: Path) -> None:
    outside = ~ndimage.binary_dilation(brain_of(site), iterations=2)
    outside[8:] = False
    rewrite(site, "mask", lambda v: outside, np.uint8)


def labels_unknown(site: Path) -> None:
    rewrite(site, "mask", lambda v: np.where(v > 0, 7, 0) + (np.cumsum(v > 0).reshape(v.shape) % 2) * (v > 0) * 4, np.uint8)


def parcellation(site: Path) -> None:
    brain = brain_of(site)
    rewrite(site, "mask", lambda v: brain * (1 + np.arange(v.shape[0])[:, None, None] // 1), np.int16)


def wrapped(voxels: np.ndarray) -> np.ndarray:
    return (voxels / voxels.max() * 60000).astype(np.int64)


def over(voxels: np.ndarray, top: int) -> np.ndarray:
    """Whole numbers up to `top`, more than the type holds that they are meant for."""
    return (voxels / voxels.max() * top).astype(np.int64)


def padded_white(site: Path) -> None:
    rewrite(site, "t2", lambda voxels: np.where(voxels > 0, voxels, 32000), np.int16)


def clipped(voxels: np.ndarray) -> np.ndarray:
    return np.minimum(voxels, np.percentile(voxels[voxels > voxels.max() / 20], 60))


def three_values(voxels: np.ndarray) -> np.ndarray:
    return np.digitize(voxels, np.percentile(voxels, (60, 80)))


def without_affine(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(image.dataobj), np.eye(4))


def mask_elsewhere(site: Path) -> None:
    reheader(site, "mask", moved(400))


def mask_by_one_tool(site: Path) -> None:
    """The image's voxels, the header 25 mm off."""
    reheader(site, "mask", moved(25))


def mask_coarse(site: Path) -> None:
    image = load(path(site, "mask"))
    voxels = np.asarray(image.dataobj)[::2, ::2]
    nib.save(nib.Nifti1Image(voxels, image.affine @ np.diag([2, 2, 1, 1.0])), path(site, "mask"))


def table(site: Path, *lines: str) -> None:
    (site / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


HEAD = "participant_id\tage\tsex\tsubtype"
PATIENT_NAME = b"\x10\x00\x10\x00PN\x0c\x00MUELLER^HANS"  # element (0010,0010) with explicit type
ROW1, ROW2 = f"{P1}\t61\tF\tidh-wildtype", f"{P2}\t47\tM\toligodendroglioma"


def annex(site: Path) -> None:
    path(site, "t2").unlink()
    path(site, "t2").symlink_to("../../.git/annex/objects/aa/bb/MD5E-s1--c.nii.gz")


def two_sessions(site: Path) -> None:
    """FLAIR of another session than the others."""
    for session, kinds in (("01", ("t1", "t1c", "t2", "mask")), ("02", ("flair", "t1"))):
        folder = site / P1 / f"ses-{session}" / "anat"
        folder.mkdir(parents=True)
        for kind in kinds:
            shutil.copy(path(site, kind), folder / f"{P1}_ses-{session}_{SUFFIXES[kind]}.nii.gz")
    shutil.rmtree(site / P1 / "anat")


def renamed(site: Path, kind: str, name: str) -> None:
    path(site, kind).rename(path(site, kind).with_name(name))


def renamed_patient(site: Path, new: str) -> None:
    folder = (site / P1).rename(site / new)
    for file in list(folder.rglob("*.nii.gz")):
        file.rename(file.with_name(file.name.replace(P1, new)))


GEOMETRY: dict[str, tuple[Spoil, str, str]] = {
    "sform and qform at odds": (lambda s: reheader(s, "flair", sform_elsewhere), "sform-qform-differ", "error"),
    "no orientation codes": (lambda s: reheader(s, "t2", no_codes), "orientation-unknown", "warning"),
    "pixdim at odds with the affine": (lambda s: reheader(s, "t2", pixdim_off), "pixdim-differs", "warning"),
    "lengths in metres": (lambda s: reheader(s, "t2", in_metres), "unit-not-mm", "note"),
    "a sheared affine": (lambda s: reheader(s, "t2", sheared), "affine-sheared", "warning"),
    "a single slice": (one_slice, "image-one-slice", "warning"),
    "a head of a centimetre": (lambda s: reheader(s, "t1", squeezed), "size-implausible", "error"),
    "a modality a metre off": (lambda s: reheader(s, "flair", moved(1000)), "image-elsewhere", "error"),
    "a slab beyond the tumour": (slab, "modality-not-in-slices", "warning"),
    "a slab that was filled up with zeros": (filled_up, "modality-in-some-slices", "note"),
    "four dimensions": (four_d, "file-several-frames", "error"),
    "colour": (coloured, "file-colour", "error"),
    "complex numbers": (complex_numbers, "file-complex", "warning"),
    "axes exchanged": (lambda s: rewrite(s, "flair", lambda v: v.transpose(1, 0, 2)), "axes-exchanged", "error"),
    "a mask's axes exchanged": (
        lambda s: rewrite(s, "mask", lambda v: v.transpose(1, 0, 2), np.uint8),
        "axes-exchanged",
        "error",
    ),
}
FILES: dict[str, tuple[Spoil, str, str]] = {
    "cut off": (truncated, "file-truncated", "error"),
    "a flipped byte": (corrupted, "file-damaged", "error"),
    "no bytes": (lambda s: path(s, "t1").write_bytes(b""), "file-empty", "error"),
    "DICOM under a NIfTI name": (dicom_named_nifti, "file-not-nifti", "error"),
    "annexed": (annex, "file-absent", "error"),
    "a text": (lambda s: path(s, "t1").write_bytes(b"version https://example.org/spec\n"), "file-not-nifti", "error"),
}
INTENSITIES: dict[str, tuple[Spoil, str, str]] = {
    "NaN": (lambda s: rewrite(s, "t2", lambda v: np.where(v > np.percentile(v, 90), np.nan, v)), "not-finite", "warning"),
    "infinite": (lambda s: rewrite(s, "t2", lambda v: np.where(v == v.max(), np.inf, v)), "not-finite", "warning"),
    "constant": (lambda s: rewrite(s, "t2", lambda v: np.full_like(v, 7)), "image-constant", "error"),
    "all zero": (lambda s: rewrite(s, "t2", np.zeros_like), "image-constant", "error"),
    "nothing but NaN": (lambda s: rewrite(s, "t2", lambda v: np.full_like(v, np.nan)), "image-constant", "error"),
    "wrapped around": (lambda s: rewrite(s, "t2", wrapped, np.int16), "intensity-wrapped", "error"),
    "wrapped in 8 bits": (lambda s: rewrite(s, "t2", lambda v: over(v, 400) % 2**8, np.uint8), "intensity-wrapped", "error"),
    "wrapped in 16": (lambda s: rewrite(s, "t2", lambda v: over(v, 99999) % 2**16, np.uint16), "intensity-wrapped", "error"),
    "wrapped in 12 bits": (lambda s: rewrite(s, "t2", lambda v: over(v, 6500) % 4096, np.int16), "intensity-wrapped", "error"),
    "inverted": (lambda s: rewrite(s, "t2", lambda v: v.max() - v, np.int16), "background-brightest", "warning"),
    "negated": (lambda s: rewrite(s, "t2", lambda v: -v, np.int16), "background-brightest", "warning"),
    "padded with white": (padded_white, "background-brightest", "warning"),
    "clipped": (lambda s: rewrite(s, "t2", clipped, np.int16), "intensity-clipped", "warning"),
    "a CT": (lambda s: rewrite(s, "t1", tomogram, np.int16), "image-is-ct", "error"),
    "a label map as an image": (lambda s: rewrite(s, "t2", three_values, np.uint8), "image-few-values", "warning"),
}  # fmt: skip
MASKS: dict[str, tuple[Spoil, str, str]] = {
    "empty": (lambda s: rewrite(s, "mask", np.zeros_like, np.uint8), "mask-empty", "warning"),
    "one voxel": (lambda s: rewrite(s, "mask", mask_of_one_voxel, np.uint8), "mask-small", "warning"),
    "another patient's": (lambda s: copy(s, "mask", "mask", P2), "mask-twice", "warning"),
    "of another disease": (lambda s: renamed(s, "mask", f"{P1}_desc-ms_lesion.nii.gz"), "mask-not-taken", "warning"),
    "smoothed": (lambda s: rewrite(s, "mask", lambda v: ndimage.gaussian_filter(v, (1, 1, 0))), "mask-fractional", "note"),
    "half of the brain": (large, "mask-large", "warning"),
    "the brain": (lambda s: rewrite(s, "mask", lambda v: brain_of(s), np.uint8), "mask-is-brain", "error"),
    "inverted": (lambda s: rewrite(s, "mask", lambda v: v == 0, np.uint8), "mask-is-brain", "error"),
    "in the air": (into_air, "mask-in-air", "error"),
    "unknown labels": (labels_unknown, "mask-labels-unknown", "warning"),
    "a parcellation": (parcellation, "mask-not-a-mask", "error"),
    "an image": (lambda s: copy(s, "flair", "mask"), "mask-not-a-mask", "error"),
    "40 cm off": (mask_elsewhere, "mask-displaced", "error"),
    "25 mm off": (mask_by_one_tool, "mask-displaced", "error"),
    "without affine": (lambda s: reheader(s, "mask", without_affine), "mask-no-affine", "error"),
    "another grid": (mask_coarse, "mask-resampled", "note"),
}  # fmt: skip
NAMES: dict[str, tuple[Spoil, str, str]] = {
    "two sessions": (two_sessions, "session-chosen", "warning"),
    "contrast under acq-": (lambda s: renamed(s, "t1c", f"{P1}_acq-postgd_T1w.nii.gz"), "contrast-by-name", "note"),
    "name and sidecar contradict": (lambda s: path(s, "t1c").with_name(f"{P1}_ce-gadolinium_T1w.json").write_text(
        '{"ContrastBolusIngredient": "none"}'), "contrast-unclear", "error"),
    "two T1": (lambda s: renamed(s, "t1c", f"{P1}_acq-mprage_T1w.nii.gz"), "file-twins", "error"),
    "run- twins": (lambda s: [shutil.copy(path(s, "t2"), path(s, "t2").with_name(f"{P1}_run-{r}_T2w.nii.gz")) for r in (1, 2)]
                   + [path(s, "t2").unlink()], "file-twins", "error"),
    "mask named as a segmentation": (lambda s: renamed(s, "mask", f"{P1}_dseg.nii.gz"), "mask-by-name", "note"),
    "no image at all": (lambda s: [f.unlink() for f in (s / P1).rglob("*.nii.gz")], "modality-none", "error"),
    "named after another patient": (lambda s: renamed(s, "t2", "sub-0009_T2w.nii.gz"), "name-other-patient", "error"),
    "a folder in capitals": (lambda s: (s / P2).rename(s / P2.upper()), "folder-left", "warning"),
    "a link to nothing for a folder": (lambda s: (s / "sub-0003").symlink_to("gone"), "link-broken", "error"),
}  # fmt: skip
TABLES: dict[str, tuple[Spoil, str, str]] = {
    "no table": (lambda s: (s / "participants.tsv").unlink(), "labels-none", "warning"),
    "no sub- in the ids": (lambda s: table(s, HEAD, ROW1[4:], ROW2[4:]), "rows-matched", "note"),
    "no label anywhere": (lambda s: table(s, HEAD, f"{P1}\t61\tF\tn/a", f"{P2}\t47\tM\tn/a"), "labels-none", "warning"),
    "a row too many": (lambda s: table(s, HEAD, ROW1, ROW2, "sub-0009\t50\tM\tidh-wildtype"), "rows-without-patient", "note"),
    "rows that contradict": (lambda s: table(s, HEAD, ROW1, ROW2, f"{P1}\t61\tF\toligodendroglioma"), "rows-contradict", "error"),
    "the same row twice": (lambda s: table(s, HEAD, ROW1, ROW1, ROW2), "rows-same", "note"),
    "an unknown label": (lambda s: table(s, HEAD, f"{P1}\t61\tF\tgbm", ROW2), "label-unknown", "error"),
    "a year of birth": (lambda s: table(s, HEAD, f"{P1}\t1958\tF\tidh-wildtype", ROW2), "age-unread", "warning"),
    "German headings": (lambda s: table(s, "participant_id\tAlter\tSubtyp", f"{P1}\t61\tidh-wildtype"), "labels-none", "warning"),
    "an age in words": (lambda s: table(s, HEAD, f"{P1}\tsixty\tF\tidh-wildtype", ROW2), "age-unread", "note"),
}  # fmt: skip
IDENTIFIERS: dict[str, tuple[Spoil, str, str]] = {
    "a name in descrip": (lambda s: with_header(s, "t1", descrip=b"MUELLER^HANS"), "identifier-header", "warning"),
    "a birth date in aux_file": (lambda s: with_header(s, "t1", aux_file=b"12.03.1954"), "identifier-header", "warning"),
    "a record number in db_name": (lambda s: with_header(s, "t1", db_name=b"00845127"), "identifier-header", "warning"),
    "a name in intent_name": (lambda s: with_header(s, "t1", intent_name=b"Mueller, Hans"), "identifier-header", "warning"),
    "DICOM in an extension": (lambda s: extended(s, 2, PATIENT_NAME), "identifier-header", "warning"),
    "AFNI's history": (lambda s: extended(s, 4, b"<AFNI>3dcopy Mueller^Hans.nii</AFNI>"), "identifier-header", "warning"),
    "a comment": (lambda s: extended(s, 6, b"born 1954-03-12"), "identifier-header", "warning"),
    "a name for a folder": (lambda s: renamed_patient(s, "sub-Mueller^Hans"), "identifier-name", "warning"),
    "a record number for a folder": (lambda s: renamed_patient(s, "sub-00845127"), "identifier-name", "warning"),
    "a birth date for a folder": (lambda s: renamed_patient(s, "sub-19540312"), "identifier-name", "warning"),
    "a column of names": (lambda s: table(s, HEAD + "\tname", ROW1 + "\tHans", ROW2 + "\tEva"), "identifier-column", "warning"),
    "a column of birth dates": (lambda s: table(s, HEAD + "\tb", ROW1 + "\t1954-03-12", ROW2), "identifier-column", "warning"),
    "an age over 89": (lambda s: table(s, HEAD, f"{P1}\t94\tF\tidh-wildtype", ROW2), "identifier-column", "note"),
}  # fmt: skip
# Judged by what the images show, hence in full resolution.
IMAGES: dict[str, tuple[Spoil, str, str]] = {
    "T1 and FLAIR exchanged": (lambda s: swap(s, "t1", "flair"), "modality-swapped", "warning"),
    "contrast T1 and FLAIR exchanged": (lambda s: swap(s, "t1c", "flair"), "modality-swapped", "warning"),
    "T2 and FLAIR exchanged": (lambda s: swap(s, "t2", "flair"), "modality-swapped", "warning"),
    "T1 and T2 exchanged": (lambda s: swap(s, "t1", "t2"), "modality-swapped", "warning"),
    "T1 and contrast T1 exchanged": (lambda s: swap(s, "t1", "t1c"), "modality-swapped", "warning"),
    "T1 once more as contrast T1": (lambda s: copy(s, "t1", "t1c"), "volume-twice", "warning"),
    "T1 as contrast T1, in another form": (near_copy, "volume-twice-near", "warning"),
    "T2 of another patient": (lambda s: copy(s, "t2", "t2", P2), "volume-twice", "warning"),
    "one person as two": (person_twice, "person-twice", "warning"),
    "with a skull": (with_skull, "face", "note"),
    "T1 front for back": (lambda s: rewrite(s, "t1", lambda v: v[:, ::-1], np.int16), "modality-mirrored", "warning"),
    "FLAIR mirrored": (lambda s: rewrite(s, "flair", lambda v: v[::-1], np.int16), "modality-mirrored", "warning"),
    "FLAIR 15 mm off": (lambda s: reheader(s, "flair", off_by_15_mm), "modality-shifted", "warning"),
    "slices in any order": (lambda s: rewrite(s, "t2", in_any_order, np.int16), "slices-shuffled", "warning"),
    "noise": (lambda s: rewrite(s, "t1", noise, np.int16), "modality-misfit", "warning"),
    "T1 inverted as contrast T1": (inverted_copy, "volume-twice-near", "warning"),
    "a mask mirrored": (lambda s: rewrite(s, "mask", lambda v: v[::-1], np.uint8), "mask-mirrored", "warning"),
    "in centimetres": (in_centimetres, "size-implausible", "error"),
}
SMALL = {f"{group}: {name}": row for group, rows in (
    ("geometry", GEOMETRY), ("files", FILES), ("intensities", INTENSITIES), ("masks", MASKS), ("names", NAMES),
    ("tables", TABLES), ("identifiers", IDENTIFIERS),
) for name, row in rows.items()}  # fmt: skip


def check(site: Path) -> SiteCheck:
    run = RunConfig()
    return check_site(read_site(site, run), run)


def found(result: SiteCheck) -> set[tuple[str, str]]:
    return {(one.code, one.level.value) for one in result.findings}


def test_there_are_sixty() -> None:
    assert len(SMALL) + len(IMAGES) >= 60


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (65535, np.uint16), (4095, np.int16)])
def test_what_fills_its_type_is_silent(a_site, top, dtype) -> None:
    """Stretched to the last value that the type, or the scanner, has: every fold of the values would be one jump too many."""
    rewrite(a_site, "t2", lambda voxels: over(voxels, top), dtype)
    assert check(a_site).findings == ()


def test_clean_sites_are_silent(small, full) -> None:
    assert check(small).findings == ()
    assert check(full).findings == ()


@pytest.mark.parametrize("name", SMALL)
def test_found_under_its_code(a_site, name) -> None:
    spoil, code, level = SMALL[name]
    spoil(a_site)
    result = check(a_site)
    assert (code, level) in found(result)
    assert all(one.found and one.expected and one.do for one in result.findings)


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_found_under_their_code(a_full_site, name) -> None:
    spoil, code, level = IMAGES[name]
    spoil(a_full_site)
    assert (code, level) in found(check(a_full_site))


def test_a_whole_site_that_cannot_be_read_says_why(tmp_path) -> None:
    with pytest.raises(DataError):
        read_site(tmp_path / "nothing", RunConfig())
