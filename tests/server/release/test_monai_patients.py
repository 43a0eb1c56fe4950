"""What a bundle does with a patient's files, next to what training did with them, for a modality with its own window too."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data.meta_tensor import MetaTensor

from common.config import covariates
from common.config.run import RunConfig, config_from_table
from common.config.sections import DataConfig
from common.data import volumes
from common.data.cases import read_site
from common.data.slices import slice_case
from server.release.equivalence import made_up_site
from server.release.monai_bundle import alone, inference, pure_source
from server.release.monai_patients import SlicesOfPatientd, find_patients

CONFIG = RunConfig(data=DataConfig(modalities=("t1", "t1c", "adc"), slices=2, size=32))


def loaded(file: str) -> MetaTensor:
    image = nib.as_closest_canonical(nib.load(file))
    return MetaTensor(np.ascontiguousarray(image.dataobj, np.float32)[None], affine=image.affine)


def test_a_bundle_finds_and_cuts_as_training_did(tmp_path: Path) -> None:
    site = made_up_site(tmp_path, CONFIG.data)
    settings = inference(CONFIG)
    found = find_patients(str(site), settings["patients"], settings["files"], unlike=settings["unlike"])
    cases = read_site(site, CONFIG, simulated=True).cases
    assert [{k: v for k, v in p.items() if k != "id"} for p in found] == [{k: str(f) for k, f in c.sources()} for c in cases]
    arguments = {k: v for k, v in settings["preprocessing"]["transforms"][-1].items() if k != "_target_"}
    assert arguments["quantities"] == {"adc": [0.0, 3.0e-3, 0.9e-3]}
    cut = SlicesOfPatientd(**arguments)
    for patient, case in zip(found, cases, strict=True):
        seen = cut({k: v if k == "id" else loaded(v) for k, v in patient.items()})
        np.testing.assert_allclose(seen["images"].numpy(), slice_case(case, CONFIG.data).images, atol=2e-3)
        assert seen["present"].tolist() == [m in case.files for m in CONFIG.data.modalities]


def test_a_bundle_reads_covariates_as_training_did(tmp_path: Path) -> None:
    run = config_from_table({"data": {"slices": 1, "size": 32, "covariates": ["age", "sex"]}})
    site, settings = made_up_site(tmp_path, run.data), inference(run)
    (site / "participants.tsv").write_text(
        "participant_id\tage\tsex\tmask\nsub-noise1\t61.5\tfemale\tyes\nsub-noise2\tn/a\tM\t\n", encoding="utf-8"
    )
    found = find_patients(str(site), "sub-*", settings["files"], unlike=settings["unlike"], table=settings["table"])
    cases = read_site(site, run, simulated=True).cases
    cut = SlicesOfPatientd(**{k: v for k, v in settings["preprocessing"]["transforms"][-1].items() if k != "_target_"})
    for patient, case in zip(found, cases, strict=True):
        images = {k: loaded(v) if k in settings["files"] else v for k, v in patient.items()}
        np.testing.assert_array_equal(cut(images)["covariates"], np.array(case.covariates, np.float32))
    with pytest.raises(ValueError, match="age '1954' is not a number in years from 0 to 120"):
        cut(images | {"age": 1954})
    words = {"age": 61.5, "sex": "F"}  # of a JSON list
    np.testing.assert_array_equal(cut(images | words)["covariates"], [61.5, 0.0])


def test_the_copied_table_needs_nothing_of_ours(tmp_path: Path) -> None:
    source = alone(Path(covariates.__file__).read_text())
    assert "common.errors" not in source
    (tmp_path / "alone.py").write_text(source)
    asked = "import alone; print(alone.COVARIATES['age'].read('54'), 'common' in __import__('sys').modules)"
    said = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["54.0", "False"]


def test_without_its_table_a_bundle_takes_the_contrast_image_for_t1_as_well(tmp_path: Path) -> None:
    site, settings = made_up_site(tmp_path, CONFIG.data), inference(CONFIG)
    with pytest.raises(ValueError, match=r"more than one file for t1 \(2 files\)"):
        find_patients(str(site), settings["patients"], settings["files"])


def test_the_copied_source_needs_nothing_of_ours() -> None:
    source = pure_source(Path(volumes.__file__).read_text())
    assert "common" not in source
    assert "MODALITIES" not in source
    space: dict = {"__name__": "scripts.volumes"}
    exec(compile(source.replace("@dataclass", "#@dataclass"), "volumes.py", "exec"), space)
    assert {"quantity_window", "intensity_window", "apply_window"} <= space.keys()
