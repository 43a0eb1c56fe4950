"""Which modalities are present: those that show anything in the slices that the model looks at, within its field of view."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.geometry import inside
from common.data.gate.images import Images
from common.data.planes import Plane, turned
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
    planes: Sequence[Plane],
    field_of_view: float,
) -> tuple[dict[str, Volume], list[Finding]]:
    """Those of the placed volumes (on the reference's grid) that show something there, and findings about the others.

    Args:
        images: as they were read.
        placed: by modality.
        planes: one for each axis of the run; a slice of any of them is enough.
        field_of_view: the largest, in mm: the smaller ones lie within.
    """
    kept, findings = {}, []
    places = [_place(images.reference, plane, field_of_view) for plane in planes]
    for name, volume in placed.items():
        in_each = [_reached(images.volumes[name], images.reference, place) for place in places]
        reached = np.concatenate(in_each)
        shown = reached & np.concatenate([_shows(volume, place) for place in places])
        if not reached.any():
            found = f"does not reach the {reached.size} slices that the model uses, and counts as absent"
            findings.append(images.finding(NOT_THERE, name, found, "an image that covers the tumour", AWAY))
        elif not shown.any():
            found = "is the same everywhere in the slices that the model uses, and counts as absent"
            findings.append(images.finding(NO_SIGNAL, name, found, "an image of the tumour", AWAY))
        else:
            kept[name] = volume
            if not shown.all():
                found = f"reaches {int(shown.sum())} of the {shown.size} slices that the model uses; the others are empty"
                findings.append(images.finding(IN_SOME, name, found, "an image that covers the tumour", AWAY))
    if not kept:
        findings.append(
            NOTHING_LEFT.finding("no modality shows anything in the slices", "at least one that does", "Correct the files.")
        )
    return kept, findings


class _Place(NamedTuple):
    """The slices of one axis, and the voxels of the field of view in the turned reference, along columns and rows."""

    axis: str
    chosen: npt.NDArray[np.int64]  # each once
    box: tuple[slice, slice]


def _place(reference: Volume, plane: Plane, field_of_view: float) -> _Place:
    there, half = turned(reference, plane.axis), field_of_view / 2
    edges = zip(plane.centre, there.spacing, there.voxels.shape, strict=False)
    ends = [slice(max(0, int((c - half) / d)), min(n, int((c + half) / d) + 2)) for c, d, n in edges]
    return _Place(plane.axis, np.unique(plane.indices), (ends[0], ends[1]))


def _reached(volume: Volume, reference: Volume, place: _Place) -> npt.NDArray[np.bool_]:
    """Which of the chosen slices hold a voxel of the volume, within the box."""
    if volume.same_grid(reference):
        return np.ones(place.chosen.size, bool)
    columns, rows = (np.linspace(part.start, part.stop - 1, PLACES) for part in place.box)
    points = np.array([[column, row, index] for index in place.chosen for column in columns for row in rows])
    found = inside(points, turned(reference, place.axis).affine, volume)
    return np.asarray(found.reshape(place.chosen.size, -1).any(axis=1), np.bool_)


def _shows(volume: Volume, place: _Place) -> npt.NDArray[np.bool_]:
    """Which of the chosen slices are not the same everywhere within the box: one that was filled up shows nothing."""
    there = turned(volume, place.axis).voxels[place.box[0], place.box[1]]
    seen = [there[:, :, index] for index in place.chosen]
    finite = seen if volume.levels else [one[np.isfinite(one)] for one in seen]
    return np.array([bool(one.size) and bool(one.min() < one.max()) for one in finite])
