"""Volumes: in canonical orientation, brought to one grid, scaled, and cut into squares of a fixed field of view.

Shapes: X, Y, Z voxels towards the patient's right, front and top (RAS); S slices, M modalities, H = W pixels.
An axial image lies as radiologists look at it: row 0 is anterior, column 0 is the patient's right. Other planes are cut the same
way from a turned volume (`common.data.planes`).
No module imported here needs torch, so that the cache's worker processes start fast.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SLICE_STEP = 4.0  # mm that chosen tumour slices lie apart where slices are thinner: neighbours of 1 mm show the same
# Standard deviations that a z-scored image shows: enhancing tumour lies above most of what else is bright.
BELOW, ABOVE = 3.0, 5.0
BACKGROUND = 0.05  # of the 99th percentile of the positive voxels: air, with its noise, lies below
COUNTED_AT_ONCE = 2**20  # voxels
HALF = 0.5  # of what the fullest slice shows of the brain: slices with less are not chosen
SAME_GRID = 0.01  # affines that differ less (mm) describe one grid


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of itself, unchanged: before any choice between its statements.

    Attributes:
        form: what kind of file it is, such as "NIfTI-1".
        shape: of the stored array, all axes.
        dtype: of the stored values, such as "int16".
        slope, inter: that the values were multiplied with and shifted by; 1 and 0 where the file has none.
        pixdim: lengths of the first three axes, in the file's unit.
        unit: of lengths, in mm; 1 where the file names none.
        qform_code, sform_code: 0 where that statement is not made.
        qform, sform: affines [4, 4] of the stored axes, in mm; None where the code is 0.
        affine: the one that is used, of the stored axes, in mm.
    """

    form: str
    shape: tuple[int, ...]
    dtype: str
    slope: float = 1.0
    inter: float = 0.0
    pixdim: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: float = 1.0
    qform_code: int = 0
    sform_code: int = 0
    qform: npt.NDArray[np.float64] | None = None
    sform: npt.NDArray[np.float64] | None = None
    affine: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(4))


@dataclass(frozen=True, eq=False)
class Levels:
    """The values of a volume whose file stores small integers, and how many voxels have each: percentiles without sorting.

    Attributes:
        values: [L], rising, all finite.
        counts: [L], above 0.
    """

    values: Array
    counts: npt.NDArray[np.int64]

    def above(self, threshold: float) -> "Levels":
        """Those above."""
        kept = self.values > threshold
        return Levels(self.values[kept], self.counts[kept])

    def percentile(self, q: float | tuple[float]) -> Any:
        """What `np.percentile` gives of all the voxels, to the last bit and of the same type; there is at least one."""
        below = np.cumsum(self.counts)
        place = (int(below[-1]) - 1) * np.true_divide(q if isinstance(q, int | float) else q[0], 100)
        first = int(np.floor(place))
        pair = self.values[np.searchsorted(below, (first, min(first + 1, int(below[-1]) - 1)), side="right")]
        part = float(place - first)
        return np.quantile(pair, part if isinstance(q, int | float) else (part,))


@dataclass(frozen=True, eq=False)
class Volume:
    """One image in canonical orientation: voxels [X, Y, Z] and the affine [4, 4] to millimetres (RAS)."""

    voxels: Array
    affine: npt.NDArray[np.float64]
    header: Header | None = None  # of the file that it was read from; None: it was computed
    levels: Levels | None = None  # of the stored voxels; None: too many, or it was computed

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm, along X, Y, Z."""
        x, y, z = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    def same_grid(self, other: "Volume") -> bool:
        """Whether voxels of both lie at the same places."""
        same_shape = self.voxels.shape == other.voxels.shape
        return same_shape and bool((np.abs(self.affine - other.affine) <= SAME_GRID).all())


def levels_of(raw: npt.NDArray[Any], scaled: Callable[[npt.NDArray[Any]], Array]) -> Levels | None:
    """The levels of stored integers of up to 16 bits; None for other types, and where scaling gives what is not finite.

    Args:
        raw: as stored.
        scaled: what stored integers mean.
    """
    if raw.dtype.kind not in "iu" or raw.dtype.itemsize > 2:
        return None
    counts, low = _counted(raw.ravel(order="K")), int(np.iinfo(raw.dtype).min)
    there = np.flatnonzero(counts)
    values = scaled((there + low).astype(raw.dtype))
    order = np.argsort(values, kind="stable")
    return Levels(values[order], counts[there[order]]) if np.isfinite(values).all() else None


def _counted(flat: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How often each of the integers that the type can hold occurs, from its lowest up."""
    bits = 8 * flat.dtype.itemsize
    if bits == 8:  # two at once: numpy widens each number that it counts to 64 bits, which is what takes the time
        even = flat[: flat.size // 2 * 2]
        pairs = _counted(np.ascontiguousarray(even).view(np.uint8).view(np.uint16)).reshape(256, 256)
        both: npt.NDArray[np.int64] = pairs.sum(0) + pairs.sum(1)
        both[flat[even.size :].view(np.uint8)] += 1
        return np.roll(both, 128) if flat.dtype.kind == "i" else both
    low, counts = int(np.iinfo(flat.dtype).min), np.zeros(1 << bits, np.int64)
    for begin in range(0, flat.size, COUNTED_AT_ONCE):
        part = flat[begin : begin + COUNTED_AT_ONCE]
        counts += np.bincount(part if not low else part.astype(np.intp) - low, minlength=counts.size)
    return counts


def resample(volume: Volume, reference: Volume, *, order: int = 1) -> Volume:
    """`volume` on the grid of `reference`, 0 where it does not reach; unchanged if it already lies there.

    `order` 1 interpolates linearly, 0 takes the nearest voxel (masks).
    """
    if volume.same_grid(reference):
        return volume
    to_source = np.linalg.inv(volume.affine) @ reference.affine
    finite = np.nan_to_num(volume.voxels, nan=0.0, posinf=0.0, neginf=0.0)
    voxels = ndimage.affine_transform(finite, to_source, output_shape=reference.voxels.shape, order=order)
    return Volume(voxels.astype(np.float32), reference.affine)


def foreground(voxels: Array, levels: Levels | None = None) -> Mask:
    """What is not air: finite voxels above 5% of the positive voxels' 99th percentile.

    Zero background, faint noise and small negative values fall out; so does everything in a volume without contrast.
    Where no voxel is positive, foreground is what lies above the lowest value.

    Args:
        voxels: [X, Y, Z].
        levels: of them, where they are known: the same answer sooner.
    """
    return np.isfinite(voxels) & (voxels > air(voxels, levels)) if levels is None else np.asarray(voxels > air(voxels, levels))


def air(voxels: Array, levels: Levels | None = None) -> Any:
    """What `foreground` lies above: 0 or more, or the lowest value where none is positive."""
    if levels is not None:
        above = levels.above(0)
        return BACKGROUND * above.percentile(99) if above.values.size else levels.values[0]
    finite = np.isfinite(voxels)
    positive = voxels[finite & (voxels > 0)]
    if positive.size:
        return BACKGROUND * np.percentile(positive, 99)
    return np.min(voxels, where=finite, initial=np.inf)


def scale_intensity(voxels: Array, low: float, high: float) -> Array:
    """Map the percentiles `low` and `high` of the volume's foreground to 0 and 1, and clip.

    Voxels that are not finite become 0, and so does a volume without contrast.
    """
    return apply_window(voxels, intensity_window(voxels, low, high))


def intensity_window(voxels: Array, low: float, high: float, levels: Levels | None = None) -> tuple[float, float] | None:
    """The percentiles `low` and `high` of the volume's foreground; None for a volume without contrast."""
    if levels is not None:
        inside = levels.above(air(voxels, levels))
        if not inside.values.size:
            return None
        bottom, top = (float(inside.percentile((q,))[0]) for q in (low, high))
    else:
        shown = voxels[foreground(voxels)]
        if not shown.size:
            return None
        bottom, top = (float(value) for value in np.percentile(shown, (low, high)))
    return (bottom, top) if top > bottom else None


def zscore_window(voxels: Array, low: float, high: float, levels: Levels | None = None) -> tuple[float, float] | None:
    """`BELOW` standard deviations below the mean of the volume's foreground, `ABOVE` above; None for a volume without contrast.

    Mean and deviation are of the foreground clipped to its percentiles `low` and `high`: a few bright voxels move neither. What
    brains have in common decides here, and not what the brightest vessel or the tumour has.
    """
    if levels is not None:
        inside = levels.above(air(voxels, levels))
        if not inside.values.size:
            return None
        edges = [float(inside.percentile((q,))[0]) for q in (low, high)]
        values, counts = inside.values.astype(np.float64), inside.counts
    else:
        values, counts = voxels[foreground(voxels)].astype(np.float64), None
        if not values.size:
            return None
        edges = [float(value) for value in np.percentile(values, (low, high))]
    values = values.clip(edges[0], edges[1])
    mean = float(np.average(values, weights=counts))
    deviation = float(np.average((values - mean) ** 2, weights=counts)) ** 0.5
    return (mean - BELOW * deviation, mean + ABOVE * deviation) if deviation > 0 else None


def quantity_window(voxels: Array, low: float, high: float, typical: float) -> tuple[float, float] | None:
    """`low` and `high` of a physical quantity in the file's own unit, which is some power of ten of it; None where nothing tells.

    Scanners store the apparent diffusion coefficient in mm^2/s, in 10^-3 or in 10^-6 mm^2/s.

    Args:
        voxels: [X, Y, Z], in the file's unit.
        low: of the window, in the quantity's standard unit.
        high: of the window, in the same unit.
        typical: what the median of the foreground is near to, in the same unit.
    """
    inside = voxels[foreground(voxels)]
    median = float(np.median(inside)) if inside.size else 0.0
    if median <= 0:
        return None
    unit = 10.0 ** round(np.log10(median / typical))
    return low * unit, high * unit


def apply_window(voxels: Array, window: tuple[float, float] | None) -> Array:
    """Map the window to 0 and 1, and clip; see `scale_intensity`."""
    if window is None:
        return np.zeros_like(voxels)
    bottom, top = window
    finite = np.where(np.isfinite(voxels), voxels, np.float32(bottom))
    scaled: Array = np.clip((finite - bottom) / (top - bottom), 0.0, 1.0)
    return scaled


def choose_slices(
    region: Mask, count: int, *, tumour: bool, thickness: float = SLICE_STEP, least: float = HALF
) -> npt.NDArray[np.int64]:
    """Pick `count` slices along the last axis, in their order: axial ones from below.

    With a tumour: the slices with most of it, `SLICE_STEP` mm apart as far as it reaches. With a brain only: spread evenly over
    the slices that show at least the part `least` of what the fullest shows. Fewer slices than asked for: some come twice.

    Args:
        region: [X, Y, Z].
        count: 1 or more.
        tumour: whether the region is a tumour's mask; else it is the brain's.
        thickness: mm between slices.
        least: 0 to 1, see above.

    Returns:
        [count] indices along Z.
    """
    area = region.sum(axis=(0, 1)).astype(np.float64)
    if tumour and area.any():
        chosen = _fullest(area, count, max(1, round(SLICE_STEP / thickness)))
    else:
        wide = np.flatnonzero(area >= area.max() * least)
        chosen = wide[((np.arange(count) + 0.5) / count * wide.size).astype(np.int64)]
    return np.sort(chosen)


def centre_of(region: Mask, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Centroid (x, y) of a region [X, Y, Z] in mm from the centre of voxel 0; of an empty one, the image's middle."""
    x, y = region.any(axis=(1, 2)), region.sum(axis=2)
    if not x.any():
        return (region.shape[0] - 1) / 2 * spacing[0], (region.shape[1] - 1) / 2 * spacing[1]
    total = y.sum()
    along_x, along_y = y.sum(axis=1) @ np.arange(y.shape[0]), y.sum(axis=0) @ np.arange(y.shape[1])
    return float(along_x / total) * spacing[0], float(along_y / total) * spacing[1]


def crop_slices(
    volume: Volume, indices: npt.NDArray[np.int64], centre: tuple[float, float], field_of_view: float, size: int
) -> Array:
    """Cut squares out of axial slices: linear interpolation in the plane, 0 outside.

    Pixels wider than voxels average over their width (a triangle filter), so that noise does not alias. Rows and columns each
    have their own spacing: across thick slices a pixel lies between two of them.

    Args:
        volume: [X, Y, Z], in RAS orientation.
        indices: [S], along Z.
        centre: (x, y) in mm from the centre of voxel 0.
        field_of_view: edge in mm.
        size: edge in pixels, H = W.

    Returns:
        [S, H, W], row 0 anterior, column 0 the patient's right.
    """
    offsets = (np.arange(size) - (size - 1) / 2) * (field_of_view / size)
    nx, ny, _ = volume.voxels.shape
    dx, dy, _ = volume.spacing
    columns = interpolation((centre[0] - offsets) / dx, nx, field_of_view / size / dx)
    rows = interpolation((centre[1] - offsets) / dy, ny, field_of_view / size / dy)
    slab = volume.voxels[:, :, indices].reshape(nx, -1)
    along_x = (columns @ slab).reshape(size, ny, -1)  # [W, Y, S]
    along_y = rows @ along_x.swapaxes(0, 1).reshape(ny, -1)
    return np.ascontiguousarray(along_y.reshape(size, size, -1).transpose(2, 0, 1))


def _fullest(area: npt.NDArray[np.float64], count: int, step: int) -> npt.NDArray[np.int64]:
    """The `count` fullest slices `step` apart; closer where the tumour is too low, repeated where the volume is."""
    best = int(area.argmax())
    middle = float(area @ np.arange(area.size) / area.sum())
    while step > 1 and np.count_nonzero(area[best % step :: step]) < count:
        step -= 1
    comb = np.arange(best % step, area.size, step)
    if comb.size < count:
        return comb[(np.arange(count) * comb.size) // count]
    # Beyond the tumour's ends the area is 0: then the nearest slices come next.
    order = np.lexsort((np.abs(comb - middle), -area[comb]))
    return comb[order[:count]]


def interpolation(positions: npt.NDArray[np.floating[Any]], length: int, width: float) -> Any:
    """Weights [len(positions), length] that read a line of voxels at fractional positions; voxels outside count as 0.

    Sparse, because two of a row are not 0, and because threads of a dense product get in each other's way.

    Args:
        positions: in voxels, 0 at the centre of the first.
        length: of the line, in voxels.
        width: of a pixel in voxels; above 1 the triangle grows to that half-width.
    """
    half = max(1.0, width)
    low, high = int(min(0, np.floor(positions.min() - half))), int(max(length, np.ceil(positions.max() + half) + 1))
    weights = np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(low, high)) / half)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return sparse.csr_array(weights[:, -low : length - low].astype(np.float32))
