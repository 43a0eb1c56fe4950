"""A volume in memory and as NIfTI."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from common.errors import DataError


@dataclass(frozen=True)
class Volume:
    """Voxels `[C, R, K]` (column, row, slice) of real values, and the affine (mm, RAS) that takes them to the world."""

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]


def load_nifti(path: Path) -> Volume:
    """Read a file of three axes.

    Raises:
        DataError: it is no NIfTI file, damaged, or has other axes.
    """
    try:
        image = nib.Nifti1Image.from_filename(path)
        voxels = np.asarray(image.dataobj, np.float32)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error})") from error
    if voxels.ndim != 3 or image.affine is None:
        raise DataError(f"{path}: expected an image of 3 axes, got {voxels.ndim}")
    return Volume(voxels, np.asarray(image.affine, float))


def save_nifti(volume: Volume, path: Path, kind: type[np.generic] = np.float32) -> None:
    """Write a file whose two affines agree, whatever a reader prefers.

    Args:
        volume: what is written.
        path: its folder is made where it is absent.
        kind: of the numbers in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(volume.voxels, kind), volume.affine)
    image.set_sform(volume.affine, 1)
    image.set_qform(volume.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
