"""Which modalities are present: those that show anything in the slices that the model looks at."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.images import Images
from common.data.volumes import Volume

NO_SIGNAL = Kind(
    "modality-no-signal", Level.WARNING, "a modality that is the same everywhere in the chosen slices counts as absent"
)
NOTHING_LEFT = Kind("no-modality-left", Level.ERROR, "no modality of the run shows anything in the chosen slices")
NOT_WANTED = Kind("no-modality-of-the-run", Level.ERROR, "files of modalities that the run does not use, and no others")
KINDS = (NO_SIGNAL, NOTHING_LEFT, NOT_WANTED)


def present_of(
    images: Images, placed: Mapping[str, Volume], indices: npt.NDArray[np.int64]
) -> tuple[dict[str, Volume], list[Finding]]:
    """Those of the placed volumes (on the reference's grid) that show something there, and findings about the others."""
    kept, findings = {}, []
    for name, volume in placed.items():
        if _shows(volume, indices):
            kept[name] = volume
        else:
            found = "is the same everywhere in the slices that the model uses, and counts as absent"
            findings.append(
                images.finding(NO_SIGNAL, name, found, "an image of the tumour", "Correct the file, or leave it out.")
            )
    if not kept:
        findings.append(
            NOTHING_LEFT.finding("no modality shows anything in the slices", "at least one that does", "Correct the files.")
        )
    return kept, findings


def _shows(volume: Volume, indices: npt.NDArray[np.int64]) -> bool:
    seen = volume.voxels[:, :, np.unique(indices)]
    finite = seen[np.isfinite(seen)]
    return bool(finite.size) and bool(finite.min() < finite.max())
