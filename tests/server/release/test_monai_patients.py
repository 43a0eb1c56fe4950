"""What a bundle does with a patient's files, next to what training did with them, for a modality with its own window too."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.config.sections import DataConfig
from common.config.standard import Standard
from common.data.cases import read_site
from common.data.slices import slice_case
from server.release.equivalence import made_up_site
from server.release.monai_bundle import inference, metadata, scripts
from server.release.monai_patients import Evaluator, SlicesOfPatientd, find_patients

ABOUT = dict.fromkeys(("version", "name", "description", "weights_licence", "intended_use", "eval_metrics"), "")
CONFIG = RunConfig(data=DataConfig(modalities=("t1", "t1c", "adc"), slices=2, size=32))


def cutter(run: RunConfig, **changed) -> SlicesOfPatientd:
    arguments = {k: v for k, v in inference(run)["preprocessing"]["transforms"][-1].items() if k != "_target_"}
    return SlicesOfPatientd(**{**arguments, "place": "header", **changed})


@pytest.mark.parametrize(
    "changed",
    [{}, {"standard": (Standard("t1", tuple(0.05 * k for k in range(1, 10))),)}, {"intensity": "zscore"}],
    ids=["plain", "standard", "zscore"],
)
def test_a_bundle_finds_and_cuts_as_training_did(tmp_path: Path, changed: dict[str, Any]) -> None:
    run = replace(CONFIG, data=replace(CONFIG.data, **changed))
    site = made_up_site(tmp_path, run.data)
    settings = json.loads(json.dumps(inference(run)))
    found = find_patients(str(site), settings["patients"], settings["files"])
    cases = read_site(site, run, simulated=True).cases
    assert [{k: v for k, v in p.items() if k != "id"} for p in found] == [{k: str(f) for k, f in c.sources()} for c in cases]
    cut = cutter(run)
    plain = cutter(CONFIG)
    for patient, case in zip(found, cases, strict=True):
        seen = cut(patient)
        np.testing.assert_array_equal(seen["images"].numpy(), slice_case(case, run.data).images)
        assert seen["present"].tolist() == [m in case.files for m in run.data.modalities]
        assert np.array_equal(seen["images"], plain(patient)["images"]) == (not changed or not {"t1", "t1c"} & set(case.files))


def test_a_bundle_reads_covariates_as_training_did(tmp_path: Path) -> None:
    run = config_from_table({"data": {"slices": 1, "size": 32, "covariates": ["age", "sex"]}})
    site, settings = made_up_site(tmp_path, run.data), inference(run)
    (site / "participants.tsv").write_text(
        "participant_id\tage\tsex\tmask\nsub-noise1\t61.5\tfemale\tyes\nsub-noise2\tn/a\tM\t\n", encoding="utf-8"
    )
    found = find_patients(str(site), "sub-*", settings["files"], table=settings["table"])
    cases = read_site(site, run, simulated=True).cases
    cut = cutter(run)
    for patient, case in zip(found, cases, strict=True):
        images = patient
        np.testing.assert_array_equal(cut(images)["covariates"], np.array(case.covariates, np.float32))
    assert "age '1954' is not a number in years from 0 to 120" in cut(images | {"age": 1954})["error"]
    words = {"age": 61.5, "sex": "F"}  # of a JSON list
    np.testing.assert_array_equal(cut(images | words)["covariates"], [61.5, 0.0])


def test_what_is_copied_needs_nothing_of_ours_but_itself(tmp_path: Path) -> None:
    """Imported where FedMRI is not, and found to read a file as here."""
    for name, text in scripts().items():
        (tmp_path / "scripts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scripts" / name).write_text(text)
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7, np.int16), np.eye(4)), tmp_path / "a.nii")
    asked = (
        "import sys, scripts.patients; from scripts.common.data.gate.files import load_volume; from pathlib import Path; "
        "print(load_volume(Path('a.nii')).voxels.sum(), sorted(n for n in sys.modules if n.split('.')[0] == 'common'))"
    )
    said = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {asked}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["448.0", "[]"]


def test_a_bundle_finds_what_training_finds(tmp_path: Path) -> None:
    """Contrast agent in other words, a session of several, a mask under derivatives, a row without `sub-`."""
    site = tmp_path / "site"
    for name in (
        *("sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_acq-postgd_T1w.nii.gz"),
        *("derivatives/seg/sub-1/anat/sub-1_desc-tumour_mask.nii.gz", "sub-1/anat/sub-1_desc-brain_mask.nii.gz"),
        *("sub-2/ses-preop/anat/sub-2_ses-preop_T1w.nii.gz", "sub-2/ses-postop/anat/sub-2_ses-postop_FLAIR.nii.gz"),
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"x")
    (site / "participants.tsv").write_text('"participant_id"\t"age"\n"1"\t54\n"2"\t61\n')
    settings = inference(CONFIG)
    found = find_patients(str(site), settings["patients"], settings["files"], table="participants.tsv")
    cases = read_site(site, replace(CONFIG, data=replace(CONFIG.data, covariates=())), simulated=True).cases
    assert [set(case.files) for case in cases] == [{"t1", "t1c"}, {"t1"}]
    for patient, case in zip(found, cases, strict=True):
        assert {key: patient[key] for key in patient.keys() - {"age"}} == {
            "id": case.id,
            **{kind: str(file) for kind, file in case.sources()},
        }
        assert float(patient["age"]) == case.age


def test_one_bad_patient_keeps_none_of_the_others_from_an_answer(tmp_path: Path, capsys) -> None:
    site, settings = made_up_site(tmp_path / "site", CONFIG.data), inference(CONFIG)
    bad = next(site.glob("sub-noise2/anat/*.nii.gz"))
    bad.write_bytes(bad.read_bytes()[:200])
    (site / "sub-noise4").mkdir()
    found = find_patients(str(site), settings["patients"], settings["files"])
    cut = cutter(CONFIG)

    network: Any = lambda images, present: torch.full((1, 2), 0.5)  # noqa: E731

    names = ("t1", "t1c", "adc")
    rows = [cut(patient) for patient in found]
    Evaluator(
        network, rows, lambda x, net, *o: net(x, *o), torch.device("cpu"), ("a", "b"), names, str(tmp_path / "o.json")
    ).run()
    answers = json.loads((tmp_path / "o.json").read_text())
    assert [(row["id"], "error" in row) for row in answers] == [
        *(("sub-noise1", False), ("sub-noise2", True), ("sub-noise3", False), ("sub-noise4", True))
    ]
    assert "breaks off" in answers[1]["error"]
    assert "2 of 4 patients" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        Evaluator(network, rows[1:2], None, torch.device("cpu"), ("a", "b"), names, str(tmp_path / "o.csv")).run()


def test_a_bundle_cuts_every_plane_and_field_of_view_as_training_did(tmp_path: Path) -> None:
    data = replace(CONFIG.data, axes=("coronal", "axial", "sagittal"), field_of_view=(60.0, 112.0))
    run = replace(CONFIG, data=data)
    site, settings = made_up_site(tmp_path, data), json.loads(json.dumps(inference(run)))
    found = find_patients(str(site), settings["patients"], settings["files"])
    cut = cutter(config_from_table(json.loads(run.to_json())))
    for patient, case in zip(found, read_site(site, run, simulated=True).cases, strict=True):
        seen, sliced = cut(patient), slice_case(case, data)
        assert seen["images"].shape == (12, 3, 32, 32)
        np.testing.assert_array_equal(seen["images"].numpy(), sliced.images)
        assert seen["slices"] == sliced.indices.tolist()
    assert seen["axes"] == ["coronal"] * 4 + ["axial"] * 4 + ["sagittal"] * 4
    assert seen["fields_of_view"] == [60.0, 60.0, 112.0, 112.0] * 3
    told = metadata(run, ABOUT)["network_data_format"]["inputs"]["image"]
    assert told["num_channels"] == 12
    assert told["channel_def"]["11"] == "sagittal slice 2 of 2, from the patient's left, 112 mm"
    plain = metadata(CONFIG, ABOUT)["network_data_format"]["inputs"]["image"]
    assert plain["channel_def"] == {"0": "axial slice 1 of 2, from below", "1": "axial slice 2 of 2, from below"}
    with pytest.raises(ValueError, match="oblique"):
        cutter(run, axes=["oblique"])
