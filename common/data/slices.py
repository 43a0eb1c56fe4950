"""One patient's slices: every modality on one grid, scaled by its rule, cut where the tumour or the brain is.

S slices, M modalities, H = W pixels; Z slices of the volume. No module imported here needs torch, so that the cache's worker
processes start fast; nor any of FedMRI that does not go into an exported bundle (`server.release.monai_bundle`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.config.modalities import MODALITIES
from common.data.gate.finding import Finding
from common.data.gate.patient import Cut, Files, Patient, read_patient
from common.data.harmonisation import landmarks, to_standard
from common.data.volumes import (
    Array,
    Mask,
    Volume,
    air,
    apply_window,
    crop_slices,
    intensity_window,
    quantity_window,
    zscore_window,
)


@dataclass(frozen=True, eq=False)
class Sliced:
    """One patient's slices, which they are, and what was found on the way."""

    images: npt.NDArray[np.float16]  # [S, M, H, W] in 0 to 1, zeros where a modality is absent
    present: Mask  # [M]
    indices: npt.NDArray[np.int64]  # [S] along Z of the reference, from below
    depth: int  # Z, slices that the reference has
    tumour: bool  # they go through the mask's tumour; else through the brain
    findings: tuple[Finding, ...] = ()  # warnings and notes


def prepare_case(case: Files, data: Cut) -> tuple[npt.NDArray[np.float16], Mask, tuple[Finding, ...]]:
    """`slice_case`, of which images [S, M, H, W], present [M] and findings are kept."""
    sliced = slice_case(case, data)
    return sliced.images, sliced.present, sliced.findings


def slice_case(case: Files, data: Cut, *, threads: int = 1) -> Sliced:
    """Read, judge, orient, scale, choose and crop one patient.

    All modalities and the mask are brought to the grid of the first present one, in the order of `data.modalities`.

    Args:
        case: its files are read whole.
        data: modalities, number of slices, field of view in mm, size in pixels.
        threads: that read and scale volumes side by side; unpacking and sorting leave Python's lock to others.

    Raises:
        StaysOutError: the patient cannot be used (`common.data.gate`).
    """
    return cut_patient(read_patient(case, data, threads=threads), data, threads=threads)


def cut_patient(read: Patient, data: Cut, *, threads: int = 1) -> Sliced:
    """Scale and crop one patient, as the gate read them."""
    images = np.zeros((data.slices, len(data.modalities), data.size, data.size), dtype=np.float16)
    with ThreadPoolExecutor(threads) as pool:
        spread = pool.map if threads > 1 else map  # map alone keeps one volume after the other
        cropped = spread(lambda m: _scaled_slices(read.volumes[m], m, read.indices, read.centre, data), read.volumes)
        for modality, slices in zip(read.volumes, cropped, strict=True):
            images[:, list(data.modalities).index(modality)] = slices
    present = np.array([m in read.volumes for m in data.modalities])
    return Sliced(images, present, read.indices, read.reference.voxels.shape[2], read.tumour, read.findings)


def cut_tumour(read: Patient, data: Cut) -> Mask | None:
    """The mask's tumour [S, H, W] in the squares of `cut_patient`; None where there is none."""
    if not read.tumour:
        return None
    slab = Volume(read.region[:, :, read.indices].astype(np.float32), read.reference.affine)
    inside: Mask = crop_slices(slab, np.arange(len(read.indices)), read.centre, data.field_of_view, data.size) >= 0.5
    return inside


def _scaled_slices(
    volume: Volume, modality: str, indices: npt.NDArray[np.int64], centre: tuple[float, float], data: Cut
) -> Array:
    """[S, H, W] of `scaled_slab`."""
    slab = Volume(scaled_slab(volume, modality, indices, data), volume.affine)
    return crop_slices(slab, np.arange(len(indices)), centre, data.field_of_view, data.size)


def scaled_slab(volume: Volume, modality: str, indices: npt.NDArray[np.int64], data: Cut) -> Array:
    """Slices [X, Y, S] in 0 to 1: by the whole volume's window and landmarks, but no other slices than these.

    Whoever shows or uses a patient's intensities scales them here.
    """
    window, slab = intensity_rule(volume, modality, data), volume.voxels[:, :, indices]
    scaled = apply_window(slab, window)
    if data.intensity == "zscore" and MODALITIES[modality].quantity is None:  # its window may begin below air: no grey there
        scaled = np.where(slab > air(volume.voxels, volume.levels), scaled, np.float32(0))
    standard = next((row.landmarks for row in data.standard if row.name == modality), ())
    return to_standard(scaled, landmarks(volume, window), standard) if standard else scaled


def intensity_rule(volume: Volume, modality: str, data: Cut) -> tuple[float, float] | None:
    """The window [low, high] of a volume by its modality's rule; None where it has no contrast."""
    quantity = MODALITIES[modality].quantity
    if quantity is None:
        window = zscore_window if data.intensity == "zscore" else intensity_window
        return window(volume.voxels, data.low_percentile, data.high_percentile, volume.levels)
    return quantity_window(volume.voxels, quantity.low, quantity.high, quantity.typical)
