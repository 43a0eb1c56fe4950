"""Where the slices of each axis lie in one patient, and how a volume is cut there.

S slices of an axis, X, Y, Z voxels as in `common.data.volumes`, H = W pixels. No module imported here needs torch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.config.axes import AXES, VOLUME, Stacked, fields_of_view
from common.data.volumes import HALF, Array, Mask, Volume, centre_of, choose_slices, crop_slices, interpolation


class Sized(Stacked, Protocol):
    """`Stacked`, and how many pixels an image has."""

    @property
    def size(self) -> int:
        """Edge in pixels."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The slices of one axis.

    Attributes:
        axis: of `common.config.axes.AXES`.
        indices: [S], along the axis, from where it is counted.
        centre: of the field of view, in mm from the centre of voxel 0, along the axes of columns and rows.
        depth: slices that the reference has along the axis.
        height: of a cube's centre, in mm from the centre of voxel 0 along the axis.
    """

    axis: str
    indices: npt.NDArray[np.int64]
    centre: tuple[float, float]
    depth: int
    height: float = 0.0


def choose_plane(
    region: Mask,
    reference: Volume,
    axis: str,
    count: int,
    *,
    tumour: bool,
    least: float = HALF,
    move: tuple[float, float] = (0.0, 0.0),
) -> Plane:
    """Choose the slices of one axis, and what they are centred on, by the same rules for each.

    Args:
        region: [X, Y, Z], what they go through.
        reference: on its grid.
        axis: of `common.config.axes.AXES`.
        count: S.
        tumour: whether the region is a tumour's.
        least: of `choose_slices`.
        move: of the window, in mm along columns and rows (`window_move`).
    """
    there, spacing = region.transpose(AXES[axis].order), turned(reference, axis).spacing
    indices = choose_slices(there, count, tumour=tumour, thickness=spacing[2], least=least)
    centre = centre_of(there, spacing)
    return Plane(axis, indices, (centre[0] + move[0], centre[1] + move[1]), there.shape[2])


def choose_cube(region: Mask, reference: Volume, data: Sized, move: tuple[float, float] = (0.0, 0.0)) -> Plane:
    """Where the one cube of a patient lies: around the centroid of a region.

    Args:
        region: [X, Y, Z], the brain.
        reference: on its grid.
        data: the cube's edge in mm, and its layers.
        move: in mm along columns and rows (`window_move`).

    Returns:
        `indices` are the slices nearest to the layers, of those that show the region: beyond it a layer shows nothing else.
    """
    x, y = centre_of(region, reference.spacing)
    _, height = centre_of(region.transpose(0, 2, 1), (reference.spacing[0], reference.spacing[2], reference.spacing[1]))
    there = np.flatnonzero(region.any(axis=(0, 1))) if region.any() else np.arange(region.shape[2])
    nearest = np.rint((height + _offsets(data)) / reference.spacing[2]).astype(np.int64)
    return Plane(VOLUME, nearest.clip(there[0], there[-1]), (x + move[0], y + move[1]), region.shape[2], height)


def cut_cube(volume: Volume, cube: Plane, data: Sized, scale: Callable[[Array], Array]) -> Array:
    """The whole volume resampled to a cube, [S, H, W] from below: as `crop_slices` in the plane, and alike along the third axis.

    Linear interpolation, 0 outside the volume; cube voxels that are wider than the volume's average over their width.

    Args:
        volume: on the grid that the cube was chosen on.
        cube: of `choose_cube`.
        data: its edge in mm and in voxels.
        scale: of the voxels, before they are interpolated.
    """
    [field] = fields_of_view(data)
    scaled, depth, thickness = Volume(scale(volume.voxels), volume.affine), volume.voxels.shape[2], volume.spacing[2]
    flat = crop_slices(scaled, np.arange(depth), cube.centre, field, data.size)  # [Z, H, W]
    layers = interpolation((cube.height + _offsets(data)) / thickness, depth, field / data.slices / thickness)
    return np.ascontiguousarray((layers @ flat.reshape(depth, -1)).reshape(-1, *flat.shape[1:]))


def _offsets(data: Sized) -> npt.NDArray[np.float64]:
    """Of a cube's layers from its centre, in mm."""
    [field] = fields_of_view(data)
    return np.asarray((np.arange(data.slices) - (data.slices - 1) / 2) * (field / data.slices), np.float64)


def window_move(patient: str, axis: str, most: float) -> tuple[float, float]:
    """Where a patient's window is moved, in mm along columns and rows: drawn evenly from -`most` to `most` by the id alone.

    Images that somebody cut around a tumour tell by their middle where it is. The same patient is always moved alike.
    """
    digest = hashlib.sha256(f"window/{axis}/{patient}".encode()).digest()
    draws = [int.from_bytes(digest[at : at + 8], "big") / 2**64 for at in (0, 8)]
    return (2 * draws[0] - 1) * most, (2 * draws[1] - 1) * most


def turned(volume: Volume, axis: str) -> Volume:
    """The same voxels at the same places, with the slices of `axis` along the last one; nothing is copied."""
    order = AXES[axis].order
    if order == (0, 1, 2):
        return volume
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, order]
    return Volume(volume.voxels.transpose(order), affine, volume.header, volume.levels)


def cut_planes(volume: Volume, planes: Sequence[Plane], data: Sized, scale: Callable[[Array], Array]) -> Array:
    """The images of one volume, axis by axis and field of view by field of view, [S, H, W] of all axes.

    Args:
        volume: on the grid that the planes were chosen on.
        planes: one for each axis.
        data: fields of view in mm, size in pixels.
        scale: of the voxels of some slices, before they are interpolated.
    """
    parts = []
    for plane in planes:
        if plane.axis == VOLUME:
            return cut_cube(volume, plane, data, scale)
        there = turned(volume, plane.axis)
        slab, every = Volume(scale(there.voxels[:, :, plane.indices]), there.affine), np.arange(len(plane.indices))
        parts += [crop_slices(slab, every, plane.centre, field, data.size) for field in fields_of_view(data)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
