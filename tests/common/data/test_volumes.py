"""Volumes to slices, against orientation by hand, scipy, torch, and the raw voxels of real MRI."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.data.cases import Case, read_site
from common.data.gate.files import load_volume
from common.data.slices import prepare_case
from common.data.volumes import Volume, centre_of, choose_slices, crop_slices, foreground, resample, scale_intensity
from common.errors import DataError

SHAPE, SPACING = (30, 40, 8), (1.0, 0.8, 5.0)
RAS_AFFINE = np.array([[1.0, 0, 0, -12], [0, 0.8, 0, 7], [0, 0, 5, -30], [0, 0, 0, 1]])


def head() -> np.ndarray:
    """An asymmetric volume [X, Y, Z] in RAS, smooth enough to be interpolated."""
    noise = np.random.default_rng(3).uniform(0, 1000, SHAPE)
    return (ndimage.gaussian_filter(noise, (3, 3, 0.5)) - 400).clip(0).astype(np.float32)


def tumour() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[18:24, 8:15, 3:6] = 1
    return mask


def las(ras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First axis to the left, written by hand."""
    affine = RAS_AFFINE.copy()
    affine[:3, 3] = RAS_AFFINE[:3] @ [SHAPE[0] - 1, 0, 0, 1]
    affine[:, 0] *= -1
    return ras[::-1], affine


def pir(ras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes to the back, the feet, the right, written by hand."""
    affine = np.eye(4)
    affine[:3, 3] = RAS_AFFINE[:3] @ [0, SHAPE[1] - 1, SHAPE[2] - 1, 1]
    affine[:3, :3] = np.array([[0, 0, 1], [-0.8, 0, 0], [0, -5, 0]])
    return ras.transpose(1, 2, 0)[::-1, ::-1], affine


def ras(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return voxels, RAS_AFFINE


def save(file: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), file)
    return file


def case_of(folder: Path, stored) -> Case:
    folder.mkdir()
    files = {"t1": save(folder / "t1.nii.gz", *stored(head())), "flair": save(folder / "f.nii", *stored(head() ** 2))}
    return Case("sub-1", files, save(folder / "mask.nii.gz", *stored(tumour())), 0, None, None, folder)


@pytest.mark.parametrize("stored", [las, pir])
def test_orientation_on_disk_does_not_matter(tmp_path: Path, stored) -> None:
    data = DataConfig(slices=3, size=24, field_of_view=24.0)
    truth, present, _ = prepare_case(case_of(tmp_path / "ras", ras), data)
    images, *_ = prepare_case(case_of(tmp_path / "other", stored), data)
    assert present.tolist() == [True, False, False, True]
    assert truth[:, 0].std() > 0.1
    np.testing.assert_array_equal(images, truth)


def test_row_0_is_anterior_and_column_0_is_the_patients_right() -> None:
    voxels = np.zeros((9, 9, 1), dtype=np.float32)
    voxels[8, 4, 0], voxels[4, 8, 0] = 1, 2  # far right; far front
    image = crop_slices(Volume(voxels, np.eye(4)), np.array([0]), (4.0, 4.0), 9.0, 9)[0]
    assert image[4, 0] == pytest.approx(1)
    assert image[0, 4] == pytest.approx(2)
    assert image.sum() == pytest.approx(3)


@settings(max_examples=40)
@given(centre=st.tuples(st.floats(-5, 35), st.floats(-5, 40)), edge=st.floats(2, 8), size=st.integers(11, 20))
def test_crop_is_linear_interpolation(centre: tuple[float, float], edge: float, size: int) -> None:
    voxels = head()
    found = crop_slices(Volume(voxels, np.diag([*SPACING, 1])), np.array([2, 5]), centre, edge, size)
    pixel = edge / size
    for image, z in zip(found, (2, 5), strict=True):
        for row, column in ((0, 0), (size // 2, 1), (size - 1, size - 2)):
            x = (centre[0] - (column - (size - 1) / 2) * pixel) / SPACING[0]
            y = (centre[1] - (row - (size - 1) / 2) * pixel) / SPACING[1]
            truth = ndimage.map_coordinates(voxels[:, :, z], [[x], [y]], order=1, mode="grid-constant")[0]
            assert image[row, column] == pytest.approx(truth, rel=1e-3, abs=1e-2)


def test_a_coarse_crop_averages_as_torch_does() -> None:
    voxels = np.random.default_rng(0).uniform(size=(64, 64, 1)).astype(np.float32)
    found = crop_slices(Volume(voxels, np.eye(4)), np.array([0]), (31.5, 31.5), 64.0, 24)[0]
    picture = torch.from_numpy(voxels[::-1, ::-1, 0].T.copy())[None, None]
    truth = torch.nn.functional.interpolate(picture, size=(24, 24), mode="bilinear", antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(found[2:-2, 2:-2], truth[2:-2, 2:-2], atol=1e-5)


def test_resampling_is_right_in_millimetres() -> None:
    world = np.indices((20, 20, 20)).astype(np.float32)
    source = Volume(world[0] + 2 * world[1] + 3 * world[2], np.eye(4))
    affine = np.array([[0, 2.0, 0, 3], [1.5, 0, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1]])
    moved = resample(source, Volume(np.zeros((5, 4, 3), dtype=np.float32), affine))
    i, j, k = np.indices((5, 4, 3))
    x, y, z = 2 * j + 3, 1.5 * i + 4, 2 * k + 5
    np.testing.assert_allclose(moved.voxels, x + 2 * y + 3 * z, rtol=1e-5)


def test_modalities_on_other_grids_line_up(tmp_path: Path) -> None:
    """The same anatomy, finer and shifted, must give nearly the same picture in both channels."""
    grid = np.indices((60, 60, 12))

    def blob(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        x, y, z = np.einsum("ij,j...->i...", affine, np.stack([*np.indices(shape), np.ones(shape)]))[:3]
        return (100 * np.exp(-((x - 25) ** 2 + (y - 35) ** 2) / 200 - (z - 20) ** 2 / 300)).astype(np.float32)

    coarse, fine = np.diag([1.0, 1, 4, 1]), np.array([[0.5, 0, 0, 5], [0, 0.5, 0, 10], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    files = {
        "t1": save(tmp_path / "t1.nii", blob(coarse, grid.shape[1:]), coarse),
        "t2": save(tmp_path / "t2.nii", blob(fine, (100, 100, 24)), fine),
    }
    data = DataConfig(slices=3, size=30, field_of_view=30.0)
    images, present, _ = prepare_case(Case("x", files, None, 0, None, None), data)
    assert present.tolist() == [True, False, True, False]
    assert images[:, 0].max() > 0.9
    np.testing.assert_allclose(images[:, 0], images[:, 2], atol=0.04)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_intensities_by_hand(dtype: Any) -> None:
    voxels = np.zeros((10, 10, 10), dtype=dtype)
    voxels[:, :, 5:] = np.linspace(40, 240, 500).reshape(10, 10, 5).astype(dtype)
    values = np.sort(voxels[voxels > 0].astype(float))
    low, high = values[round(0.10 * 499)], values[round(0.90 * 499)]
    scaled = scale_intensity(voxels.astype(np.float32), 10.0, 90.0)
    np.testing.assert_allclose(scaled, np.clip((voxels - low) / (high - low), 0, 1), atol=0.01)


@settings(max_examples=30)
@given(factor=st.floats(1e-3, 1e4))
def test_scanner_gain_does_not_matter(factor: float) -> None:
    np.testing.assert_allclose(
        scale_intensity(head() * np.float32(factor), 1.0, 99.5), scale_intensity(head(), 1.0, 99.5), atol=2e-3
    )


def test_noisy_air_and_small_negatives_are_background() -> None:
    generator = np.random.default_rng(0)
    voxels = generator.normal(0, 5, (20, 20, 20)).astype(np.float32)
    voxels[5:15, 5:15, 5:15] = generator.uniform(200, 900, (10, 10, 10))
    inside = np.zeros(voxels.shape, dtype=bool)
    inside[5:15, 5:15, 5:15] = True
    np.testing.assert_array_equal(foreground(voxels), inside)
    assert (scale_intensity(voxels, 1.0, 99.5)[~inside] == 0).all()


@pytest.mark.parametrize("value", [0.0, -3.0, 7.0, np.nan, np.inf])
def test_a_volume_without_contrast_is_zero(value: float) -> None:
    assert not scale_intensity(np.full((4, 4, 4), value, dtype=np.float32), 1.0, 99.5).any()


def test_voxels_that_are_not_finite_are_zero() -> None:
    voxels = head()
    voxels[3, 3, 3], voxels[4, 4, 4], voxels[5, 5, 5] = np.nan, np.inf, -np.inf
    scaled = scale_intensity(voxels, 1.0, 99.5)
    assert np.isfinite(scaled).all()
    assert scaled[3, 3, 3] == scaled[4, 4, 4] == scaled[5, 5, 5] == 0


def region(areas: list[int]) -> np.ndarray:
    mask = np.zeros((10, 10, len(areas)), dtype=bool)
    for z, area in enumerate(areas):
        mask[:, :, z].flat[:area] = True
    return mask


@pytest.mark.parametrize(
    ("areas", "count", "thickness", "chosen"),
    [
        ([0, 3, 9, 7, 8, 1, 0], 3, 5.0, [2, 3, 4]),  # the fullest, in anatomical order
        ([0, 9, 1, 8, 0, 7, 0], 3, 5.0, [1, 3, 5]),
        ([0, 0, 0, 5, 6, 0, 0], 4, 5.0, [2, 3, 4, 5]),  # beyond the tumour: its neighbours
        ([5, 6], 5, 5.0, [0, 0, 0, 1, 1]),  # a low volume repeats
        ([1, 2, 3, 4, 5, 4, 3, 2, 1], 3, 2.0, [2, 4, 6]),  # thin slices: 4 mm apart
        ([0, 0, 4, 5, 4, 0, 0, 0, 0], 3, 1.0, [2, 3, 4]),  # thin, but the tumour is too low for that
    ],
)
def test_slices_through_the_tumour(areas: list[int], count: int, thickness: float, chosen: list[int]) -> None:
    assert choose_slices(region(areas), count, tumour=True, thickness=thickness).tolist() == chosen


def test_slices_through_the_brain_are_spread() -> None:
    assert choose_slices(region([1, 2] + [60] * 9 + [2]), 3, tumour=False).tolist() == [3, 6, 9]
    assert choose_slices(region([0, 0, 0]), 2, tumour=False).tolist() == [0, 2]
    assert choose_slices(region([4]), 3, tumour=False).tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 8), st.booleans(), st.floats(0.3, 12))
def test_slices_are_always_as_many_as_asked_for(areas: list[int], count: int, tumour: bool, thickness: float) -> None:
    chosen = choose_slices(region(areas), count, tumour=tumour, thickness=thickness)
    assert chosen.shape == (count,)
    assert (np.diff(chosen) >= 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < len(areas)
    if len(areas) >= count and tumour and any(areas):
        assert len(set(chosen.tolist())) == count


def test_centre_is_the_centroid() -> None:
    mask = tumour() > 0
    expected = np.argwhere(mask).mean(axis=0)[:2] * SPACING[:2]
    assert centre_of(mask, SPACING) == pytest.approx(tuple(expected))
    assert centre_of(np.zeros((11, 5, 2), dtype=bool), (2.0, 1.0, 1.0)) == (10.0, 2.0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 10, 200, 350, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    file = save(tmp_path / f"t1{suffix}", head(), RAS_AFFINE)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept >= 10 else kept * len(content))])
    case = Case("sub-7", {"t1": file}, None, 0, None, None, tmp_path)
    with pytest.raises(DataError, match=rf"Patient sub-7, t1{suffix}: (truncated|breaks off|an empty file)") as caught:
        prepare_case(case, DataConfig(slices=2, size=16))
    assert str(tmp_path) not in str(caught.value)
    assert "sub-7" not in caught.value.public


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(place=st.floats(0, 0.9999), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_gzip_is_noticed_or_harmless(tmp_path: Path, place: float, bit: int) -> None:
    file = tmp_path / "t1.nii.gz"
    if not file.exists():
        save(file, head(), RAS_AFFINE)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(content)
    try:
        volume = load_volume(damaged)
    except DataError:
        return
    np.testing.assert_array_equal(volume.voxels, head())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(place=st.integers(0, 351), value=st.integers(0, 255))
def test_a_damaged_header_never_gives_a_traceback(tmp_path: Path, place: int, value: int) -> None:
    file = save(tmp_path / "t1.nii", head()[:8, :8], RAS_AFFINE)
    content = bytearray(file.read_bytes())
    content[place] = value
    file.write_bytes(content)
    try:
        assert load_volume(file).voxels.ndim == 3
    except DataError:
        return


@pytest.mark.parametrize("image", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_nifti_versions_and_one_frame(tmp_path: Path, image: type) -> None:
    nib.save(image(head()[..., None], RAS_AFFINE), tmp_path / "t1.nii.gz")
    volume = load_volume(tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(volume.voxels, head())
    assert volume.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (4, 4, 4, 1, 3)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "t1.nii", np.ones(shape, dtype=np.float32), np.eye(4))
    with pytest.raises(DataError, match=r"t1\.nii: .*expected one 3D volume"):
        load_volume(tmp_path / "t1.nii")


def test_not_a_nifti_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "t1.nii.gz").write_bytes(gzip.compress(b"DICM" * 200))
    with pytest.raises(DataError, match="a DICOM file"):
        load_volume(tmp_path / "t1.nii.gz")
    (tmp_path / "t2.nii.gz").write_bytes(b"\x1f\x8b" + zlib.compress(b"x"))
    with pytest.raises(DataError, match="damaged"):
        load_volume(tmp_path / "t2.nii.gz")
    with pytest.raises(DataError, match="cannot be read"):
        load_volume(tmp_path / "t3.nii.gz")


def test_none_of_the_modalities_asked_for(tmp_path: Path) -> None:
    case = Case("sub-1", {"t1": tmp_path / "x"}, None, 0, None, None)
    with pytest.raises(DataError, match="Patient sub-1: none of t2, flair; it has t1"):
        prepare_case(case, DataConfig(modalities=("t2", "flair")))


def test_an_empty_mask_means_the_brain(tmp_path: Path) -> None:
    case = case_of(tmp_path / "a", ras)
    data = DataConfig(slices=2, size=16)
    without, *_ = prepare_case(Case(case.id, case.files, None, 0, None, None), data)
    empty = save(tmp_path / "empty.nii", np.zeros(SHAPE, dtype=np.uint8), RAS_AFFINE)
    images, *_ = prepare_case(Case(case.id, case.files, empty, 0, None, None), data)
    np.testing.assert_array_equal(images, without)
    assert not np.array_equal(images, prepare_case(case, data)[0])


BRATS = """
data = "{data}"
patients = "BraTS*"
[files]
t1 = "t1.nii.gz"
t1c = "t1ce.nii.gz"
t2 = "t2.nii.gz"
flair = "flair.nii.gz"
mask = "seg.nii.gz"
"""


@pytest.mark.real_data
def test_brats_through_site_toml(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(BRATS.format(data=real_data / "cases"))
    data = DataConfig(size=56, field_of_view=112.0)
    (case,) = read_site(tmp_path, RunConfig(data=data)).cases
    assert (case.id, list(case.files), case.label) == ("BraTS2021_00006", ["t1", "t1c", "t2", "flair"], -1)
    images, present, _ = prepare_case(case, data)
    assert images.shape == (5, 4, 56, 56)
    assert present.all()
    assert (images.min(), images.max()) == (0, 1)
    _same_as_raw_voxels(case, images, data)


def _same_as_raw_voxels(case: Case, images: np.ndarray, data: DataConfig) -> None:
    """Sample the files' own arrays, stored as LPS, at the places in mm where the pixels should lie."""
    flair = nib.Nifti1Image.from_filename(case.files["flair"])
    seg = np.asarray(nib.Nifti1Image.from_filename(case.mask).dataobj) > 0
    centre = nib.affines.apply_affine(flair.affine, np.argwhere(seg).mean(axis=0))
    offsets = (np.arange(data.size) - (data.size - 1) / 2) * data.field_of_view / data.size
    best = int(seg.sum(axis=(0, 1)).argmax())
    height = nib.affines.apply_affine(flair.affine, [0, 0, best])[2]
    x, y = np.meshgrid(centre[0] - offsets, centre[1] - offsets)  # RAS: x grows to the right, y to the front
    places = nib.affines.apply_affine(np.linalg.inv(flair.affine), np.stack([x, y, np.full_like(x, height)], axis=-1))
    smooth = ndimage.uniform_filter(np.asarray(flair.dataobj, dtype=float), (2, 2, 1))
    truth = ndimage.map_coordinates(smooth, np.moveaxis(places, -1, 0), order=1)
    close = [np.corrcoef(truth.ravel(), image[3].astype(float).ravel())[0, 1] for image in images]
    assert max(close) > 0.98
    assert np.corrcoef(truth[:, ::-1].ravel(), images[int(np.argmax(close)), 3].astype(float).ravel())[0, 1] < 0.9


@pytest.mark.real_data
def test_other_collections_have_small_negatives(real_data: Path) -> None:
    volume = load_volume(real_data / "cases" / "open_ms_patient19" / "t1.nii.gz")
    scaled = scale_intensity(volume.voxels, 1.0, 99.5)
    assert volume.voxels.min() < 0
    assert (scaled[volume.voxels <= 0] == 0).all()
    assert 0.3 < np.median(scaled[foreground(volume.voxels)]) < 0.9
