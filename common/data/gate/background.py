"""Which value means that there is nothing: images whose background is not zero are moved so that it is.

Everything behind (`common.data.volumes.foreground`) takes what is near to or below zero for air. That is right for magnitude
images, and wrong for images that were normalised: there the background is the constant that fills the border.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.data.gate.finding import Finding, Kind, Level
from common.data.volumes import BACKGROUND, Array, Levels, Mask, Volume, air

CONSTANT = 0.5  # of the border that one value fills: it is the background
SIGNED = 0.01  # of the voxels that are not near zero lie below it: negative values carry the image (real images: under 0.0005)
GAP = 0.1  # of the other values' range that the background lies below them: it is padding, and no darkest tissue
SAME = 1e-5  # of the range: values nearer than that are one
STRIDE = 3  # every so manieth voxel of the border, along both of its axes, is looked at

NOT_ZERO = Kind("background-not-zero", Level.NOTE, "a normalised or padded image, whose background is another value than 0")
BRIGHTEST = Kind("background-brightest", Level.WARNING, "an inverted image, or one that was padded with white")
KINDS = (NOT_ZERO, BRIGHTEST)


@dataclass(frozen=True)
class Border:
    """What the six outer faces hold: their commonest value, and the shares of it and of what is no finite number."""

    value: float
    share: float
    not_finite: float


def settle(volume: Volume) -> tuple[Volume, list[Finding]]:
    """The volume with its background at zero, as it is where it lies there already."""
    border, limit = border_of(volume.voxels), max(float(air(volume.voxels, volume.levels)), 0.0)
    constant = border.share >= CONSTANT
    signed = _is_signed(volume, limit, border if constant else None)
    if not signed and not (constant and abs(border.value) > limit):
        return volume, []
    finite = np.isfinite(volume.voxels)
    rest = finite & ~_near(volume.voxels, border.value, finite) if constant else finite
    if not rest.any():
        return volume, []
    moved = _moved(volume.voxels, rest, border, constant=constant, signed=signed)
    voxels = np.where(rest, moved, np.float32(0)).astype(np.float32)
    return replace(volume, voxels=voxels, levels=None), [_said(volume.voxels, rest, border, constant=constant)]


def border_of(voxels: Array) -> Border:
    """The commonest value of the border, where one is common."""
    s = slice(None, None, STRIDE)
    sides: list[Any] = [(0, s, s), (-1, s, s), (s, 0, s), (s, -1, s), (s, s, 0), (s, s, -1)]
    faces = np.concatenate([voxels[side].ravel() for side in sides])
    finite = np.sort(faces[np.isfinite(faces)])
    if not finite.size:
        return Border(0.0, 0.0, 1.0)
    value = finite[finite.size // 2]  # what fills more than half of the border is its median
    return Border(float(value), float((faces == value).mean()), 1 - finite.size / faces.size)


def _is_signed(volume: Volume, limit: float, border: Border | None) -> bool:
    """Whether negative values carry the image, and are no ringing of an interpolation, and no background."""
    low, high = _beyond(volume, limit)
    if low and border is not None and border.value < -limit:
        low -= int(np.count_nonzero(_near(volume.voxels, border.value, np.isfinite(volume.voxels))))
    return low > SIGNED * (low + high)


def _beyond(volume: Volume, limit: float) -> tuple[int, int]:
    """How many voxels lie below -limit, and above it."""
    levels: Levels | None = volume.levels
    if levels is not None:
        return int(levels.counts[levels.values < -limit].sum()), int(levels.counts[levels.values > limit].sum())
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(volume.voxels)
        low = int(np.count_nonzero(finite & (volume.voxels < -limit)))
        return low, int(np.count_nonzero(finite & (volume.voxels > limit))) if low else 0


def _near(voxels: Array, value: float, finite: Mask) -> Mask:
    span = float(np.ptp(voxels[finite]))
    return np.asarray(np.abs(voxels - np.float32(value)) <= SAME * span)


def _moved(voxels: Array, rest: Mask, border: Border, *, constant: bool, signed: bool) -> Array:
    """What the image without its background becomes."""
    values = voxels[rest]
    low, top = float(values.min()), _top(values)
    if not constant and not border.not_finite >= CONSTANT:
        return np.asarray(voxels - np.float32(low))  # air is not constant: the lowest value is what 0 was
    gap = low - border.value
    if constant and 0 <= gap <= GAP * (top - low):
        return np.asarray(voxels - np.float32(border.value))  # the background is where 0 was
    if not signed:
        return voxels  # padding around an image that has its own zero
    lift = 1.001 * BACKGROUND / (1 - BACKGROUND) * (top - low)  # just above what `foreground` takes for air
    return np.asarray(voxels - np.float32(low) + np.float32(lift))


def _top(values: Array) -> float:
    return float(np.percentile(values, 99))


def _said(voxels: Array, rest: Mask, border: Border, *, constant: bool) -> Finding:
    if constant and border.value >= _top(voxels[rest]):
        found = f"background is {border.value:.6g} ({border.share:.0%} of the border), and nearly all that is shown lies below it"
        do = "Look whether bright and dark are exchanged; convert it anew."
        return BRIGHTEST.finding(f"{found}: inverted, or padded with white", "a dark background", do)
    share = f"{float((voxels[rest] < 0).mean()):.0%} of the other values are negative"
    if constant:
        found = f"background is {border.value:.6g} ({border.share:.0%} of the border); {share}"
    elif border.not_finite >= CONSTANT:
        found = f"background is no number ({border.not_finite:.0%} of the border); {share}"
    else:
        found = f"{share}, and no constant fills the border: the lowest value is taken for air"
    return NOT_ZERO.finding(
        f"{found}; read as an image with background 0", "background 0", "Nothing, if the image was normalised."
    )
