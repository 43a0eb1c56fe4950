"""What images hold: rules about their values."""

from collections.abc import Iterator

import numpy as np

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.images import Images

NOT_FINITE = Kind("not-finite", Level.WARNING, "voxels that are no finite numbers count as background")
CONSTANT = Kind("image-constant", Level.ERROR, "an image that is the same everywhere, or holds no number at all")
KINDS = (NOT_FINITE, CONSTANT)


def not_finite(images: Images) -> Iterator[Finding]:
    """NaN and infinity."""
    for name, volume in images.volumes.items():
        bad = int(volume.voxels.size - np.count_nonzero(np.isfinite(volume.voxels)))
        if bad:
            found = f"holds {bad} voxels that are not finite numbers; they count as background"
            yield images.finding(NOT_FINITE, name, found, "finite numbers", "Mend the step that wrote the file.")


def constant(images: Images) -> Iterator[Finding]:
    """Images without any contrast."""
    for name, volume in images.volumes.items():
        finite = volume.voxels[np.isfinite(volume.voxels)]
        if not finite.size or finite.min() == finite.max():
            value = f"{finite[0]:.6g}" if finite.size else "not a number"
            yield images.finding(CONSTANT, name, f"is {value} everywhere", "an image", "Correct the file, or leave it out.")
