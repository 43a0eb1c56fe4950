"""A figure of phantom hospitals: one patient of each subtype in all modalities, and the same modality at different scanners."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.config.modalities import DEFAULT_MODALITIES, MODALITIES
from common.errors import DataError
from common.files import write_atomic
from simulation.phantom.hospitals import LAYOUTS, image_path, mask_of
from simulation.phantom.lesion import SUBTYPES

NAMES = {
    "idh-mutant-astrocytoma": "IDH-mutant\nastrocytoma",
    "idh-wildtype": "IDH-wildtype\nglioma",
    "oligodendroglioma": "Oligodendro-\nglioma",
}


@dataclass(frozen=True)
class _Shown:
    """One patient on disk."""

    site: str
    folder: Path
    subtype: str

    def path(self, modality: str) -> Path:
        return image_path(self.folder.parent, self.folder.name, modality)

    def mask(self) -> NDArray[np.int16]:
        places = [mask_of(self.folder.parent, self.folder.name, layout) for layout in LAYOUTS]
        image: Any = nibabel.load(next(place for place in places if place.is_file()))
        return np.asarray(image.dataobj, dtype=np.int16)


def write_figure(out_png: Path, folder: Path) -> None:
    """Draw the hospitals under `folder` into a PNG.

    Rows: a patient of each subtype, preferring one with all modalities, at the slice with most tumour. Last row: FLAIR (or
    what there is) of one patient of each site, to compare scanners.

    Raises:
        DataError: there are no phantom hospitals under `folder`.
    """
    patients = [patient for table in sorted(folder.glob("*/participants.tsv")) for patient in _patients(table)]
    if not patients:
        raise DataError(f"{folder}: expected phantom hospitals (folders with participants.tsv); found none.")
    chosen = [best for subtype in SUBTYPES if (best := _best([p for p in patients if p.subtype == subtype]))]
    names = sorted({patient.site for patient in patients})[:5]
    sites = [best for name in names if (best := _best([p for p in patients if p.site == name]))]
    shown = [m for m in MODALITIES if m in DEFAULT_MODALITIES or any(patient.path(m).exists() for patient in chosen)]
    figure = Figure(figsize=(0.6 + 2.0 * len(shown), 2.5 * len(chosen) + 2.6), facecolor="black")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.5 * len(chosen) or 0.1, 2.4])
    upper, lower = parts
    for part in parts:
        part.set_facecolor("black")
    grid = upper.subplots(max(1, len(chosen)), len(shown), squeeze=False)
    for axes, modality in zip(grid[0], shown, strict=True):
        axes.set_title(MODALITIES[modality].title, color="white", fontsize=11)
    for row, patient in zip(grid, chosen, strict=False):
        for axes, modality in zip(row, shown, strict=True):
            _draw(axes, patient, modality)
        row[0].set_ylabel(NAMES[patient.subtype], color="white", fontsize=11)
    strip = lower.subplots(1, len(sites), squeeze=False)[0]
    for axes, patient in zip(strip, sites, strict=True):
        modality = next(m for m in ("flair", "t1", "t1c", "t2") if patient.path(m).exists())
        spacing = _draw(axes, patient, modality)
        axes.set_title(f"{patient.site}\n{MODALITIES[modality].title}, {spacing}", color="white", fontsize=8)
    upper.subplots_adjust(left=0.08, right=0.995, top=0.96, bottom=0.01, wspace=0.02, hspace=0.03)
    lower.subplots_adjust(left=0.01, right=0.99, top=0.80, bottom=0.02, wspace=0.04)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80, metadata={"Software": None}, pil_kwargs={"optimize": True})
    write_atomic(out_png, picture.getvalue())


def _patients(table: Path) -> Iterator[_Shown]:
    """The rows of one participants.tsv."""
    header, *rows = (line.split("\t") for line in table.read_text(encoding="utf-8").splitlines())
    for row in rows:
        yield _Shown(table.parent.name, table.parent / row[0], row[header.index("subtype")])


def _best(patients: list[_Shown]) -> _Shown | None:
    """Of the first patients those with most modalities, of these the largest tumour at the height of the ventricles."""

    def rank(patient: _Shown) -> tuple[int, bool, int]:
        area = patient.mask().sum((0, 1))
        height = int(area.argmax()) / area.size
        return sum(patient.path(m).exists() for m in MODALITIES), 0.52 < height < 0.72, int(area.max())

    return max(patients[:12], key=rank, default=None)


def _draw(axes: Axes, patient: _Shown, modality: str) -> str:
    """Draw one image, radiological view (the patient's right on the left); returns the voxel size as text."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("black")
    if not patient.path(modality).exists():
        axes.text(0.5, 0.5, "not done", color="grey", ha="center", va="center", transform=axes.transAxes)
        return ""
    image: Any = nibabel.load(patient.path(modality))
    values = np.asarray(image.dataobj, dtype=np.float32)
    position = int(patient.mask().sum((0, 1)).argmax())
    x, y, z = (float(size) for size in image.header.get_zooms())
    top = float(np.percentile(values[values > 0], 99.5))
    axes.imshow(values[::-1, ::-1, position].T, cmap="gray", vmin=0.0, vmax=top, aspect=y / x, interpolation="bicubic")
    return f"{x:g} x {y:g} x {z:g} mm"
