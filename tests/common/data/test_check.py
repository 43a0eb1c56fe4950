"""The site's own check: each kind of problem and warning, and silence where all is well."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.data.cases import read_site
from common.data.check import check_site
from common.data.gate.finding import Level

LAS = np.array([[-1.0, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SMALL = np.zeros((10, 24, 6))
SMALL[4:6, 9:14, 2:4] = 1
AWAY = np.array([[1.0, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
ALL = ["t1", "t1c", "t2", "flair", "mask"]


def found(findings) -> list[tuple[str, str]]:
    return [(finding.patient, finding.file) for finding in findings]


def save(file: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4) if affine is None else affine), file)


def noise(shape: tuple[int, ...] = (20, 24, 6)) -> np.ndarray:
    return np.random.default_rng(99).uniform(50, 200, shape)


def test_a_good_site(write_site, run) -> None:
    root = write_site("bonn", {"sub-1": ALL, "sub-2": ["t1c", "flair"]}, {"sub-1": "b"})
    steps: list[tuple[int, int]] = []
    result = check_site(read_site(root, run), run, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert (result.site, result.patients, result.masks) == ("bonn", 2, 1)
    assert result.modalities == {"t1": 1, "t1c": 2, "t2": 1, "flair": 2}
    assert result.classes == {"a": 0, "b": 1, "unlabelled": 1}
    assert result.findings == ()
    assert (result.used, result.usable) == (2, True)


def test_problems(write_site, run) -> None:
    root = write_site("s", {"sub-1": ALL, "sub-2": ["t1"], "sub-3": ["t2"]})
    file = root / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz"
    file.write_bytes(file.read_bytes()[:500])
    config = replace(run, data=DataConfig(modalities=("t1", "flair")))
    result = check_site(read_site(root, config), config)
    assert found(result.of(Level.ERROR)) == [("sub-1", "sub-1/anat/sub-1_FLAIR.nii.gz"), ("sub-3", "")]
    assert [one.code for one in result.findings] == ["file-truncated", "no-modality-of-the-run"]
    assert (result.used, result.usable) == (1, True)
    (root / "sub-2" / "anat" / "sub-2_T1w.nii.gz").write_bytes(b"")
    assert not check_site(read_site(root, config), config).usable


@pytest.mark.parametrize(
    ("kind", "voxels", "affine", "sentence"),
    [
        ("T2w", np.where(noise() > 190, np.nan, noise()), None, "not finite"),
        ("T2w", noise(), np.diag([1.0, 5, 1, 1]), "thick slices that are not axial (1 x 5 x 1 mm)"),
        ("desc-tumour_mask", np.zeros((20, 24, 6)), None, "is an empty mask"),
        ("desc-tumour_mask", SMALL, np.diag([2.0, 1, 1, 1]), "another grid (10 x 24 x 6 voxels of 2 x 1"),
    ],
)
def test_warnings(write_site, run, kind: str, voxels: np.ndarray, affine: np.ndarray | None, sentence: str) -> None:
    root = write_site("s", {"sub-1": ALL})
    file = root / "sub-1" / "anat" / f"sub-1_{kind}.nii.gz"
    save(file, voxels, affine)
    result = check_site(read_site(root, run), run)
    assert result.of(Level.ERROR) == ()
    assert found(result.findings) == [("sub-1", f"sub-1/anat/sub-1_{kind}.nii.gz")]
    assert sentence in result.findings[0].found


@pytest.mark.parametrize(
    ("kind", "voxels", "code"), [("T2w", noise(), "image-elsewhere"), ("desc-tumour_mask", np.ones((9, 9, 9)), "mask-outside")]
)
def test_files_that_lie_elsewhere(write_site, run, kind: str, voxels: np.ndarray, code: str) -> None:
    root = write_site("s", {"sub-1": ALL})
    save(root / "sub-1" / "anat" / f"sub-1_{kind}.nii.gz", voxels, AWAY)
    assert code in [one.code for one in check_site(read_site(root, run), run).of(Level.ERROR)]


def test_thick_axial_slices_are_fine(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1"]})
    save(root / "sub-1" / "anat" / "sub-1_T1w.nii.gz", noise(), np.diag([0.5, 0.5, 6, 1]))
    assert check_site(read_site(root, run), run).findings == ()


def test_duplicates_across_patients_and_modalities(write_site, run) -> None:
    root = write_site("s", {"sub-1": ["t1", "mask"], "sub-2": ["t2", "mask"]})
    one, two = root / "sub-1" / "anat", root / "sub-2" / "anat"
    shutil.copy(one / "sub-1_T1w.nii.gz", two / "sub-2_FLAIR.nii.gz")
    image = nib.Nifti1Image.from_filename(one / "sub-1_T1w.nii.gz")
    save(one / "sub-1_T2w.nii.gz", np.asarray(image.dataobj)[::-1], LAS)  # the same, stored as LAS
    result = check_site(read_site(root, run), run)
    assert found(result.findings) == [
        ("sub-1", "sub-1/anat/sub-1_T2w.nii.gz"),
        ("sub-2", "sub-2/anat/sub-2_FLAIR.nii.gz"),
    ]
    assert all(one.found == "has the same voxels as sub-1/anat/sub-1_T1w.nii.gz" for one in result.findings)


@pytest.mark.real_data
def test_a_real_hospital(real_data: Path) -> None:
    result = check_site(read_site(real_data / "tcga-lgg" / "fg", RunConfig()), RunConfig())
    assert (result.patients, result.masks) == (14, 14)
    assert {(one.code, one.level) for one in result.findings} == {("face", Level.NOTE)}  # whole heads, and nothing else
    assert result.modalities == {"t1": 13, "t1c": 12, "t2": 0, "flair": 14}
    assert result.classes["unlabelled"] == 0
