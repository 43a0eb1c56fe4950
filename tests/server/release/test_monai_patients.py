"""What a bundle does with a patient's files, next to what training did with them, for a modality with its own window too."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data.meta_tensor import MetaTensor

from common.config.run import DataConfig, RunConfig
from common.data import volumes
from common.data.cases import read_site
from common.data.slices import slice_case
from server.release.equivalence import made_up_site
from server.release.monai_bundle import inference, pure_source
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
