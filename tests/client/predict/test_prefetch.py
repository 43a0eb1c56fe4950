"""What is read for an answer: an image that shows nothing is named, and answers for nobody."""

import nibabel as nib
import numpy as np
import pytest

from client.predict.prefetch import reading
from common.config.sections import DataConfig
from common.data.cases import UNLABELLED, Case
from common.errors import DataError


@pytest.mark.parametrize("nothing", [0.0, 7.0, np.nan])
def test_an_image_that_shows_nothing_is_named_and_the_others_are_read(tmp_path, nothing):
    shown = np.random.default_rng(0).random((20, 20, 8)).astype(np.float32)
    for name, voxels in (("good", shown), ("blank", np.full_like(shown, nothing))):
        nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 5.0, 1.0])), tmp_path / f"{name}.nii")
    good, blank = tmp_path / "good.nii", tmp_path / "blank.nii"
    cases = [{"t1": good}, {"t1": good, "flair": blank}, {"t2": good}]
    asked = tuple(Case(f"p{i}", files, None, UNLABELLED, None, None, tmp_path) for i, files in enumerate(cases))
    with reading(asked, DataConfig(size=32)) as read:
        found = [sliced for _, sliced in read]
    assert [isinstance(one, DataError) for one in found] == [False, True, False]
    assert str(found[1]).startswith("Patient p1, blank.nii: is ")
