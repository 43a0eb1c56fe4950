"""A fifth modality, and a sixth by one row: from files through cases, check, cache and a forward pass."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.config.modalities import DEFAULT_MODALITIES, MODALITIES, Modality
from common.config.run import RunConfig, config_from_table
from common.data.cache import content_key, open_site
from common.data.cases import read_site
from common.data.check import check_site
from common.data.volumes import quantity_window
from common.errors import ConfigError
from common.models.build import build_model

SWI = Modality("swi", "SWI", "swi", "swi", ("swi", "swi"), folders=("swi",))


def write(root: Path, name: str, voxels: np.ndarray) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), file)
    return file


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(50, 200, (20, 24, 6))


def config(*modalities: str) -> RunConfig:
    data = {"slices": 2, "size": 16, "field_of_view": 16.0, "modalities": [*DEFAULT_MODALITIES, *modalities]}
    return config_from_table({"data": data, "model": {"backbone": "fedmri_vit_mini", "weights": "random"}})


def test_a_modality_is_one_row(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"data\.modalities: expected some of t1, t1c, t2, flair, adc, image, each once"):
        config("swi")
    monkeypatch.setitem(MODALITIES, "swi", SWI)
    run = config("adc", "swi")
    names = ("sub-1/anat/sub-1_T1w", "sub-1/dwi/sub-1_ADC", "sub-1/swi/sub-1_swi", "sub-2/swi/sub-2_swi")
    for number, name in enumerate(names):
        write(tmp_path, f"{name}.nii.gz", noise(number))
    site = read_site(tmp_path, run)
    assert [list(case.files) for case in site.cases] == [["t1", "adc", "swi"], ["swi"]]
    assert check_site(site, run).modalities == {"t1": 1, "t1c": 0, "t2": 0, "flair": 0, "adc": 1, "swi": 2}
    patients = open_site(site, run.data, tmp_path / "cache", workers=1)
    assert patients.present.tolist() == [[True, False, False, False, True, True], [False] * 5 + [True]]
    assert np.asarray(patients.images)[:, :, 5].any(axis=(1, 2, 3)).all()
    model = build_model(run).eval()
    x, present = torch.from_numpy(np.asarray(patients.images, np.float32)), torch.from_numpy(patients.present)
    without = present.clone()
    without[0, 5] = False
    with torch.inference_mode():
        seen, unseen = model(x, present).logits, model(x, without).logits
    assert torch.isfinite(seen).all()
    assert not torch.allclose(seen[0], unseen[0])  # the sixth modality counts
    assert torch.allclose(seen[1], unseen[1])


@pytest.mark.parametrize(
    "name", ["dwi/x_ADC.nii.gz", "ses-1/dwi/x_desc-eddy_adc.nii", "anat/x_ADC.nii.gz", "dwi/x_acq-b1000_rec-1_ADC.nii.gz"]
)
def test_names_of_the_diffusion_coefficient(tmp_path: Path, name: str) -> None:
    write(tmp_path / "sub-1", name, noise(1))
    for other in ("dwi/x_dwi.nii.gz", "dwi/x_expADC.nii.gz", "dwi/x_TRACE.nii.gz"):
        write(tmp_path / "sub-1", other, noise(2))
    (case,) = read_site(tmp_path, config("adc")).cases
    assert case.name_of(case.files["adc"]) == f"sub-1/{name}"


def test_files_of_a_modality_that_no_run_names_change_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", noise(1))
    for name in ("a_ADC.nii.gz", "b_ADC.nii.gz"):
        write(tmp_path, f"sub-1/dwi/{name}", noise(2))
    run = config()
    site = read_site(tmp_path, run)
    assert list(site.cases[0].files) == ["t1"]
    settings = {  # of the key: a file of another modality beside these changes nothing
        **{"modalities": ["t1", "t1c", "t2", "flair"], "slices": 2, "size": 16, "field_of_view": 16.0},
        **{"low_percentile": 1.0, "high_percentile": 99.5},
    }
    cases = [["sub-1", {"t1": hashlib.sha256(file.read_bytes()).hexdigest()}]]
    expected = hashlib.sha256(json.dumps([2, settings, cases], sort_keys=True).encode()).hexdigest()
    assert content_key(site, run.data) == expected
    (twins,) = [one for one in read_site(tmp_path, config("adc")).findings if one.level == "error"]
    assert (twins.patient, twins.code) == ("sub-1", "file-twins")
    assert twins.found.startswith("2 files match adc")


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 10.0])
def test_a_map_looks_the_same_in_every_unit(unit: float) -> None:
    """Whatever multiple of mm^2/s a scanner stores: the file's value is the coefficient over the unit."""
    stored = np.zeros((10, 10, 4), np.float32)
    stored[2:8, 2:8] = np.random.default_rng(0).uniform(0.5e-3, 1.6e-3, (6, 6, 4)) / unit
    stored[4, 4] = 3.0e-3 / unit
    assert quantity_window(stored, 0.0, 3.0e-3, 0.9e-3) == pytest.approx((0.0, 3.0e-3 / unit))


def test_a_map_without_a_brain_has_no_window() -> None:
    for voxels in (np.zeros((3, 3, 3), np.float32), np.full((3, 3, 3), -1.0, np.float32), np.full((3, 3, 3), np.nan, np.float32)):
        assert quantity_window(voxels, 0.0, 3.0e-3, 0.9e-3) is None


def test_equal_tissue_is_equally_bright_at_every_site(tmp_path: Path) -> None:
    """A coefficient of 1.5e-3 mm^2/s is half of the window, whatever else is in the volume; percentiles would move it."""
    for name, rest, factor in (("sub-1", 0.7e-3, 1e6), ("sub-2", 1.2e-3, 1.0)):
        voxels = np.full((20, 24, 6), rest)
        voxels[10] = 1.5e-3
        write(tmp_path, f"{name}/dwi/{name}_ADC.nii.gz", voxels * factor)
    run = config("adc")
    images = np.asarray(open_site(read_site(tmp_path, run), run.data, tmp_path / "cache", workers=1).images, np.float32)[:, :, 4]
    assert images[0].max() == images[1].max() == 0.5
    np.testing.assert_allclose([images[0].min(), images[1].min()], [0.7 / 3, 1.2 / 3], atol=1e-3)
