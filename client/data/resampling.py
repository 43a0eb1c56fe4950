"""Onto the reference's grid: images as floats by cubic splines, masks by nearest neighbour. Never by whole numbers cut off."""

import numpy as np
import SimpleITK as sitk  # noqa: N813  # the name that everybody knows it by

from client.data.registration import Floats, to_image, to_transform
from client.data.volume import Volume


def resample_image(other: Volume, reference: Volume, matrix: Floats) -> Volume:
    """An image on the reference's grid.

    Cubic B-splines overshoot at edges, so the result is held within the range of what it was made from; outside the image it is
    its minimum.

    Args:
        other: the image.
        reference: whose grid is wanted.
        matrix: 4 x 4, takes the reference's world to the image's (RAS, mm).
    """
    low, high = float(other.voxels.min()), float(other.voxels.max())
    if same_grid(other, reference) and np.allclose(matrix, np.eye(4), atol=1e-6):
        return other
    kind = sitk.sitkBSpline if min(other.voxels.shape) >= 4 else sitk.sitkLinear
    return Volume(np.clip(_resample(other, reference, matrix, kind, low), low, high), reference.affine)


def resample_mask(mask: Volume, reference: Volume, matrix: Floats) -> Volume:
    """A label map on the reference's grid: the labels stay the labels."""
    return Volume(_resample(mask, reference, matrix, sitk.sitkNearestNeighbor, 0.0), reference.affine)


def same_grid(one: Volume, other: Volume) -> bool:
    """Equal in shape, and in place to a hundredth of a millimetre at the corners."""
    if one.voxels.shape != other.voxels.shape:
        return False
    corners = np.array([[*(np.array(one.voxels.shape) - 1), 1], [0, 0, 0, 1]]).T
    return bool(np.abs((one.affine - other.affine) @ corners).max() < 0.01)


def _resample(
    other: Volume, reference: Volume, matrix: Floats, kind: int, outside: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    image = sitk.Resample(to_image(other), to_image(reference), to_transform(matrix), kind, outside, sitk.sitkFloat32)
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))
