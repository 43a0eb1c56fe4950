"""One patient's slices: every modality on one grid, scaled by its rule, cut where the tumour or the brain is.

S slices, M modalities, H = W pixels; Z slices of the volume. No module imported here needs torch, so that the cache's worker
processes start fast.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.config.modalities import MODALITIES
from common.config.sections import DataConfig
from common.data.cases import Case
from common.data.volumes import (
    Array,
    Mask,
    Volume,
    apply_window,
    centre_of,
    choose_slices,
    crop_slices,
    foreground,
    intensity_window,
    load_volume,
    quantity_window,
    resample,
)
from common.errors import DataError


@dataclass(frozen=True, eq=False)
class Sliced:
    """One patient's slices, and which they are."""

    images: npt.NDArray[np.float16]  # [S, M, H, W] in 0 to 1, zeros where a modality is absent
    present: Mask  # [M]
    indices: npt.NDArray[np.int64]  # [S] along Z of the reference, from below
    depth: int  # Z, slices that the reference has
    tumour: bool  # they go through the mask's tumour; else through the brain


def prepare_case(case: Case, data: DataConfig) -> tuple[npt.NDArray[np.float16], Mask]:
    """`slice_case`, of which only images [S, M, H, W] and present [M] are kept."""
    sliced = slice_case(case, data)
    return sliced.images, sliced.present


def slice_case(case: Case, data: DataConfig, *, threads: int = 1) -> Sliced:
    """Read, orient, scale, choose and crop one patient.

    All modalities and the mask are brought to the grid of the first present one, in the order of `data.modalities`.

    Args:
        case: its files are read whole.
        data: modalities, number of slices, field of view in mm, size in pixels.
        threads: that read and scale volumes side by side; unpacking and sorting leave Python's lock to others.

    Raises:
        DataError: none of the modalities is there, or a file cannot be used.
    """
    names = [m for m in data.modalities if m in case.files]
    if not names:
        raise DataError(f"Patient {case.id}: none of {', '.join(data.modalities)}; it has {', '.join(case.files)}.")
    with ThreadPoolExecutor(threads) as pool:
        spread = pool.map if threads > 1 else map  # map alone keeps one volume after the other
        volumes = list(spread(lambda m: load_volume(case.files[m], case.where(case.files[m])), names))
        reference = volumes[0]
        region, tumour = find_region(case, reference)
        indices = choose_slices(region, data.slices, tumour=tumour, thickness=reference.spacing[2])
        centre = centre_of(region, reference.spacing)
        cropped = list(spread(lambda m, v: _scaled_slices(resample(v, reference), m, indices, centre, data), names, volumes))
    images = np.zeros((data.slices, len(data.modalities), data.size, data.size), dtype=np.float16)
    for modality, slices in zip(names, cropped, strict=True):
        images[:, data.modalities.index(modality)] = slices
    present = np.array([m in names for m in data.modalities])
    return Sliced(images, present, indices, reference.voxels.shape[2], tumour)


def _scaled_slices(
    volume: Volume, modality: str, indices: npt.NDArray[np.int64], centre: tuple[float, float], data: DataConfig
) -> Array:
    """[S, H, W]: scaled by the whole volume's window, but no other slices than these."""
    window = _window(volume.voxels, modality, data)
    slab = Volume(apply_window(volume.voxels[:, :, indices], window), volume.affine)
    return crop_slices(slab, np.arange(len(indices)), centre, data.field_of_view, data.size)


def _window(voxels: Array, modality: str, data: DataConfig) -> tuple[float, float] | None:
    """By the modality's intensity rule."""
    quantity = MODALITIES[modality].quantity
    if quantity is None:
        return intensity_window(voxels, data.low_percentile, data.high_percentile)
    return quantity_window(voxels, quantity.low, quantity.high, quantity.typical)


def find_region(case: Case, reference: Volume) -> tuple[Mask, bool]:
    """What the slices go through, on the reference's grid: (tumour, True), or (foreground, False) without a mask."""
    if case.mask:
        mask = resample(load_volume(case.mask, case.where(case.mask)), reference, order=0).voxels > 0
        if mask.any():
            return mask, True
    return foreground(reference.voxels), False
