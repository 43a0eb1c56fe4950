"""What is read from files and voxels, against images made with known properties."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.config.run import RunConfig
from common.config.site import SiteConfig
from common.data.cases import Case, Site, read_site
from common.errors import DataError
from common.evaluation.subgroups.acquisition import noise_and_sharpness, read_acquisition, read_acquisitions, stored_type
from common.evaluation.subgroups.clusters import cluster


def head(noise=0.0, blur=0.0, seed=0, edge=48):
    """A ball of brain with structure [X, Y, Z], intensity about 100."""
    generator = np.random.default_rng(seed)
    structure = ndimage.gaussian_filter(generator.normal(size=(edge, edge, 8)), (6, 6, 1))
    x, y = np.mgrid[:edge, :edge] - edge / 2
    ball = (np.hypot(x, y) < edge / 2.5)[..., None]
    image = 100 + 100 * ndimage.gaussian_filter(structure, (blur, blur, 0))
    return (ball * np.maximum(image + noise * generator.normal(size=image.shape), 1)).astype(np.float32)


def write(path: Path, voxels, spacing=(1.0, 1.0, 5.0), kind=nib.Nifti1Image, dtype=np.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind(voxels.astype(dtype), np.diag([*spacing, 1.0])).to_filename(path)
    return path


def case(name, age=None, sex=None, **files):
    return Case(name, files, None, 0, age, sex)


@pytest.mark.parametrize("noise", [2.0, 5.0, 10.0])
def test_noise_is_measured_and_structure_counts_little(noise):
    measured, _ = noise_and_sharpness(head(noise))
    assert measured == pytest.approx(noise / 100, rel=0.15)
    assert noise_and_sharpness(head(0.0))[0] < 0.006


def test_noise_and_sharpness_do_not_depend_on_units_and_blur_is_less_sharp():
    assert noise_and_sharpness(head(3.0) * 7) == pytest.approx(noise_and_sharpness(head(3.0)), rel=1e-3)
    steps = np.zeros((40, 40, 4), np.float32) + 50
    steps[::8] = steps[:, ::8] = 90
    blurred = ndimage.gaussian_filter(steps, (1.5, 1.5, 0))
    assert noise_and_sharpness(blurred)[1] < 0.8 * noise_and_sharpness(steps)[1]


@pytest.mark.parametrize("voxels", [np.zeros((9, 9, 3)), np.ones((9, 9, 3)), np.full((9, 9, 3), np.nan), -np.ones((4, 4, 1))])
def test_images_without_contrast_have_numbers_too(voxels):
    assert np.isfinite(noise_and_sharpness(voxels.astype(np.float32))).all()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_stored_type_is_read(tmp_path, kind, dtype, name):
    file = write(tmp_path / name, head(), kind=kind, dtype=dtype)
    assert stored_type(file) == np.dtype(dtype).name
    disguised = tmp_path / "b.nii"
    disguised.write_bytes(gzip.compress(file.read_bytes()) if name == "a.nii" else file.read_bytes())
    assert stored_type(disguised) == np.dtype(dtype).name


def test_the_header_is_read_as_the_patient_lies(tmp_path):
    affine = np.array([[0.0, 0, 5, 0], [-0.9, 0, 0, 0], [0, 1.1, 0, 0], [0, 0, 0, 1]])  # stored in another order of axes
    nib.Nifti1Image(head()[:, :30], affine).to_filename(tmp_path / "t1.nii.gz")
    found = read_acquisition(case("sub-1", 44.0, "F", t1=tmp_path / "t1.nii.gz"), "north", "flair")
    assert (found.site, found.age, found.sex, found.dtype) == ("north", 44.0, "F", "float32")
    assert found.spacing == pytest.approx((5.0, 0.9, 1.1))
    assert found.matrix == (8, 48)


def test_the_modality_that_most_have_is_compared_and_ids_are_those_of_the_pool(tmp_path):
    quiet, loud = write(tmp_path / "q.nii.gz", head(1.0)), write(tmp_path / "l.nii.gz", head(20.0))
    both, one = case("sub-1", t1=loud, flair=quiet), case("sub-2", flair=quiet)
    north, south = (Site(name, tmp_path, cases, SiteConfig()) for name, cases in (("north", (both, one)), ("south", (both,))))
    found = read_acquisitions([north, south])
    assert list(found) == ["north/sub-1", "north/sub-2", "south/sub-1"]
    assert len({a.noise for a in found.values()}) == 1
    assert list(read_acquisitions([north])) == ["sub-1", "sub-2"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "t1.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Patient sub-1, .*t1.nii.gz"):
        read_acquisition(case("sub-1", t1=tmp_path / "t1.nii.gz"), "north", "t1")


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_hospitals_are_read(real_data: Path):
    sites = [read_site(real_data / "tcga-lgg" / name, RunConfig(), simulated=True) for name in ("cs", "fg")]
    found = list(read_acquisitions(sites).values())
    assert len(found) == 30
    assert {(a.spacing, a.matrix, a.dtype) for a in found} == {((1.0, 1.0, 5.0), (160, 160), "uint8")}
    assert all(0 < a.noise < 0.5 and 0 < a.sharpness < 0.5 for a in found)
    assert all(name.startswith("1.0 x 1.0 x 5.0 mm, matrix 160, uint8") for name in cluster(found))
