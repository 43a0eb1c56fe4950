"""Every slice of a volume, cut and put back; and that no mask decides of slices or windows."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from common.config.sections import DataConfig
from common.data.cases import Case
from common.data.gate.patient import Patient, read_patient
from common.data.planes import window_move
from common.data.volumes import Volume, crop_slices
from common.data.whole import Whole, cut_whole

DATA = DataConfig(modalities=("t1", "flair"), slices=4, size=24, field_of_view=48.0, through="brain", shift=6.0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A head of 60 x 50 x 11 voxels of 1.5 x 1.5 x 4 mm, stored as no RAS; a tumour off its middle."""
    x, y, z = np.meshgrid(np.arange(60) - 30, np.arange(50) - 25, np.arange(11) - 5, indexing="ij")
    head = (x / 26) ** 2 + (y / 20) ** 2 + (z / 6) ** 2 < 1
    tumour = ((x - 10) / 7) ** 2 + ((y + 5) / 6) ** 2 + ((z - 2) / 2) ** 2 < 1
    image = np.where(head, 300 + 5 * x + 3 * y, 0) + 300.0 * tumour
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])

    def saved(name: str, values: np.ndarray) -> Path:
        nib.save(Nifti1Image(values.astype(np.float32), affine), tmp_path / name)  # type: ignore[attr-defined]
        return tmp_path / name

    return Case("sub-1", {"flair": saved("flair.nii", image)}, saved("mask.nii", tumour), 0, None, None, tmp_path)


def opened(case: Case, data: DataConfig = DATA) -> tuple[Patient, Whole]:
    read = read_patient(case, data)
    return read, cut_whole(case.id, read, data)


def test_all_slices_are_there_and_as_wide_as_the_brain(case: Case) -> None:
    read, whole = opened(case)
    assert whole.images.shape[:2] == (11, 2)
    assert whole.images.shape[2] * whole.pixel >= 51 * 1.5  # the head's longer edge
    assert (whole.pixel, whole.present.tolist()) == (2.0, [False, True])
    assert not whole.images[:, 0].any()
    assert whole.images[:, 1].max() > 0.9
    assert read.region.sum() == read.images.mask.voxels.sum()  # type: ignore[union-attr]


def test_what_is_cut_comes_back_to_its_voxels(case: Case) -> None:
    read, whole = opened(case)
    x, y, z = np.meshgrid(*(np.arange(n) for n in whole.shape), indexing="ij")
    smooth = (x * 0.3 + y * 0.2 + z).astype(np.float32)
    n = whole.images.shape[-1]
    pixels = crop_slices(Volume(smooth, read.reference.affine), np.arange(11), whole.centre, n * whole.pixel, n)
    back = whole.to_volume(pixels)
    assert back.shape == whole.shape
    np.testing.assert_allclose(back[8:52, 8:42], smooth[8:52, 8:42], atol=0.05)  # linear in, linear out
    region = crop_slices(
        Volume(read.region.astype(np.float32), read.reference.affine), np.arange(11), whole.centre, n * whole.pixel, n
    )
    found = whole.to_volume(region) > 0.5
    assert 2 * (found & read.region).sum() / (found.sum() + read.region.sum()) > 0.95


def test_outside_the_squares_nothing_is_tumour(case: Case) -> None:
    _, whole = opened(case)
    narrow = replace(whole, images=whole.images[..., :10, :10])
    values = narrow.to_volume(np.ones((11, 10, 10), np.float32))
    assert (values.max(), values[0, 0, 0], values[-1, -1, -1]) == (1.0, 0.0, 0.0)


def test_masks_decide_of_no_slice_and_no_window(case: Case) -> None:
    """The same without the mask, with a mask elsewhere: the same planes."""
    with_mask, without = (read_patient(one, DATA) for one in (case, replace(case, mask=None)))
    [first], [second] = with_mask.planes, without.planes
    assert (with_mask.tumour, with_mask.guided, without.tumour) == (True, False, False)
    assert first.indices.tolist() == second.indices.tolist()
    assert first.centre == second.centre
    [through] = read_patient(case, replace(DATA, through="tumour", shift=0.0)).planes
    assert through.indices.tolist() != first.indices.tolist()


def test_windows_move_by_the_id_alone_within_what_is_allowed() -> None:
    moves = np.array([window_move(f"sub-{n}", "axial", 16.0) for n in range(400)])
    assert np.abs(moves).max() <= 16.0
    assert np.abs(moves.mean(0)).max() < 1.5
    np.testing.assert_allclose(moves.std(0), 16 / 3**0.5, rtol=0.08)  # of an even spread
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.15
    assert window_move("sub-1", "axial", 16.0) == window_move("sub-1", "axial", 16.0)
    assert window_move("sub-1", "axial", 0.0) == (0.0, 0.0)
