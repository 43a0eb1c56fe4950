"""Whether the skull, and perhaps the face, is still in an image: a ring of scalp that the dark skull parts from the brain."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from common.data.gate.finding import Finding, Kind, Level
from common.data.review.thumbnail import Thumbnail, depth_inside
from common.data.volumes import Array, Mask, foreground

FACE = Kind("face", Level.NOTE, "the head is not skull-stripped: a face may be recognised")
KINDS = (FACE,)

# Measured: 75 of 76 patients of TCGA-LGG, who have their skulls, lie above (median 0.65); three stripped cases (0.07, 0.22, 0.27)
# and all phantoms (0.22 at most) below.
RING = 0.34
BRIGHT = (0.55, 0.7, 0.85)  # of the median deep inside: what may part scalp and brain is darker than one of these
SCALP = 7.0  # mm from the outline in which scalp lies
DEEP = 20.0  # mm from the outline where brain lies
SLICES = 6  # or a few more, that are looked at
LEAST = 2500.0  # mm^2 of a slice that is looked at
DEFACING = "mri_deface, pydeface, mideface or a brain extraction such as HD-BET or SynthStrip"


def find_faces(one: Thumbnail) -> Iterator[Finding]:
    """One note for a patient whose head is whole in any modality."""
    shares = {name: scalp_share(slices, one.pixel) for name, slices in one.slices.items()}
    ringed = [name for name, share in shares.items() if share >= RING]
    if ringed and one.shows_a_head:
        found = f"scalp around the brain in {', '.join(ringed)} ({max(shares.values()):.0%} of the outermost {SCALP:g} mm)"
        do = f"Remove it before the images leave the hospital's machines in any way: {DEFACING}. Training sends no image."
        yield FACE.finding(found, "images without skull, or defaced", do)


def scalp_share(slices: Array, pixel: tuple[float, float]) -> float:
    """How much of the head's outermost shell is bright and not joined to the brain: the upper quartile of slices [X, Y, S]."""
    inside = foreground(slices)
    some = range(0, slices.shape[2], max(1, slices.shape[2] // SLICES))
    shares = [_of_slice(slices[:, :, s], inside[:, :, s], pixel) for s in some]
    known = [share for share in shares if share is not None]
    return float(np.percentile(known, 75)) if known else 0.0


def _of_slice(image: Array, inside: Mask, pixel: tuple[float, float]) -> float | None:
    head = ndimage.binary_fill_holes(ndimage.binary_opening(inside))
    if head.sum() * pixel[0] * pixel[1] < LEAST:
        return None
    depth = depth_inside(head[:, :, None], pixel)[:, :, 0]
    core, shell = depth >= min(DEEP, 0.6 * float(depth.max())), head & (depth <= SCALP)
    if not core.any() or not shell.any():
        return None
    level = float(np.median(image[core]))
    return max(_parted(head & (image > share * level), core, shell) for share in BRIGHT)


def _parted(bright: Mask, core: Mask, shell: Mask) -> float:
    """The part of the shell that is bright, and in another piece than the brain."""
    pieces, count = ndimage.label(ndimage.binary_opening(bright))
    sizes = np.bincount(pieces[core], minlength=count + 1)
    sizes[0] = 0
    return float(((pieces > 0) & (pieces != sizes.argmax()) & shell).sum() / shell.sum()) if sizes.any() else 0.0
