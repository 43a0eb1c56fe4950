"""Which modalities are present: those that show anything in the slices that the model looks at, within its field of view."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.geometry import inside
from common.data.gate.images import Images
from common.data.volumes import Volume

PLACES = 12  # along each edge of the field of view, at which a modality is looked for

NOT_THERE = Kind("modality-not-in-slices", Level.WARNING, "a modality that does not reach the chosen slices counts as absent")
IN_SOME = Kind("modality-in-some-slices", Level.NOTE, "a modality that reaches some of the chosen slices; the others are empty")
NO_SIGNAL = Kind(
    "modality-no-signal", Level.WARNING, "a modality that is the same everywhere in the chosen slices counts as absent"
)
NOTHING_LEFT = Kind("no-modality-left", Level.ERROR, "no modality of the run shows anything in the chosen slices")
NOT_WANTED = Kind("no-modality-of-the-run", Level.ERROR, "files of modalities that the run does not use, and no others")
KINDS = (NOT_THERE, IN_SOME, NO_SIGNAL, NOTHING_LEFT, NOT_WANTED)
AWAY = "Leave it out, or take a series that covers the tumour."


def present_of(
    images: Images,
    placed: Mapping[str, Volume],
    indices: npt.NDArray[np.int64],
    centre: tuple[float, float],
    field_of_view: float,
) -> tuple[dict[str, Volume], list[Finding]]:
    """Those of the placed volumes (on the reference's grid) that show something there, and findings about the others."""
    kept, findings, chosen = {}, [], np.unique(indices)
    box = _box(images.reference, centre, field_of_view)
    for name, volume in placed.items():
        reached = _reached(images.volumes[name], images.reference, chosen, box)
        shown = reached & _shows(volume, chosen, box)
        if not reached.any():
            found = f"does not reach the {chosen.size} slices that the model uses, and counts as absent"
            findings.append(images.finding(NOT_THERE, name, found, "an image that covers the tumour", AWAY))
        elif not shown.any():
            found = "is the same everywhere in the slices that the model uses, and counts as absent"
            findings.append(images.finding(NO_SIGNAL, name, found, "an image of the tumour", AWAY))
        else:
            kept[name] = volume
            if not shown.all():
                found = f"reaches {int(shown.sum())} of the {chosen.size} slices that the model uses; the others are empty"
                findings.append(images.finding(IN_SOME, name, found, "an image that covers the tumour", AWAY))
    if not kept:
        findings.append(
            NOTHING_LEFT.finding("no modality shows anything in the slices", "at least one that does", "Correct the files.")
        )
    return kept, findings


Box = tuple[slice, slice]


def _box(reference: Volume, centre: tuple[float, float], field_of_view: float) -> Box:
    """The voxels of the field of view, along X and Y."""
    (x, y), (dx, dy, _), (nx, ny, _) = centre, reference.spacing, reference.voxels.shape
    half = field_of_view / 2
    ends = [(max(0, int((c - half) / d)), min(n, int((c + half) / d) + 2)) for c, d, n in ((x, dx, nx), (y, dy, ny))]
    return slice(*ends[0]), slice(*ends[1])


def _reached(volume: Volume, reference: Volume, chosen: npt.NDArray[np.int64], box: Box) -> npt.NDArray[np.bool_]:
    """Which of the chosen slices hold a voxel of the volume, within the box."""
    if volume.same_grid(reference):
        return np.ones(chosen.size, bool)
    xs, ys = (np.linspace(part.start, part.stop - 1, PLACES) for part in box)
    points = np.array([[x, y, z] for z in chosen for x in xs for y in ys])
    return np.asarray(inside(points, reference.affine, volume).reshape(chosen.size, -1).any(axis=1), np.bool_)


def _shows(volume: Volume, slices: npt.NDArray[np.int64], box: Box) -> npt.NDArray[np.bool_]:
    """Which of the slices are not the same everywhere within the box: one that was filled up shows nothing."""
    seen = [volume.voxels[box[0], box[1], z] for z in slices]
    finite = seen if volume.levels else [one[np.isfinite(one)] for one in seen]
    return np.array([bool(one.size) and bool(one.min() < one.max()) for one in finite])
