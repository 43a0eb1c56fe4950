"""One image file becomes a volume in RAS orientation, or a finding that says what the file is instead."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.data.gate.finding import Finding, Kind, Level, StaysOutError
from common.data.volumes import Header, Volume

UNREADABLE = Kind("file-unreadable", Level.ERROR, "the operating system does not hand out the file")
DAMAGED = Kind("file-damaged", Level.ERROR, "a NIfTI file that breaks off or holds nonsense")
NOT_3D = Kind("file-not-3d", Level.ERROR, "several frames in one file, or fewer than three axes")
NO_SPACE = Kind("affine-singular", Level.ERROR, "an affine that squeezes the image flat, or holds no numbers")
KINDS = (UNREADABLE, DAMAGED, NOT_3D, NO_SPACE)
REMAKE = "Convert the series anew, and look at its header."


def load_volume(file: Path, name: str = "") -> Volume:
    """Read an image file whole and turn it to RAS.

    Args:
        file: NIfTI (1 or 2, gzipped or not).
        name: the patient and the file as messages should name them; the default is the file's name.

    Raises:
        StaysOutError: it cannot be used.
    """
    return read_file(file, name or file.name)[0]


def read_file(file: Path, name: str) -> tuple[Volume, tuple[Finding, ...]]:
    """`load_volume`, and what the file made us decide.

    Raises:
        StaysOutError: it cannot be used; its one finding names `name` as the file, and no patient.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StaysOutError(
            [UNREADABLE.finding(f"cannot be read ({error.strerror})", "a readable file", "Mend it.", file=name)]
        ) from error
    try:
        raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        image = nib.as_closest_canonical(_kind(raw).from_bytes(raw))
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        what = str(error) or type(error).__name__
        raise StaysOutError(
            [DAMAGED.finding(f"truncated or damaged NIfTI ({what})", "a whole file", "Copy it anew.", file=name)]
        ) from error
    if voxels.ndim > 3 and voxels.size == np.prod(voxels.shape[:3]):
        voxels = voxels.reshape(voxels.shape[:3])
    if voxels.ndim != 3 or not voxels.size:
        raise StaysOutError([NOT_3D.finding(f"an array of shape {voxels.shape}", "one 3D volume", REMAKE, file=name)])
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        text = "its affine has no volume"
        raise StaysOutError([NO_SPACE.finding(text, "a NIfTI header with voxel sizes and orientation", REMAKE, file=name)])
    header = Header("NIfTI-1", tuple(image.shape), str(image.get_data_dtype()))
    return Volume(np.ascontiguousarray(voxels), affine, header), ()


def _kind(raw: bytes) -> Any:
    """The nibabel class for a NIfTI file's bytes."""
    return nib.Nifti2Image if nib.Nifti2Header.may_contain_header(raw) else nib.Nifti1Image
