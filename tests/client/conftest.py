"""A small trained model and phantom patients, for predictions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.predict.prediction import as_batch
from common.config.modalities import DEFAULT_MODALITIES, MODALITIES
from common.config.run import config_from_table
from common.data.cases import UNLABELLED, Case
from common.data.slices import slice_case
from common.evaluation.calibration.calibration import Calibration, save_calibration
from common.evaluation.ood.features import features
from common.evaluation.ood.score import MIN_COUNT, moments
from common.models.arrays import get_arrays, save_arrays
from common.models.build import build_model
from simulation.phantom.hospitals import nifti_bytes, simulate_patient
from simulation.phantom.sites import EXTERNAL_HOSPITAL

CONFIG: dict[str, dict[str, Any]] = {
    "data": {"size": 64, "slices": 2},
    "model": {"backbone": "fedmri_vit_mini", "weights": "phantom", "rank": 2},
}


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """Patient `sub-1` in BIDS: all four modalities and a mask."""
    folder = tmp_path_factory.mktemp("phantom") / "sub-1"
    (folder / "anat").mkdir(parents=True)
    hospital = replace(EXTERNAL_HOSPITAL, missing={})
    patient, affine = simulate_patient(hospital, 3, 7), hospital.scanner.affine
    for m, voxels in patient.scan.images.items():
        (folder / "anat" / f"sub-1_{MODALITIES[m].suffix}.nii.gz").write_bytes(
            nifti_bytes(np.rint(voxels).astype(np.int16), affine)
        )
    mask = nifti_bytes(patient.scan.mask.astype(np.int16), affine)
    (folder / "anat" / "sub-1_desc-tumour_mask.nii.gz").write_bytes(mask)
    return folder


@pytest.fixture(scope="session")
def model_of(tmp_path_factory):
    """model_of(**sections): a run's folder with a model whose adapters do something."""

    def make(**sections) -> Path:
        config = config_from_table({**CONFIG, **{k: {**CONFIG.get(k, {}), **v} for k, v in sections.items()}})
        model, rng = build_model(config), np.random.default_rng(0)
        arrays = {n: (a + rng.normal(0, 0.02, a.shape)).astype(np.float32) for n, a in get_arrays(model).items()}
        said = {"backbone": model.backbone_name, "backbone_sha256": model.backbone_sha256, "config": config.to_json()}
        run = tmp_path_factory.mktemp("run")
        save_arrays(run / "model.safetensors", arrays, {**said, "classes": json.dumps(list(config.task.classes))})
        return run

    return make


@pytest.fixture(scope="session")
def run(model_of) -> Path:
    return model_of()


OFFSETS = (0.4, -0.6, 0.2)


@pytest.fixture(scope="session")
def calibrated_run(model_of, phantom) -> Path:
    """Its reference knows the phantom and noisy copies of its features."""
    folder = model_of()
    from common.model_files.open import open_saved, read_saved

    opened = open_saved(read_saved(folder))
    files = {m: phantom / "anat" / f"sub-1_{MODALITIES[m].suffix}.nii.gz" for m in DEFAULT_MODALITIES}
    case = Case("x", files, None, UNLABELLED, None, None, phantom)
    one = features(opened, as_batch([(case, slice_case(case, opened.config.data))]))
    some = one + np.random.default_rng(0).normal(0, 1, (4 * MIN_COUNT, *one.shape[1:]))
    calibration = Calibration(2.0, 0.9, 0.7, 0.05, 50.0, 30, ("hospital-a",), OFFSETS)
    save_calibration(folder / "calibration.safetensors", calibration, moments(some))
    return folder
