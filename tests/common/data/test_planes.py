"""Slices along three axes and at several fields of view: against functions of the place in mm, scipy, and a mirrored patient."""

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy import ndimage

from common.config.axes import AXES, VOLUME, mirrored, squares
from common.config.sections import DataConfig
from common.data.augmentation import Crops, apply_crops
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import Batch
from common.data.gate.files import load_volume
from common.data.gate.patient import read_patient
from common.data.lesions import slice_lesion
from common.data.planes import choose_plane, cut_planes
from common.data.slices import slice_case
from common.data.volumes import Volume, centre_of, choose_slices, crop_slices
from common.training.views import some_slices, with_planes
from tests.common.data.gate.conftest import patient  # noqa: F401  (a fixture)

EVERY = ("axial", "coronal", "sagittal")
SHAPE, SPACING, ORIGIN = (36, 30, 13), np.array([1.5, 2.0, 5.0]), np.array([-20.0, 11.0, -31.0])
RAS = np.block([[np.diag(SPACING), ORIGIN[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
BOX = (slice(14, 23), slice(9, 18), slice(5, 9))  # the tumour's voxels
MIDDLE = ORIGIN + SPACING * [18, 13, 6.5]  # of the tumour, in mm
DATA = DataConfig(axes=EVERY, slices=3, size=8, field_of_view=(8.0, 12.0))  # pixels no wider than voxels


def height(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Linear along each axis, so that linear interpolation is exact; no two axes or directions are alike."""
    return 7 + 0.9 * x - 0.4 * y + 0.3 * z + 0.02 * x * y - 0.01 * y * z + 0.005 * x * z


def world() -> list[np.ndarray]:
    return [o + s * i for o, s, i in zip(ORIGIN, SPACING, np.indices(SHAPE), strict=True)]


def tumour() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[BOX] = True
    return mask


def expected_places(axis: str, field: float, index: int, size: int) -> list[np.ndarray]:
    """X, Y, Z in mm of each pixel, by hand: what is up and what is left in each plane."""
    from_edge = (np.arange(size) + 0.5) * field / size - field / 2  # right and down
    down, right = (from_edge[:, None] + np.zeros(size), from_edge[None] + np.zeros((size, 1)))
    there = ORIGIN + SPACING * index
    if axis == "axial":  # the patient's right is on the left, the front is up
        x, y, z = MIDDLE[0] - right, MIDDLE[1] - down, there[2] + 0 * down
    elif axis == "coronal":  # the patient's right is on the left, the top is up
        x, y, z = MIDDLE[0] - right, there[1] + 0 * down, MIDDLE[2] - down
    else:  # the front is on the left, the top is up
        x, y, z = there[0] + 0 * down, MIDDLE[1] - right, MIDDLE[2] - down
    return [x, y, z]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ASR"])
def test_each_plane_shows_what_is_at_its_place_in_mm(codes: str, tmp_path: Path) -> None:
    """However the array is stored: nibabel turns it."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    for name, voxels in (("head", height(*world())), ("mask", tumour())):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), RAS).as_reoriented(turn), tmp_path / f"{name}.nii")
    volume, mask = (load_volume(tmp_path / f"{name}.nii") for name in ("head", "mask"))
    planes = [choose_plane(mask.voxels > 0, volume, axis, DATA.slices, tumour=True) for axis in EVERY]
    images = cut_planes(volume, planes, DATA, lambda slab: slab)
    chosen = {"axial": [6, 7, 8], "coronal": [], "sagittal": []}
    for plane in planes:
        reach = BOX["XYZ".index({"axial": "Z", "coronal": "Y", "sagittal": "X"}[plane.axis])]
        assert set(plane.indices.tolist()) <= set(range(reach.start, reach.stop))
        chosen[plane.axis] = plane.indices.tolist()
        assert plane.depth == dict(zip(("sagittal", "coronal", "axial"), SHAPE, strict=True))[plane.axis]
    assert np.diff(chosen["coronal"]).tolist() == [2, 2]  # of 2 mm: 4 mm apart
    assert np.diff(chosen["sagittal"]).tolist() == [3, 3]  # of 1.5 mm
    assert np.diff(chosen["axial"]).tolist() == [1, 1]
    for image, (axis, field, number) in zip(images, squares(DATA), strict=True):
        truth = height(*expected_places(axis, field, chosen[axis][number], DATA.size))
        np.testing.assert_allclose(image, truth, rtol=1e-4)


def test_each_plane_is_linear_interpolation_as_scipy_does_it() -> None:
    """Voxel by voxel where nothing is smooth, beyond the volume's edge too; pixels are finer than voxels."""
    voxels = np.random.default_rng(5).uniform(0, 1, SHAPE).astype(np.float32)
    data = replace(DATA, field_of_view=(40.0, 9.0), size=48)
    volume = Volume(voxels, RAS)
    planes = [choose_plane(tumour(), volume, axis, data.slices, tumour=True) for axis in EVERY]
    indices = {plane.axis: plane.indices for plane in planes}
    images = cut_planes(volume, planes, data, lambda slab: slab)
    for image, (axis, field, number) in zip(images, squares(data), strict=True):
        places = expected_places(axis, field, int(indices[axis][number]), data.size)
        at = [(p - o) / s for p, o, s in zip(places, ORIGIN, SPACING, strict=True)]
        truth = ndimage.map_coordinates(voxels.astype(np.float64), at, order=1, mode="grid-constant")
        np.testing.assert_allclose(image, truth, atol=2e-5)


def test_wide_pixels_average_over_their_own_width_in_each_direction() -> None:
    """A loop over pixels: triangles as wide as the pixel in mm along columns, and along rows, whatever the voxel's edges."""
    data, voxels = replace(DATA, field_of_view=48.0, slices=1), np.random.default_rng(6).uniform(0, 1, SHAPE)
    volume, pixel = Volume(voxels.astype(np.float32), RAS), 48.0 / 8
    planes = [choose_plane(tumour(), volume, axis, 1, tumour=True) for axis in EVERY]
    images = cut_planes(volume, planes, data, lambda slab: slab)
    at = [o + s * np.arange(-9, n + 9) for o, s, n in zip(ORIGIN, SPACING, SHAPE, strict=True)]
    padded = np.pad(voxels, 9)  # beyond the volume is 0
    for image, plane in zip(images, planes, strict=True):
        places, across = expected_places(plane.axis, 48.0, int(plane.indices[0]), 8), AXES[plane.axis].order[2]
        for row, column in itertools.product(range(8), range(8)):
            weighted = padded
            for axis in range(3):
                reach = SPACING[axis] if axis == across else max(SPACING[axis], pixel)
                weights = np.maximum(0, 1 - np.abs(at[axis] - places[axis][row, column]) / reach)
                weighted = np.tensordot(weights / weights.sum(), weighted, (0, 0))
            assert image[row, column] == pytest.approx(float(weighted), abs=1e-5)


def test_the_usual_plane_is_cut_as_before_there_was_a_choice(patient) -> None:  # noqa: F811
    data = DataConfig(slices=3, size=48, field_of_view=100.0)
    read, sliced = read_patient(patient.case(), data), slice_case(patient.case(), data)
    indices = choose_slices(read.region, 3, tumour=True, thickness=read.reference.spacing[2])
    centre = centre_of(read.region, read.reference.spacing)
    inside = Volume(read.region.astype(np.float32), read.reference.affine)
    np.testing.assert_array_equal(sliced.indices, indices)
    np.testing.assert_array_equal(
        slice_lesion(patient.case(), data), np.round(crop_slices(inside, indices, centre, 100.0, 48).clip(0, 1) * 255)
    )
    several = slice_case(patient.case(), replace(data, axes=("sagittal", "axial"), field_of_view=(60.0, 100.0)))
    assert several.images.shape == (12, 4, 48, 48)
    np.testing.assert_array_equal(several.images[9:], sliced.images)
    assert DataConfig().of_slices() == {
        "modalities": ("t1", "t1c", "t2", "flair"), "slices": 5, "size": 224, "field_of_view": 112.0,
        "low_percentile": 1.0, "high_percentile": 99.5,
    }  # fmt: skip


def test_a_smaller_field_is_the_middle_of_a_larger_one(patient) -> None:  # noqa: F811
    """Of half the edge and half the pixels, whatever the plane."""
    data = DataConfig(slices=2, axes=EVERY, size=64, field_of_view=32.0)
    whole = slice_case(patient.case(), data).images
    half = slice_case(patient.case(), replace(data, size=32, field_of_view=16.0)).images
    np.testing.assert_allclose(half, whole[..., 16:48, 16:48], atol=2e-3)


def test_masks_lie_where_the_images_show_the_tumour(patient) -> None:  # noqa: F811
    """In every plane and at every field of view, as training stacks both."""
    data = DataConfig(slices=2, axes=EVERY, size=32, field_of_view=(60.0, 100.0), modalities=("t1",))
    data = replace(data, low_percentile=0.0, high_percentile=100.0)
    region = patient.read("mask")[0]
    patient.write("t1", (np.float32(1) + region + 1e-4 * np.random.default_rng(0).random(region.shape, np.float32)))
    found, images = slice_lesion(patient.case(), data), slice_case(patient.case(), data).images[:, 0].astype(np.float32)
    assert found.shape == images.shape == (12, 32, 32)
    assert (found == 255).any((1, 2)).all()
    assert ((found > 0) == (images * 255 > 1)).mean() > 0.99


def test_a_modality_is_present_where_any_plane_shows_it(patient, tmp_path: Path) -> None:  # noqa: F811
    data = DataConfig(slices=3, size=48, field_of_view=100.0)
    voxels, affine = patient.read("t2")
    patient.write("t2", voxels[:, :, :6], affine)  # below the tumour's slices, within reach of the coronal ones
    axial, several = (slice_case(patient.case(), replace(data, axes=axes)) for axes in (("axial",), ("axial", "coronal")))
    assert axial.present.tolist() == [True, False, False, True]
    assert several.present.tolist() == [True, False, True, True]
    assert not several.images[:3, 2].any()
    assert several.images[3:, 2].any((1, 2)).all()
    [found] = [one for one in several.findings if one.file == "t2.nii"]
    assert (found.code, found.found) == (
        "modality-in-some-slices", "reaches 3 of the 6 slices that the model uses; the others are empty",
    )  # fmt: skip


def test_a_modality_is_present_where_the_widest_field_of_view_shows_it(patient) -> None:  # noqa: F811
    data = DataConfig(slices=3, size=48, field_of_view=20.0)
    voxels, affine = patient.read("t2")
    patient.write("t2", voxels[:24], affine)  # the tumour's middle is 3 voxels of 3 mm beyond it
    narrow, both = (slice_case(patient.case(), replace(data, field_of_view=field)) for field in (12.0, (12.0, 100.0)))
    assert (narrow.present[2], both.present[2]) == (False, True)
    assert not both.images[:3, 2].any()
    assert both.images[3:, 2].any()


def test_a_mirrored_patient_is_mirrored_in_every_plane() -> None:
    """What augmentation makes of the images is what is cut of a patient whose left and right are swapped."""
    shape = (33, 30, 13)
    voxels = ndimage.gaussian_filter(np.random.default_rng(1).uniform(0, 1, shape), 1.0).astype(np.float32)
    region = np.zeros(shape, bool)
    region[10:23, 12:17, 4:9] = True  # its middle is the volume's, from left to right
    data = replace(DATA, size=16, slices=3)
    cuts = []
    for turned in (voxels, voxels[::-1]):
        volume = Volume(np.ascontiguousarray(turned), RAS)
        planes = [choose_plane(region, volume, axis, data.slices, tumour=True) for axis in EVERY]
        assert planes[2].indices.tolist() == [13, 16, 19]
        cuts.append(torch.from_numpy(cut_planes(volume, planes, data, lambda slab: slab)).unsqueeze(1))
    order = [s if axis != "sagittal" else s + 2 - 2 * number for s, (axis, _, number) in enumerate(squares(data))]
    mirrored_cuts = cuts[1][order]  # a mirrored patient's sagittal slices come from the other side
    x = torch.stack([cuts[0], cuts[0]])
    flip = torch.tensor([[[-1.0, 0, 0], [0, 1.0, 0]], [[1.0, 0, 0], [0, 1.0, 0]]])
    crops = Crops(flip, torch.ones(2, 1), torch.ones(2, 1), torch.zeros(2, 2))
    batch = with_planes(Batch(x, torch.ones(2, 1).bool(), torch.zeros(2), torch.empty(2, 0)), data)
    found = apply_crops(batch.x, crops, 16, batch.mirrors)
    torch.testing.assert_close(found[0], mirrored_cuts, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], cuts[0], atol=1e-5, rtol=0)  # its crop does not mirror
    some = some_slices(batch, 4, torch.Generator().manual_seed(2))
    drawn = apply_crops(some.x, crops, 16, some.mirrors)[0]
    assert some.mirrors is not None
    assert all(any(torch.allclose(one, other, atol=1e-5) for other in mirrored_cuts) for one in drawn)


def test_rotated_crops_of_sagittal_images_are_those_that_are_not_mirrored() -> None:
    x = torch.rand(1, 2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    turn = torch.tensor([[[-0.8, -0.6, 0.1], [-0.6, 0.8, -0.2]]])  # mirrored, rotated, moved
    plain = torch.tensor([[[0.8, -0.6, 0.1], [0.6, 0.8, -0.2]]])
    rest = (torch.full((1, 1), 1.2), torch.full((1, 1), 0.9), torch.tensor([[0.1, -0.05]]))
    found = apply_crops(x, Crops(turn, *rest), 12, torch.tensor([[True, False]]))
    torch.testing.assert_close(found[:, 0], apply_crops(x, Crops(turn, *rest), 12)[:, 0])
    torch.testing.assert_close(found[:, 1], apply_crops(x, Crops(plain, *rest), 12)[:, 1])


def test_which_images_a_mirror_turns_follows_the_stack() -> None:
    data = DataConfig(axes=("sagittal", "coronal"), slices=2, field_of_view=(60.0, 80.0))
    assert mirrored(data) == (False,) * 4 + (True,) * 4
    batch = Batch(torch.zeros(3, 8, 1, 4, 4), torch.ones(3, 1).bool(), torch.zeros(3), torch.empty(3, 0))
    assert with_planes(batch, replace(data, axes=("axial", "coronal"))).mirrors is None
    told = with_planes(batch, data).mirrors
    assert told is not None
    assert told.tolist() == [list(mirrored(data))] * 3


def test_the_cache_keeps_each_choice_by_itself(write_site, run, small, tmp_path: Path) -> None:
    site = read_site(write_site("bonn", {"sub-1": ["t1", "mask"]}), run)
    choices = [
        replace(small, axes=axes, field_of_view=field)
        for axes, field in itertools.product((("axial",), EVERY, EVERY[::-1]), (16.0, (8.0, 16.0)))
    ]
    opened = [open_site(site, data, tmp_path, workers=1) for data in choices]
    assert len({one.key for one in opened}) == len(choices)
    assert [one.images.shape[1] for one in opened] == [len(squares(data)) for data in choices] == [2, 4, 6, 12, 6, 12]
    np.testing.assert_array_equal(np.asarray(opened[4].images)[:, 4:], opened[0].images)
    np.testing.assert_array_equal(open_site(site, choices[3], tmp_path, workers=1).images, opened[3].images)
    assert set(AXES) == {*EVERY, VOLUME}
