"""A patient's slices as small pictures: a strip for each modality, and the mask's outline as a transparent strip to be laid over.

S slices, M modalities, H = W pixels.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from common.config.axes import Square, plane_names, squares
from common.config.sections import DataConfig
from common.data.cases import Case
from common.data.gate.files import load_volume
from common.data.gate.images import MASK
from common.data.gate.patient import Patient
from common.data.planes import Plane, turned
from common.data.slices import Sliced, cut_patient, cut_tumour, scaled_slab, scaling
from common.data.volumes import Mask, Volume, choose_slices, crop_slices, foreground
from common.errors import DataError

EDGE = 128  # pixels of a slice's picture, at most
QUALITY = 72  # of WebP
OUTLINE = (255, 176, 32)
TELLING = ("flair", "t2", "t1c")  # the modalities that show a tumour, the best one first


@dataclass(frozen=True)
class Row:
    """One modality. `strip` is a WebP picture of its slices side by side; empty where there is none, and `why` says why."""

    name: str
    strip: bytes
    why: str = ""


@dataclass(frozen=True)
class Pictures:
    """One patient's rows in one plane: `outline` is a PNG strip of the tumour's outline; `numbers` are the slices', from 1."""

    rows: tuple[Row, ...]
    outline: bytes
    numbers: tuple[int, ...]
    as_the_model: bool  # or as the files are, each on its own grid, for who stays out
    plane: str = ""  # and field of view, where they are not the usual ones
    whole: Row | None = None  # the same slices from edge to edge, in the modality that shows a tumour best
    marked: bytes = b""  # on these, the outlines of the tumour and of what the model sees


def draw_patient(case: Case, read: Patient | None, data: DataConfig) -> tuple[Pictures, ...]:
    """What the model sees of a patient, by plane and field of view; of one who stays out, what there is to see of the files."""
    return _as_the_model(read, data) if read else (_as_the_files(case, data),)


def _as_the_model(read: Patient, data: DataConfig) -> tuple[Pictures, ...]:
    sliced, tumour, planes = cut_patient(read, data), cut_tumour(read, data), plane_names(data) or ("",)
    stack = [slice(first, first + data.slices) for first in range(0, len(sliced.images), data.slices)]
    return tuple(_in_plane(read, sliced, tumour, part, planes[part][0], data) for part in stack)


def _in_plane(read: Patient, sliced: Sliced, tumour: Mask | None, part: slice, plane: str, data: DataConfig) -> Pictures:
    """The slices of one axis at one field of view, which are a part of the stack."""
    rows = [
        Row(name, _strip(sliced.images[part, m])) if sliced.present[m] else Row(name, b"", "absent")
        for m, name in enumerate(data.modalities)
    ]
    outline = _outline(tumour[part]) if tumour is not None else b""
    numbers = tuple(index + 1 for index in sliced.indices[part].tolist())
    whole, marked = _from_edge_to_edge(read, squares(data)[part.start], data)
    return Pictures(tuple(rows), outline, numbers, as_the_model=True, plane=plane, whole=whole, marked=marked)


def _from_edge_to_edge(read: Patient, square: Square, data: DataConfig) -> tuple[Row, bytes]:
    """Where in the head the square lies: a mask on the wrong side, or in another patient's place, is seen here alone."""
    name = next((one for one in TELLING if one in read.volumes), next(iter(read.volumes)))
    plane = next(one for one in read.planes if one.axis == square.axis)
    volume, region = (turned(one, plane.axis) for one in (read.volumes[name], _volume(read.region, read)))
    slab = Volume(scaling(read.volumes[name], name, data)(volume.voxels[:, :, plane.indices]), volume.affine)
    tumour = region.voxels[:, :, plane.indices]
    marked = [_square(region, plane, square.field_of_view), *([tumour] if read.tumour else [])]
    outline = _outline(*(_whole(Volume(one.astype(np.float32), region.affine), data) >= 0.5 for one in marked))
    return Row(name, _strip(_whole(slab, data))), outline


def _volume(region: Mask, read: Patient) -> Volume:
    return Volume(region.astype(np.float32), read.reference.affine)


def _square(there: Volume, plane: Plane, field_of_view: float) -> Mask:
    """The voxels [X, Y, S] of the turned volume that the model sees."""
    columns, rows = (
        np.abs(np.arange(count) * length - middle) <= field_of_view / 2
        for count, length, middle in zip(there.voxels.shape, there.spacing, plane.centre, strict=False)
    )
    return np.repeat((columns[:, None] & rows[None])[:, :, None], len(plane.indices), axis=2)


def _as_the_files(case: Case, data: DataConfig) -> Pictures:
    rows = [_file_row(name, case.files.get(name), data) for name in data.modalities]
    rows += [_file_row(MASK, case.mask, data)] if case.mask else []
    return Pictures(tuple(rows), b"", (), as_the_model=False)


def _file_row(name: str, file: Path | None, data: DataConfig) -> Row:
    """A file by itself: slices of its own, spread over what it shows, each whole."""
    if file is None:
        return Row(name, b"", "absent")
    try:
        volume = load_volume(file)
        return Row(name, _strip(_mask_slices(volume, data) if name == MASK else _own_slices(volume, name, data)))
    except DataError:
        return Row(name, b"", "cannot be read")


def _mask_slices(volume: Volume, data: DataConfig) -> NDArray[np.float32]:
    """White where it marks anything, through what it marks."""
    marked = foreground(volume.voxels)
    indices = choose_slices(marked, data.slices, tumour=True, thickness=volume.spacing[2])
    return _whole(Volume(marked[:, :, indices].astype(np.float32), volume.affine), data)


def _own_slices(volume: Volume, modality: str, data: DataConfig) -> NDArray[np.float32]:
    indices = choose_slices(foreground(volume.voxels), data.slices, tumour=False)
    return _whole(Volume(scaled_slab(volume, modality, indices, data), volume.affine), data)


def _whole(slab: Volume, data: DataConfig) -> NDArray[np.float32]:
    """All slices of a slab, each from edge to edge."""
    edges = [(count - 1) * length for count, length in zip(slab.voxels.shape[:2], slab.spacing[:2], strict=True)]
    return crop_slices(slab, np.arange(slab.voxels.shape[2]), (edges[0] / 2, edges[1] / 2), max(*edges, 1.0), data.size)


def _strip(images: NDArray[np.floating]) -> bytes:
    """Slices [S, H, W] of 0 to 1, side by side."""
    grey = np.round(np.clip(np.asarray(images, np.float32), 0, 1) * 255).astype(np.uint8)
    picture, out = _small(Image.fromarray(np.concatenate(list(grey), axis=1))), BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()


def _outline(*regions: Mask) -> bytes:
    """The rims of regions [S, H, W] as a transparent strip, one pixel wide in the picture that is shown."""
    rims = []
    for region in regions:
        whole = np.concatenate(list(region), axis=1)
        small = np.asarray(_small(Image.fromarray(whole.astype(np.uint8) * 255))) > 127
        rims.append(small & ~ndimage.binary_erosion(small))
    out = BytesIO()
    picture = Image.fromarray(np.logical_or.reduce(rims).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, *OUTLINE])
    picture.save(out, "PNG", transparency=0, bits=1, optimize=True)
    return out.getvalue()


def _small(strip: Image.Image) -> Image.Image:
    height = min(strip.height, EDGE)
    width = round(strip.width * height / strip.height)
    return strip if height == strip.height else strip.resize((width, height), Image.Resampling.BOX)
