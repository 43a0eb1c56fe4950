"""Every slice of a patient's volume at the scale of a run's windows, for a model that answers each pixel; and the way back.

No slice and no place is left out: what is cut is as wide as the brain, and a model that knows windows of `data.size` pixels
slides over it. The mask decides of nothing here. X, Y, Z voxels, M modalities, n x n pixels. No module imported here needs torch.
"""

import math
from dataclasses import dataclass

import numpy as np

from common.config.axes import AXIAL, fields_of_view
from common.data.gate.patient import Cut, Patient
from common.data.planes import window_move
from common.data.slices import scaling
from common.data.volumes import Array, Mask, crop_slices, foreground, interpolation


@dataclass(frozen=True, eq=False)
class Whole:
    """All axial slices of one patient.

    Attributes:
        images: [Z, M, n, n] in 0 to 1, zeros where a modality is absent; n is `data.size` or more.
        present: [M].
        centre: of the squares, in mm from the centre of voxel 0, along X and Y.
        pixel: edge in mm.
        shape: of the volume, X, Y, Z.
        spacing: of its voxels in mm.
    """

    images: Array
    present: Mask
    centre: tuple[float, float]
    pixel: float
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def to_volume(self, values: Array) -> Array:
        """Values [Z, n, n] of pixels at the volume's voxels, [X, Y, Z]: linear interpolation, 0 outside the squares."""
        X, Y, _ = self.shape
        n = self.images.shape[-1]
        columns, rows = (
            interpolation(
                (self.centre[axis] - np.arange(length) * self.spacing[axis]) / self.pixel + (n - 1) / 2,
                n,
                self.spacing[axis] / self.pixel,
            )
            for axis, length in ((0, X), (1, Y))
        )
        flat = values.transpose(1, 2, 0).reshape(n, -1)  # rows, columns and slices
        along_y = (rows @ flat).reshape(Y, n, -1).swapaxes(0, 1).reshape(n, -1)
        return np.ascontiguousarray((columns @ along_y).reshape(X, Y, -1).astype(np.float32))


def cut_whole(patient: str, read: Patient, data: Cut) -> Whole:
    """All axial slices, around the brain.

    Args:
        patient: id, by which `data.shift` moves the squares.
        read: as the gate read them.
        data: modalities, size in pixels of a window and its field of view in mm.
    """
    reference, [field] = read.reference, fields_of_view(data)
    pixel = field / data.size
    move = window_move(patient, AXIAL[0], data.shift)
    middle, extent = _brain(read)
    n = max(data.size, math.ceil((extent + 2 * max(map(abs, move))) / pixel))
    centre = (middle[0] + move[0], middle[1] + move[1])
    depth = reference.voxels.shape[2]
    images = np.zeros((depth, len(data.modalities), n, n), np.float32)
    for modality, volume in read.volumes.items():
        scaled = type(volume)(scaling(volume, modality, data)(volume.voxels), volume.affine)
        images[:, list(data.modalities).index(modality)] = crop_slices(scaled, np.arange(depth), centre, n * pixel, n)
    x, y, z = reference.voxels.shape
    return Whole(images, np.array([m in read.volumes for m in data.modalities]), centre, pixel, (x, y, z), reference.spacing)


def _brain(read: Patient) -> tuple[tuple[float, float], float]:
    """The middle of the brain's box in the plane, in mm from voxel 0, and its longer edge; of an empty one, of the image."""
    reference = read.reference
    there: Mask = np.asarray(foreground(reference.voxels, reference.levels).any(axis=2))
    middle, edges = [], []
    for axis in (0, 1):
        places = np.flatnonzero(there.any(axis=1 - axis)) if there.any() else np.arange(there.shape[axis])
        middle.append((places[0] + places[-1]) / 2 * reference.spacing[axis])
        edges.append((places[-1] - places[0] + 1) * reference.spacing[axis])
    return (float(middle[0]), float(middle[1])), float(max(edges))
