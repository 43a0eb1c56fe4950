"""The axes that slices can lie along, and how a patient's images are stacked: axis by axis, field of view by field of view.

A volume is turned so that slices of an axis lie along its last one (`order`); rows and columns of an image then run against the
other two. That is how radiologists look at each plane. S images of a patient.

`VOLUME` stands for a whole volume: its S = `data.slices` images are the axial layers of a cube of `data.size` voxels along each
edge, without a gap between them (`common.data.planes.cut_cube`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Axis:
    """One plane.

    Attributes:
        order: of a volume's axes X, Y, Z (towards right, front and top): columns, rows, slices.
        first: where the slices are counted from.
        shown: how an image lies.
        mirrors: whether left and right lie along the columns: a mirrored patient has mirrored images in such a plane. In the
            others the same images come from the other side.
    """

    order: tuple[int, int, int]
    first: str
    shown: str
    mirrors: bool = True


AXES = {
    "axial": Axis((0, 1, 2), "below", "the patient's right is on the left, anterior is up"),
    "coronal": Axis((0, 2, 1), "behind", "the patient's right is on the left, superior is up"),
    "sagittal": Axis((1, 2, 0), "the patient's left", "anterior is on the left, superior is up", mirrors=False),
    "volume": Axis((0, 1, 2), "below", "the patient's right is on the left, anterior is up"),
}
AXIAL = ("axial",)
VOLUME = "volume"
MOST_FIELDS = 4  # of view


class Stacked(Protocol):
    """What decides which images a patient has: `common.config.sections.DataConfig`, or the bundle's own."""

    @property
    def axes(self) -> Sequence[str]:
        """Of `AXES`."""

    @property
    def slices(self) -> int:
        """Of each axis."""

    @property
    def field_of_view(self) -> float | Sequence[float]:
        """Edge in mm; several: each slice is cut at each of them."""


class Square(NamedTuple):
    """One image of every patient, by its place in the stack."""

    axis: str
    field_of_view: float  # mm
    number: int  # among the chosen slices of its axis, from 0


def fields_of_view(data: Stacked) -> tuple[float, ...]:
    """All of them, in mm."""
    fields = data.field_of_view
    return (fields,) if isinstance(fields, int | float) else tuple(fields)


def squares(data: Stacked) -> tuple[Square, ...]:
    """The stack, [S]."""
    return tuple(Square(a, field, s) for a in data.axes for field in fields_of_view(data) for s in range(data.slices))


def mirrored(data: Stacked) -> tuple[bool, ...]:
    """Of which images a mirrored patient has mirrored ones, [S]; see `Axis.mirrors`."""
    return tuple(AXES[square.axis].mirrors for square in squares(data))


def in_words(data: Stacked) -> str:
    """The fields of view, such as "80 and 112 mm"."""
    return " and ".join(f"{field:g}" for field in fields_of_view(data)) + " mm"


def usual(data: Stacked) -> bool:
    """Whether images are axial and have one field of view: then nobody needs to be told which is which."""
    return tuple(data.axes) == AXIAL and len(fields_of_view(data)) == 1


def on_volumes(data: Stacked) -> bool:
    """Whether a patient's images are the layers of one cube, which the model sees whole."""
    return VOLUME in data.axes


def plane_names(data: Stacked) -> tuple[str, ...]:
    """Plane and field of view of each image, such as "coronal, 80 mm", [S]; () for the usual one."""
    return () if usual(data) else tuple(f"{axis}, {field:g} mm" for axis, field, _ in squares(data))


def slice_names(data: Stacked, indices: Iterable[int]) -> tuple[str, ...]:
    """What each image of a patient shows, [S], such as "slice 3" or "coronal slice 3, 80 mm"; `indices` are from 0."""
    if usual(data):
        return tuple(f"slice {index + 1}" for index in indices)
    stack = zip(squares(data), indices, strict=True)
    return tuple(f"{square.axis} slice {index + 1}, {square.field_of_view:g} mm" for square, index in stack)


def how_shown(data: Stacked) -> str:
    """How images lie, plane by plane."""
    words = [AXES[axis].shown for axis in data.axes]
    return words[0] if tuple(data.axes) == AXIAL else "; ".join(f"{a}: {w}" for a, w in zip(data.axes, words, strict=True))
