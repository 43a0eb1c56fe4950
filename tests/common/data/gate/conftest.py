"""A small patient of real NIfTI files, to spoil one file at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.config.sections import DataConfig
from common.data.cases import Case
from common.data.gate.finding import Finding, StaysOutError
from common.data.slices import Sliced, slice_case

SHAPE = (44, 52, 20)
AFFINE = np.array([[3.0, 0, 0, -64], [0, 3.0, 0, -77], [0, 0, 5.0, -45], [0, 0, 0, 1]])
DATA = DataConfig(slices=3, size=48, field_of_view=100.0)


def places(shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    return list(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))


def head(seed: int, tumour: float) -> np.ndarray:
    """An ellipsoid of texture between 100 and 300 in empty air, and a tumour on the right that is brighter by so much."""
    x, y, z = places()
    texture = np.random.default_rng(seed).uniform(100, 300, SHAPE)
    inside = (x / 0.7) ** 2 + (y / 0.8) ** 2 + (z / 0.9) ** 2 < 1
    return np.rint(inside * (texture + tumour * lesion())).astype(np.int16)


def lesion() -> np.ndarray:
    x, y, z = places()
    return ((x - 0.35) / 0.25) ** 2 + ((y + 0.1) / 0.25) ** 2 + ((z - 0.1) / 0.3) ** 2 < 1


@dataclass
class Patient:
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def write(self, kind: str, voxels: np.ndarray, affine: np.ndarray | None = AFFINE, image: type = nib.Nifti1Image) -> Any:
        """Save as `kind`; returns the image, to be changed and saved again."""
        made = image(voxels, affine)
        self.save(kind, made)
        return made

    def save(self, kind: str, image: Any, suffix: str = ".nii") -> None:
        self.files[kind] = self.folder / f"{kind}{suffix}"
        nib.save(image, self.files[kind])

    def read(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        image: Any = nib.load(self.files[kind])
        return np.array(image.dataobj), image.affine  # a copy: the file will be overwritten

    def case(self, *, by_voxels: bool = False) -> Case:
        images = {kind: file for kind, file in self.files.items() if kind != "mask"}
        return Case("p", images, self.files.get("mask"), -1, None, None, self.folder, by_voxels=by_voxels)

    def judged(self, *, by_voxels: bool = False) -> tuple[Sliced | None, Sequence[Finding]]:
        """Slices, None where the patient stays out; and the findings."""
        try:
            sliced = slice_case(self.case(by_voxels=by_voxels), DATA)
        except StaysOutError as out:
            return None, out.findings
        return sliced, sliced.findings

    def said(self, **how: bool) -> list[tuple[str, str, str]]:
        """File, code and level of each finding."""
        return [(one.file, one.code, one.level.value) for one in self.judged(**how)[1]]


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """T1, T2 and FLAIR on one grid, and a mask on the tumour: nothing to be found."""
    made = Patient(tmp_path)
    for seed, (kind, bright) in enumerate((("t1", 60.0), ("t2", 300.0), ("flair", 400.0))):
        made.write(kind, head(seed, bright))
    made.write("mask", lesion().astype(np.uint8))
    return made


@pytest.fixture
def truth(patient: Patient) -> Sliced:
    """What is cut of the untouched patient."""
    sliced, findings = patient.judged()
    assert sliced is not None
    assert list(findings) == []
    return sliced


MakeCopy = Callable[[Patient], None]
