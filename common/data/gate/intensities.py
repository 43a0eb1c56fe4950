"""What images hold: rules about their values."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.data.gate.background import border_of
from common.data.gate.files import LARGEST
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.images import Images
from common.data.volumes import Volume, foreground

CLIPPED_SHARE = 0.02  # of the head that has the highest value: its bright end was cut off (real images: under 0.0005)
FEWEST = 10  # values that an image has at least
# Hounsfield units, with room for noise: air, brain with fluid and blood, and what only bone reaches; and the shares of each in a
# head (of the whole image, and of what is no air). Between air and brain lie fat and skin; a padded MR has nothing there.
AIR_HU, SOFT_HU, BONE_HU = (-1100.0, -850.0), (-40.0, 120.0), 400.0
SOME_AIR, MOST_SOFT, SOME_BONE = 0.05, 0.35, 0.005
# So many neighbours that differ by so much of what the type holds: numbers ran over. Of 220 real images of 8 bits, stretched to
# the last value, none has one such pair; a signed type is not used from end to end by any image.
JUMPS, SIGNED, UNSIGNED = 10, 1 / 2, 7 / 8
TWELVE_BITS = (4032, 4095)  # between which the highest value lies of an image that was counted in 12 bits

NOT_FINITE = Kind("not-finite", Level.WARNING, "voxels that are no finite numbers count as background")
CONSTANT = Kind("image-constant", Level.ERROR, "an image that is the same everywhere, or holds no number at all")
WRAPPED = Kind(
    "intensity-wrapped", Level.ERROR, "bright values ran over the end of the integer type, and became negative or dark"
)
CLIPPED = Kind("intensity-clipped", Level.WARNING, "much of the head has the highest value: its bright end was cut off")
FEW = Kind("image-few-values", Level.WARNING, "an image of a handful of values: a label map under the name of a modality")
TOMOGRAPHY = Kind("image-is-ct", Level.ERROR, "values on Hounsfield's scale: a CT under the name of a modality of MR")
KINDS = (NOT_FINITE, CONSTANT, WRAPPED, CLIPPED, FEW, TOMOGRAPHY)


def not_finite(images: Images) -> Iterator[Finding]:
    """NaN and infinity."""
    for name, volume in images.volumes.items():
        bad = 0 if volume.levels else int(volume.voxels.size - np.count_nonzero(np.isfinite(volume.voxels)))
        if bad:
            share = f"{bad / volume.voxels.size:.1%}"
            found = f"holds {bad} voxels that are not finite numbers, or beyond {LARGEST:g} ({share}); they count as background"
            yield images.finding(NOT_FINITE, name, found, "finite numbers", "Mend the step that wrote the file.")


def constant(images: Images) -> Iterator[Finding]:
    """Images without any contrast."""
    for name, volume in images.volumes.items():
        low, high = _range(volume)
        if not low < high:
            value = f"{low:.6g}" if np.isfinite(low) else "not a number"
            yield images.finding(CONSTANT, name, f"is {value} everywhere", "an image", "Correct the file, or leave it out.")


def few_values(images: Images) -> Iterator[Finding]:
    """Label maps that are called images."""
    for name, volume in images.volumes.items():
        low, high = _range(volume)
        values = volume.levels.values if volume.levels else np.unique(volume.voxels[::2, ::2, ::2])
        if low < high and values.size < FEWEST:
            listed = ", ".join(f"{value:.4g}" for value in values)
            yield images.finding(
                FEW, name, f"holds {values.size} values only ({listed})", "an image", "Look whether it is a mask."
            )


def clipped(images: Images) -> Iterator[Finding]:
    """Images whose bright end was cut off."""
    for name, volume in images.volumes.items():
        low, high = _range(volume)
        if not low < high or (volume.levels and volume.levels.values.size < FEWEST):
            continue
        at_top = int(volume.levels.counts[-1]) if volume.levels else int(np.count_nonzero(volume.voxels == high))
        if at_top <= CLIPPED_SHARE * volume.voxels.size / 8:  # of a head that fills an eighth of the volume, at least
            continue
        share = at_top / max(1, int(np.count_nonzero(foreground(volume.voxels, volume.levels))))
        if share > CLIPPED_SHARE and border_of(volume.voxels).value < high:
            found = f"{share:.1%} of the head have the highest value, {high:.6g}: brighter ones were cut off"
            yield images.finding(CLIPPED, name, found, "a bright end that is not cut off", "Convert anew without clipping.")


def wrapped(images: Images) -> Iterator[Finding]:
    """Integers that ran over: a very bright voxel stands beside a very negative, or a very dark one."""
    for name, volume in images.volumes.items():
        (low, high), far = _range(volume), _farthest(volume)
        jumps = _jumps(volume, far) if far is not None and high - low > far else 0
        if volume.header and jumps >= JUMPS:
            found = f"{jumps} neighbours differ by more than {far:.6g} ({low:.6g} to {high:.6g}, stored as {volume.header.dtype})"
            yield images.finding(WRAPPED, name, found, "values that fit the type", "Convert anew, as unsigned 16 bit or floats.")


def _farthest(volume: Volume) -> np.float32 | None:
    """What neighbours of an image do not differ by, where its numbers did not run over; None: they could not."""
    header, (low, high) = volume.header, _range(volume)
    if header is None or np.dtype(header.dtype).kind not in "iu" or not low < high:
        return None
    held, step = np.iinfo(header.dtype), abs(header.slope)
    first, last = sorted((value - header.inter) / header.slope for value in (low, high))
    if first >= 0 and TWELVE_BITS[0] <= last <= TWELVE_BITS[1]:
        return np.float32(UNSIGNED * 2**12 * step)
    if held.bits > 16 or (held.min < 0 and not first < 0 < last):
        return None
    return np.float32((SIGNED if held.min < 0 else UNSIGNED) * 2.0**held.bits * step)


def tomography(images: Images) -> Iterator[Finding]:
    """CT: air lies at -1000, soft tissue in a narrow band above 0, and bone far above (Hounsfield's scale)."""
    for name, volume in images.volumes.items():
        low, high = _range(volume)
        if not (low <= AIR_HU[1] and high >= BONE_HU):
            continue
        values, counts = _counts(volume)
        air, soft, between, bone = (
            int(counts[(values > start) & (values <= end)].sum())
            for start, end in (AIR_HU, SOFT_HU, (AIR_HU[1], SOFT_HU[0]), (BONE_HU, np.inf))
        )
        tissue = soft + between + int(counts[values > SOFT_HU[1]].sum())
        if (
            soft > MOST_SOFT * tissue
            and air > SOME_AIR * counts.sum()
            and bone > SOME_BONE * tissue
            and SOME_BONE * tissue < between < soft
        ):
            found = (
                f"is a CT: {soft / tissue:.0%} of the tissue lies between {SOFT_HU[0]:g} and {SOFT_HU[1]:g}, and the air at -1000"
            )
            do = "Take the MR series; a CT of the patient goes into another folder."
            yield images.finding(TOMOGRAPHY, name, found, f"MR ({name})", do)


def _counts(volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Values and how many voxels have each; of a volume whose values are not counted, those of one voxel in eight."""
    if volume.levels is not None:
        return volume.levels.values, volume.levels.counts
    some = volume.voxels[::2, ::2, ::2]
    return some[np.isfinite(some)], np.ones(int(np.isfinite(some).sum()), np.int64)


def _jumps(volume: Volume, far: np.float32) -> int:
    """Neighbours along x or y that differ by more than `far`; the background's own value does not count."""
    shown = volume.voxels != np.float32(border_of(volume.voxels).value)
    along_x = np.abs(np.diff(volume.voxels, axis=0)) > far
    along_y = np.abs(np.diff(volume.voxels, axis=1)) > far
    return int(np.count_nonzero(along_x & shown[1:] & shown[:-1]) + np.count_nonzero(along_y & shown[:, 1:] & shown[:, :-1]))


def _range(volume: Volume) -> tuple[float, float]:
    """Lowest and highest finite value; NaN where there is none."""
    if volume.levels is not None:
        return float(volume.levels.values[0]), float(volume.levels.values[-1])
    finite = np.isfinite(volume.voxels)
    if not finite.any():
        return float("nan"), float("nan")
    return float(np.min(volume.voxels, where=finite, initial=np.inf)), float(np.max(volume.voxels, where=finite, initial=-np.inf))
