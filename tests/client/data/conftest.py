"""A hospital's patient as DICOM: four modalities of one small head, each made from an array that is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simulation.phantom.dicom import Scan, write_classic

TAGS = {
    "t1": {"SeriesDescription": "T1 SE nativ", "EchoTime": 9.0, "RepetitionTime": 550.0, "ScanningSequence": "SE"},
    "t1c": {"SeriesDescription": "T1 SE post", "EchoTime": 9.0, "RepetitionTime": 550.0, "ScanningSequence": "SE"},
    "t2": {"SeriesDescription": "T2 TSE", "EchoTime": 95.0, "RepetitionTime": 4200.0, "ScanningSequence": "SE"},
    "flair": {"SeriesDescription": "FLAIR", "EchoTime": 120.0, "RepetitionTime": 9000.0, "InversionTime": 2400.0},
}
AGENT = {"ContrastBolusAgent": "Gadovist", "ContrastBolusVolume": 7.5, "ContrastBolusRoute": "INTRAVENOUS"}
MINUTES = {"t1": "1000", "t2": "1005", "flair": "1010", "t1c": "1020"}


def oblique(spacing: tuple[float, float, float], degrees: float = 17.0, shear: float = 0.0) -> np.ndarray:
    """An affine turned about two axes."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * spacing
    affine[:3, 3] = (-70, -60, -45.5)
    affine[:3, 2] += shear * affine[:3, 1]
    return affine


def head(affine: np.ndarray, shape: tuple[int, int, int], contrast: tuple[float, float, float, float]) -> np.ndarray:
    """`[C, R, K]`: skull, brain, ventricles and a lesion as ellipsoids of the world, so that any grid sees the same head."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]

    def inside(centre, radii):
        return (((world - centre) / radii) ** 2).sum(axis=-1) < 1

    image = np.zeros(shape)
    for value, centre, radii in zip(
        contrast,
        [(0, 0, 0), (0, 3, 2), (6, -8, 4), (-22, 14, 9)],
        [(62, 72, 58), (54, 63, 50), (10, 22, 12), (13, 9, 11)],
        strict=True,
    ):
        image[inside(np.array(centre), np.array(radii))] = value
    return np.round(image).astype(np.int32)


CONTRAST = {
    "t1": (900, 600, 200, 450),
    "t1c": (950, 620, 210, 1300),
    "t2": (500, 700, 1500, 1200),
    "flair": (450, 650, 150, 1100),
}


def scans(modality: str, *, study: str = "study", affine: np.ndarray | None = None, shape=(56, 60, 40), **tags) -> Scan:
    """One modality of the head; the patient's own voxels differ by their number."""
    affine = oblique((2.5, 2.5, 3.0)) if affine is None else affine
    extra = {"AcquisitionTime": f"{MINUTES[modality]}00", "AcquisitionDate": "20240301", **(AGENT if modality == "t1c" else {})}
    voxels = head(affine, shape, CONTRAST[modality])
    return Scan(voxels, affine, tags={**TAGS[modality], **extra, **tags}, seed=modality, study=study)


@pytest.fixture(scope="session")
def patient_source(tmp_path_factory) -> Path:
    """A CD of one patient: four modalities, the contrast T1 on a grid of its own, in one folder, with what else lies on a CD."""
    folder = tmp_path_factory.mktemp("cd")
    for number, modality in enumerate(TAGS):
        grid = oblique((2.4, 2.4, 3.2), degrees=9.0) if modality == "t1c" else None
        write_classic(scans(modality, affine=grid), folder / "IMAGES", name=f"{number}{{:04d}}")
    (folder / "README.TXT").write_text("viewer.exe shows the images")
    return folder


@pytest.fixture
def log_lines() -> Callable[[Path], dict[str, list[str]]]:
    def read(path: Path) -> dict[str, list[str]]:
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        return {row[0]: row for row in rows}

    return read
