"""One patient's slices: every modality on one grid, scaled by its rule, cut where the tumour or the brain is.

S images (slices of each axis, at each field of view: `common.config.axes`), M modalities, H = W pixels. No module imported here
needs torch, so that the cache's worker processes start fast; nor any of FedMRI that does not go into an exported bundle
(`server.release.monai_bundle`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.config.axes import squares
from common.config.modalities import MODALITIES
from common.data.gate.finding import Finding
from common.data.gate.patient import Cut, Files, Patient, read_patient
from common.data.harmonisation import landmarks, to_standard
from common.data.planes import Plane, cut_planes
from common.data.volumes import Array, Mask, Volume, air, apply_window, intensity_window, quantity_window, zscore_window


@dataclass(frozen=True, eq=False)
class Sliced:
    """One patient's slices, which they are, and what was found on the way."""

    images: npt.NDArray[np.float16]  # [S, M, H, W] in 0 to 1, zeros where a modality is absent
    present: Mask  # [M]
    planes: tuple[Plane, ...]  # one for each axis of the run
    tumour: bool  # they go through the mask's tumour; else through the brain
    findings: tuple[Finding, ...] = ()  # warnings and notes

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Which slice each image shows, [S], along its own axis."""
        fields = len(self.images) // sum(len(plane.indices) for plane in self.planes)
        return np.concatenate([np.tile(plane.indices, fields) for plane in self.planes])


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
    images = np.zeros((len(squares(data)), len(data.modalities), data.size, data.size), dtype=np.float16)
    with ThreadPoolExecutor(threads) as pool:
        spread = pool.map if threads > 1 else map  # map alone keeps one volume after the other
        cropped = spread(lambda m: _images_of(m, read, data), read.volumes)
        for modality, slices in zip(read.volumes, cropped, strict=True):
            images[:, list(data.modalities).index(modality)] = slices
    present = np.array([m in read.volumes for m in data.modalities])
    return Sliced(images, present, read.planes, read.guided, read.findings)


def _images_of(modality: str, read: Patient, data: Cut) -> Array:
    """[S, H, W] of one modality."""
    volume = read.volumes[modality]
    return cut_planes(volume, read.planes, data, scaling(volume, modality, data))


def cut_tumour(read: Patient, data: Cut) -> Mask | None:
    """The mask's tumour [S, H, W] in the squares of `cut_patient`; None where there is none."""
    if not read.tumour:
        return None
    inside: Mask = tumour_share(read, data) >= 0.5
    return inside


def tumour_share(read: Patient, data: Cut) -> Array:
    """The part of each pixel of `cut_patient`'s images that is in the region, [S, H, W]."""
    region = Volume(read.region.astype(np.float32), read.reference.affine)
    return cut_planes(region, read.planes, data, lambda slab: slab)


def scaled_slab(volume: Volume, modality: str, indices: npt.NDArray[np.int64], data: Cut) -> Array:
    """Slices [X, Y, S] in 0 to 1: by the whole volume's window and landmarks, but no other slices than these."""
    return scaling(volume, modality, data)(volume.voxels[:, :, indices])


def scaling(volume: Volume, modality: str, data: Cut) -> Callable[[Array], Array]:
    """How any of the volume's voxels become 0 to 1: by the whole volume's window and landmarks, which are found once.

    Whoever shows or uses a patient's intensities scales them here.
    """
    window = intensity_rule(volume, modality, data)
    # The window by z-scores may begin below air: no grey there.
    dark = data.intensity == "zscore" and MODALITIES[modality].quantity is None
    below = air(volume.voxels, volume.levels) if dark else -np.inf
    standard = next((row.landmarks for row in data.standard if row.name == modality), ())
    own = landmarks(volume, window) if standard else ()

    def scale(voxels: Array) -> Array:
        scaled = apply_window(voxels, window)
        scaled = np.where(voxels > below, scaled, np.float32(0)) if dark else scaled
        return to_standard(scaled, own, standard) if standard else scaled

    return scale


def intensity_rule(volume: Volume, modality: str, data: Cut) -> tuple[float, float] | None:
    """The window [low, high] of a volume by its modality's rule; None where it has no contrast."""
    quantity = MODALITIES[modality].quantity
    if quantity is None:
        window = zscore_window if data.intensity == "zscore" else intensity_window
        return window(volume.voxels, data.low_percentile, data.high_percentile, volume.levels)
    return quantity_window(volume.voxels, quantity.low, quantity.high, quantity.typical)
