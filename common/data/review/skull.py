"""Whether the skull, and perhaps the face, is still in an image: a ring of scalp that the dark skull parts from the brain."""

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.data.gate.finding import Finding, Kind, Level
from common.data.review.planes import opened, pieces, without_holes
from common.data.review.thumbnail import Thumbnail, depth_inside, shown
from common.data.volumes import Array, Mask

Kept = TypeVar("Kept", np.float32, np.bool_)

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
    step = max(1, slices.shape[2] // SLICES)
    images, inside = _first(slices[:, :, ::step]), _first(shown(slices)[:, :, ::step])
    heads = without_holes(opened(inside))
    large = heads.sum(axis=(1, 2)) * pixel[0] * pixel[1] >= LEAST
    shares = _of_heads(images[large], heads[large], pixel) if large.any() else []
    return float(np.percentile(shares, 75)) if shares else 0.0


def _first(slices: NDArray[Kept]) -> NDArray[Kept]:
    """[X, Y, S] to [S, X, Y], each slice in one piece."""
    return np.ascontiguousarray(np.moveaxis(slices, 2, 0))


def _of_heads(images: Array, heads: Mask, pixel: tuple[float, float]) -> list[float]:
    """The share of each slice [S, X, Y] that has a core and a shell."""
    depth = _first(depth_inside(np.moveaxis(heads, 0, 2), pixel))
    deepest = depth.max(axis=(1, 2), keepdims=True)
    cores, shells = depth >= np.minimum(DEEP, 0.6 * deepest), heads & (depth <= SCALP)
    places = [(np.flatnonzero(core), np.flatnonzero(shell)) for core, shell in zip(cores, shells, strict=True)]
    known = [np.median(image.take(core)) if core.size else 0.0 for image, (core, _) in zip(images, places, strict=True)]
    level = np.array(known, np.float32)[:, None, None]
    bright, _ = pieces(opened(np.concatenate([heads & (images > share * level) for share in BRIGHT])))
    return [
        max(_parted(piece, core, shell) for piece in bright[number :: len(images)])
        for number, (core, shell) in enumerate(places)
        if core.size and shell.size
    ]


def _parted(piece: NDArray[np.int32], core: NDArray[np.intp], shell: NDArray[np.intp]) -> float:
    """The part of the shell that is bright, and in another piece than the brain.

    Args:
        piece: [X, Y], numbers of bright pieces, 0 elsewhere.
        core: its pixels' places in the flat slice.
        shell: its pixels' places.
    """
    sizes = np.bincount(piece.take(core))
    sizes[0] = 0
    outer = piece.take(shell)
    return float(np.count_nonzero((outer > 0) & (outer != sizes.argmax())) / shell.size) if sizes.any() else 0.0
