"""Which voxels are tumour: a mask's values, its place on the images' grid, and rules about both.

Real masks, for measure: of 79 patients none marks more than 17% of the head, and 84% or more of each lie on what the first
modality shows as tissue.
"""

from dataclasses import replace

import nibabel as nib
import numpy as np
import numpy.typing as npt

from common.data.gate.background import border_of
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.geometry import (
    ASK,
    BY_VOXELS,
    CLOSE,
    SIZES,
    apart,
    distance,
    grid,
    lengths,
    misread,
    on_voxels,
    sizes,
    stored_shape,
)
from common.data.gate.images import MASK, Images
from common.data.volumes import Levels, Mask, Volume, foreground, resample

LABELS = (1.0, 2.0, 3.0, 4.0)  # of BraTS: core, oedema, enhancing (3 since 2023, 4 before)
MOST_LABELS = 20  # of one mask; more are a parcellation, or an image
NEAR = 1e-3  # of the highest value: nearer to a label than that is the label
PLATEAU = 0.05  # of the marked voxels that have one value: a label, and no value between
FEW = 8  # voxels that a mask marks, below which it is questioned (of 79 real masks the smallest marks 1,870)
BETWEEN = 0.05  # of all voxels: so many lie between nothing and tumour in no mask
LARGE, BRAIN = 0.4, 0.7  # of the head: questioned, and taken for a brain mask
CLEARER = 1.2  # so much more contrast has a mirrored mask where it belongs (of 91 right masks none has more on the other side)
INSIDE, MOSTLY = 0.5, 0.95  # of the mask that lies within the first modality: less is an error, or said
TISSUE, AIR = 0.5, 0.2  # of the mask that lies on tissue of any modality: less is questioned, or an error

EMPTY = Kind("mask-empty", Level.WARNING, "the mask marks nothing: slices go through the whole brain")
FRACTIONAL = Kind(
    "mask-fractional", Level.NOTE, "a mask of probabilities or interpolated values; half of its label is the threshold"
)
NOT_A_MASK = Kind("mask-not-a-mask", Level.ERROR, "an image, a parcellation or nonsense under the name of a mask")
UNKNOWN = Kind(
    "mask-labels-unknown", Level.WARNING, "labels other than BraTS's 1 to 4 beside each other; all above 0 are taken for tumour"
)
SPECK = Kind("mask-small", Level.WARNING, "the mask marks a few voxels: a click, and no tumour")
OUTSIDE = Kind("mask-outside", Level.ERROR, "most of what the mask marks lies outside the images; a warning where a part does")
NO_AFFINE = Kind("mask-no-affine", Level.ERROR, "a mask that was saved without the affine of its image")
DISPLACED = Kind("mask-displaced", Level.ERROR, "a mask with the image's voxels, whose header puts it elsewhere")
AXES = Kind("mask-other-axes", Level.WARNING, "a mask that was stored with other axes than its image: converted, or mirrored")
RESAMPLED = Kind("mask-resampled", Level.NOTE, "the mask has another grid than the first modality, and was resampled")
IN_AIR = Kind(
    "mask-in-air", Level.WARNING, "much of the mask lies where no modality shows tissue; an error where nearly all does"
)
TOO_LARGE = Kind("mask-large", Level.WARNING, "the mask marks much of the head")
BRAIN_MASK = Kind("mask-is-brain", Level.ERROR, "a brain mask, or an inverted one, in the place of the tumour's")
KINDS = (
    EMPTY,
    SPECK,
    FRACTIONAL,
    NOT_A_MASK,
    UNKNOWN,
    OUTSIDE,
    NO_AFFINE,
    DISPLACED,
    AXES,
    RESAMPLED,
    IN_AIR,
    TOO_LARGE,
    BRAIN_MASK,
)
DRAW = "Correct the mask, or take the file away: slices then go through the whole brain."


def tumour_of(images: Images) -> tuple[Mask | None, list[Finding]]:
    """The tumour on the reference's grid, None where nothing is marked; and what was found on the way."""
    if images.mask is None:
        return None, []
    marked, findings = _marked(images, images.mask)
    if marked is None:
        return None, findings
    placed, found = _placed(images, marked)
    findings += found
    if placed is None:
        return None, findings
    region, found = _region(images, placed)
    findings += found
    if region is not None:
        size = _size(images, region)
        findings += size if any(one.level is Level.ERROR for one in size) else [*size, *_tissue(images, region)]
    return region, findings


def _marked(images: Images, mask: Volume) -> tuple[Volume | None, list[Finding]]:
    """The mask as ones and zeros on its own grid; None where it marks nothing, or is none."""
    levels = mask.levels or _levels(mask.voxels)
    top = float(levels.values[-1]) if levels.values.size else 0.0
    if not top > 0:
        found = f"is an empty mask (values {', '.join(f'{v:.4g}' for v in levels.values[:5])})"
        return None, [images.finding(EMPTY, MASK, found, "a marked tumour", "Draw it, or take the file away.")]
    labels = _labels(levels, top)
    if labels is None:
        return _thresholded(images, mask, levels, top)
    if labels.size > MOST_LABELS:
        found = f"holds {labels.size} labels, up to {top:.6g}"
        return None, [images.finding(NOT_A_MASK, MASK, found, "a tumour mask", "Take the tumour's labels out of it.")]
    findings = []
    if labels.size > 1 and not all(min(abs(label - known) for known in LABELS) < 0.01 for label in labels):
        found = f"holds the labels {', '.join(f'{label:.4g}' for label in labels)}; all are taken for tumour"
        findings.append(images.finding(UNKNOWN, MASK, found, "1 to 4, as BraTS has them", "Set to 0 what is no tumour."))
    return _ones(mask, float(labels[0]) / 2), findings


def _levels(voxels: npt.NDArray[np.float32]) -> Levels:
    values, counts = np.unique(voxels[np.isfinite(voxels)], return_counts=True)
    return Levels(values, counts.astype(np.int64))


def _labels(levels: Levels, top: float) -> npt.NDArray[np.float64] | None:
    """The labels above 0, rising; None where values lie between labels.

    A label is a cluster of values: slope and intercept of a file return labels, and 0, with a small error.
    """
    positive = levels.values[levels.values > NEAR * top].astype(np.float64)
    starts = np.concatenate([[True], np.diff(positive) > NEAR * top])
    labels: npt.NDArray[np.float64] = positive[starts]
    if labels.size == 1 or _are_whole(labels):
        return labels
    if labels.size > MOST_LABELS or abs(top - 1) < NEAR:  # with 1 at the top, what lies below it is a part of 1
        return None
    times = labels / labels[0]
    return labels if _are_whole(times) and times[-1] < LABELS[-1] + 0.5 else None  # labels times a factor


def _are_whole(values: npt.NDArray[np.float64]) -> bool:
    return bool((np.abs(values - np.round(values)) < 0.01).all())


def _thresholded(images: Images, mask: Volume, levels: Levels, top: float) -> tuple[Volume | None, list[Finding]]:
    """A mask with values between labels: half of its lowest label, or of its highest value, is the threshold."""
    label = _lowest_label(levels.above(NEAR * top), top, border_of(mask.voxels).value)
    between = int(levels.counts[(levels.values > 0.1 * label) & (levels.values < 0.9 * label)].sum())
    total = int(levels.counts.sum())
    if between > BETWEEN * total:
        found = f"holds {levels.values.size} values; {between / total:.0%} of the voxels lie between nothing and tumour"
        return None, [images.finding(NOT_A_MASK, MASK, found, "a tumour mask", DRAW)]
    values = f"{levels.values.size} values, {float(levels.values[0]):.4g} to {top:.4g}"
    found = f"holds fractions ({values}); tumour is what lies above {label / 2:.4g}"
    do = "Nothing, if that is right; else resample masks by nearest neighbour."
    return _ones(mask, label / 2), [images.finding(FRACTIONAL, MASK, found, "labels", do)]


def _lowest_label(above: Levels, top: float, background: float) -> float:
    """A whole number that many of the marked voxels have; else the middle of the bright ones."""
    share = above.counts / above.counts.sum()
    plateaus = above.values[(share >= PLATEAU) & (np.abs(above.values - background) > NEAR * top)]
    whole = plateaus[np.abs(plateaus - np.round(plateaus)) < 0.01]
    bright = above.above(top / 2)
    return float(whole[0]) if whole.size else float(bright.percentile(50))


def _ones(mask: Volume, threshold: float) -> Volume:
    with np.errstate(invalid="ignore"):
        return replace(mask, voxels=(mask.voxels > np.float32(threshold)).astype(np.float32), levels=None)


def _placed(images: Images, mask: Volume) -> tuple[Volume | None, list[Finding]]:
    """The mask with the affine that it is used with; None where it lies elsewhere in the world than the images."""
    fits = next((volume for volume in images.volumes.values() if mask.same_grid(volume)), None)
    if fits is not None:
        return _turned(images, mask, fits)
    twin = next((v for v in images.volumes.values() if v.header and mask.header and stored_shape(v) == stored_shape(mask)), None)
    if twin is None or twin.header is None or mask.header is None:
        return _on_its_own(images, mask)
    shape = stored_shape(mask)
    if distance(mask.header.affine, twin.header.affine, shape) <= CLOSE:
        return mask, []
    kind, found = _why_elsewhere(mask, twin)
    mine, its = lengths(mask.header.affine), lengths(twin.header.affine)
    if (np.abs(mine - its) > SIZES * its).any():
        found += f"; its voxels are {sizes(mine)} mm, the image's {sizes(its)} mm"
        return None, [images.finding(kind, MASK, found, "the affine of the image", "Save it with the image's own affine.")]
    return _by_voxels(images, mask, twin, found) if images.by_voxels else (None, [_displaced(images, kind, found)])


def _why_elsewhere(mask: Volume, twin: Volume) -> tuple[Kind, str]:
    """What kind of finding a mask is that has an image's voxels, and lies elsewhere; in words."""
    assert mask.header is not None
    assert twin.header is not None
    why = misread(mask, twin)
    if why:
        return DISPLACED, f"{why}: the mask fits the voxels, not the world"
    shape = stored_shape(mask)
    away = apart(mask.header.affine, twin.header.affine, shape)
    found = f"has the image's {' x '.join(map(str, shape))} voxels, but lies {away} away"
    if _is_bare(mask):
        return NO_AFFINE, f"{found}: its affine is the one of an array that was saved without its image's"
    return DISPLACED, found


def _by_voxels(images: Images, mask: Volume, twin: Volume, found: str) -> tuple[Volume, list[Finding]]:
    finding = images.finding(BY_VOXELS, MASK, f"{found}; used voxel by voxel", "one place", "Nothing, if that is right.")
    return on_voxels(mask, twin), [finding]


def _displaced(images: Images, kind: Kind, found: str) -> Finding:
    return images.finding(kind, MASK, found, "the affine of the image", ASK)


def _turned(images: Images, mask: Volume, image: Volume) -> tuple[Volume | None, list[Finding]]:
    """A mask on its image's grid, that was stored with other axes: converted rightly, or mirrored by another file's header."""
    if mask.header is None or image.header is None or stored_shape(mask) != stored_shape(image):
        return mask, []
    if distance(mask.header.affine, image.header.affine, stored_shape(mask)) <= CLOSE:
        return mask, []
    other = on_voxels(mask, image)
    if np.array_equal(other.voxels, mask.voxels):
        return mask, []
    axes = ["".join(nib.aff2axcodes(volume.header.affine)) for volume in (mask, image) if volume.header]
    found = f"is stored with the axes {axes[0]}, its image with {axes[1]}"
    if images.by_voxels:
        return _by_voxels(images, mask, image, found)
    here, there = _contrast(images, mask), _contrast(images, other)
    if there > CLEARER * here:
        found = f"{found}, and is mirrored: voxel by voxel the images show it better (contrast {there:.3g}, here {here:.3g})"
        return None, [_displaced(images, DISPLACED, found)]
    return mask, [images.finding(AXES, MASK, found, "the image's axes", "Look whether it lies on the tumour, or is mirrored.")]


def _contrast(images: Images, mask: Volume) -> float:
    """How far what the mask marks differs from the other tissue, in deviations of that, summed over modalities."""
    found = 0.0
    for volume in images.volumes.values():
        placed = resample(volume, mask)
        tissue, region = foreground(placed.voxels), mask.voxels > 0
        inside, beside = placed.voxels[tissue & region], placed.voxels[tissue & ~region]
        if inside.size and beside.size:
            found += float(abs(inside.mean() - beside.mean()) / (beside.std() + 1e-9))
    return found


def _on_its_own(images: Images, mask: Volume) -> tuple[Volume | None, list[Finding]]:
    """A mask of another shape than any image."""
    found = f"is a mask on another grid ({grid(mask)})"
    expected = f"the first modality's ({grid(images.reference)})"
    if _is_bare(mask) and not _is_bare(images.reference):
        return None, [
            images.finding(NO_AFFINE, MASK, f"{found}, saved without an affine", expected, "Save it with the image's affine.")
        ]
    return mask, [images.finding(RESAMPLED, MASK, f"{found}; it is resampled", expected, "Look at its place.")]


def _is_bare(volume: Volume) -> bool:
    """Whether the header places nothing: no codes, or nothing but voxel sizes."""
    header = volume.header
    if header is None:
        return False
    plain = np.allclose(header.affine, np.diag(np.diag(header.affine)), atol=1e-6)
    return plain or not (header.qform_code or header.sform_code)


def _region(images: Images, mask: Volume) -> tuple[Mask | None, list[Finding]]:
    """The mask on the reference's grid, and how much of it that grid misses."""
    reference = images.reference
    region: Mask = resample(mask, reference, order=0).voxels > 0
    if mask.same_grid(reference):
        return region, []
    volume = [
        float(np.prod(v.spacing)) * np.count_nonzero(v.voxels > 0)
        for v in (mask, Volume(region.astype(np.float32), reference.affine))
    ]
    share = volume[1] / volume[0]
    if share >= MOSTLY:
        return region, []
    found = f"{share:.0%} of what it marks lie within {images.files[images.first]}"
    level = Level.ERROR if share < INSIDE or not region.any() else Level.WARNING
    finding = images.finding(OUTSIDE, MASK, found, "a mask within the images", DRAW, level=level)
    return region if region.any() else None, [finding]


def _size(images: Images, region: Mask) -> list[Finding]:
    """Masks that mark much of the head, or next to nothing."""
    if (marked := int(np.count_nonzero(region))) < FEW:
        found = f"marks {marked} voxel{'s' * (marked != 1)} of {images.files[images.first]}, through which the slices go"
        return [images.finding(SPECK, MASK, found, "a marked tumour", "Draw it, or take the file away.")]
    head = foreground(images.reference.voxels, images.reference.levels)
    share = np.count_nonzero(region) / max(1, int(np.count_nonzero(head)))
    if share <= LARGE:
        return []
    both = 2 * int(np.count_nonzero(region & head)) / (int(np.count_nonzero(region)) + int(np.count_nonzero(head)))
    found = f"marks as much as {share:.0%} of the head in {images.files[images.first]} (overlap, Dice: {both:.2f})"
    if share > BRAIN:
        return [images.finding(BRAIN_MASK, MASK, found, f"a tumour, under {LARGE:.0%} of it", DRAW)]
    return [
        images.finding(TOO_LARGE, MASK, found, f"a tumour, under {LARGE:.0%} of it", "Look whether it marks the tumour alone.")
    ]


def _tissue(images: Images, region: Mask) -> list[Finding]:
    """Masks that lie in air: tumour is tissue in one modality at least."""
    total, shown = int(np.count_nonzero(region)), np.zeros(region.shape, bool)
    for volume in images.volumes.values():
        placed = resample(volume, images.reference)
        shown |= foreground(placed.voxels, placed.levels)
        share = int(np.count_nonzero(shown & region)) / total
        if share >= TISSUE:
            return []
    found = f"{share:.0%} of what it marks are tissue in any modality; the rest is air"
    return [images.finding(IN_AIR, MASK, found, "a mask on the tumour", DRAW, level=Level.ERROR if share < AIR else None)]
