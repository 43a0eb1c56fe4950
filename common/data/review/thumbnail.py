"""One patient's volumes as a few coarse axial slices on one grid: enough to see what kind of image each is, and cheap.

V volumes; X x Y pixels of about 2 mm; S slices.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.review.percentiles import of_sorted, percentiles
from common.data.review.planes import opened, without_holes
from common.data.volumes import BACKGROUND, Array, Mask, Volume, foreground

STEP = 2.0  # mm that pixels are averaged to, where they are smaller
SLICES = 16  # at most, spread over those that show at least half as much as the fullest
DEEP = 15.0  # mm from the head's outline in the plane: within the skull, where there is one
CSF = 0.4  # of what z-scored intensities are taken to span above fluid: how far above 0 the fluid lies
LEAST_DEEP = 300  # pixels so deep, below which an image shows too little of a head to judge


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """What `thumbnail` makes of a patient."""

    slices: Mapping[str, Array]  # [X, Y, S] by modality, in the file's units, finite
    tumour: Array | None  # [X, Y, S], the share of each pixel that the mask covers
    pixel: tuple[float, float]  # mm along X and Y
    depth: NDArray[np.float32]  # [X, Y, S], mm from the head's outline in the plane; 0 outside

    @property
    def deep(self) -> Mask:
        """Pixels well inside the head."""
        return self.depth >= DEEP

    @property
    def shows_a_head(self) -> bool:
        """Whether there is enough of one to judge."""
        return int(self.deep.sum()) >= LEAST_DEEP


def thumbnail(volumes: Mapping[str, Volume], tumour: Mask | None = None) -> Thumbnail:
    """Reduce volumes on one grid.

    Args:
        volumes: by modality, one or more, all on one grid.
        tumour: [X, Y, Z] on it; None: no mask.
    """
    reference = next(iter(volumes.values()))
    chosen = _spread(reference.voxels)
    small = {name: _reduced(volume.voxels[:, :, chosen], reference.spacing) for name, volume in volumes.items()}
    pixel = _pixel(reference.spacing)
    head = _outline(list(small.values()))
    depth = depth_inside(head, pixel)
    small = {name: _from_zero(slices, head) for name, slices in small.items()}
    return Thumbnail(small, None if tumour is None else _reduced(tumour[:, :, chosen], reference.spacing), pixel, depth)


def depth_inside(region: Mask, pixel: tuple[float, float]) -> NDArray[np.float32]:
    """mm to the nearest pixel outside the region [X, Y, S], in each slice; what reaches the image's edge goes on beyond it."""
    depth = np.zeros(region.shape, np.float32)
    for s in range(region.shape[2]):
        inside = np.ascontiguousarray(region[:, :, s])
        if inside.any() and not inside.all():
            depth[:, :, s] = ndimage.distance_transform_edt(inside, sampling=pixel)
    return depth


def shown(slices: Array) -> Mask:
    """`foreground` of finite slices, sooner."""
    rising = np.sort(slices, axis=None)
    positive = rising[np.searchsorted(rising, 0, side="right") :]
    return slices > BACKGROUND * float(of_sorted(positive, (99,))[0]) if positive.size else foreground(slices)


def _spread(voxels: Array) -> NDArray[np.int64]:
    area = foreground(voxels[::3, ::3]).sum(axis=(0, 1))
    wide = np.flatnonzero(area >= area.max() / 2)
    count = min(SLICES, wide.size)
    return wide[((np.arange(count) + 0.5) / count * wide.size).astype(np.int64)]


def _blocks(spacing: tuple[float, ...]) -> tuple[int, int]:
    return max(1, round(STEP / spacing[0])), max(1, round(STEP / spacing[1]))


def _pixel(spacing: tuple[float, ...]) -> tuple[float, float]:
    along_x, along_y = _blocks(spacing)
    return spacing[0] * along_x, spacing[1] * along_y


def _reduced(voxels: NDArray[np.generic], spacing: tuple[float, ...]) -> Array:
    """Means over blocks in the plane; what is left over at the far edges is cut off."""
    along_x, along_y = _blocks(spacing)
    across, down = voxels.shape[0] // along_x, voxels.shape[1] // along_y
    if not np.isfinite(voxels).all():
        voxels = np.nan_to_num(voxels, nan=0.0, posinf=0.0, neginf=0.0)
    total = np.zeros((across, down, *voxels.shape[2:]), np.float32)
    for x in range(along_x):
        for y in range(along_y):
            total += voxels[x : across * along_x : along_x, y : down * along_y : along_y]
    blocks: Array = (total / (along_x * along_y)).astype(np.float32, copy=False)
    return blocks


def _from_zero(slices: Array, head: Mask) -> Array:
    """The same where intensities begin at 0; z-scored ones are moved so that the darkest of the head are 0.3 of the median."""
    if not head.any() or slices.min() >= 0:
        return slices
    low, middle = (float(q) for q in percentiles(slices[head], (1, 50)))
    return slices if low >= 0 else np.where(head, slices - low + CSF * (middle - low), 0).astype(np.float32)


def _outline(slices: list[Array]) -> Mask:
    """The head [X, Y, S]: foreground of at least half of the volumes, without specks and holes."""
    votes = np.count_nonzero([shown(each) for each in slices], axis=0) * 2 >= len(slices)
    whole = without_holes(opened(np.ascontiguousarray(np.moveaxis(votes, 2, 0))))
    return np.ascontiguousarray(np.moveaxis(whole, 0, 2))
