"""Which voxels are tumour: the mask, brought to the images' grid, and rules about it."""

import numpy as np

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.geometry import grid
from common.data.gate.images import MASK, Images
from common.data.volumes import Mask, resample

EMPTY = Kind("mask-empty", Level.WARNING, "the mask marks nothing: slices go through the whole brain")
OUTSIDE = Kind("mask-outside", Level.WARNING, "what the mask marks lies outside the images: slices go through the whole brain")
RESAMPLED = Kind("mask-resampled", Level.WARNING, "the mask has another grid than the first modality, and was resampled")
KINDS = (EMPTY, OUTSIDE, RESAMPLED)


def tumour_of(images: Images) -> tuple[Mask | None, list[Finding]]:
    """The tumour on the reference's grid, None where nothing is marked; and what was found on the way."""
    mask, reference = images.mask, images.reference
    if mask is None:
        return None, []
    if not (mask.voxels > 0).any():
        return None, [images.finding(EMPTY, MASK, "is an empty mask", "a marked tumour", "Draw it, or take the file away.")]
    region = np.asarray(resample(mask, reference, order=0).voxels > 0)
    if not region.any():
        return None, [images.finding(OUTSIDE, MASK, "lies outside the first modality", "a mask on the tumour", "Draw it anew.")]
    if mask.same_grid(reference):
        return region, []
    found = f"is a mask on another grid ({grid(mask)})"
    return region, [images.finding(RESAMPLED, MASK, found, f"the first modality's ({grid(reference)})", "Look at its place.")]
