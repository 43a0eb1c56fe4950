"""`fedmri-site predict`: answers against `common.training.predict`, every subset of modalities, and all that can be wrong."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.cli.main import main
from common.config.modalities import DEFAULT_MODALITIES as MODALITIES
from common.config.modalities import MODALITIES as TABLE
from common.data.cases import UNLABELLED, Case
from common.data.dataset import SiteData
from common.data.slices import prepare_case
from common.evaluation.calibration.calibration import CALIBRATION_NAME, Scaling, load_calibration, save_calibration
from common.model_files.exported import merge_trained, save_exported
from common.model_files.open import open_saved, read_saved
from common.models.backbones.weights import SHIPPED
from common.training.predict import predict

SCALING = Scaling(2.0, (0.4, -0.6, 0.2))  # of the fixture `calibrated_run`
BRATS = {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}


def asked(capsys, *arguments) -> tuple[int, Any, str]:
    """Exit code, JSON, standard error."""
    code = main(["predict", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def volume(phantom: Path, modality: str) -> Path:
    return phantom / "anat" / f"sub-1_{TABLE[modality].suffix}.nii.gz"


def brats(phantom: Path, folder: Path, modalities=MODALITIES, mask=True) -> Path:
    folder.mkdir(parents=True)
    for m in modalities:
        shutil.copy(volume(phantom, m), folder / f"{folder.name}_{BRATS[m]}.nii.gz")
    if mask:
        shutil.copy(next((phantom / "anat").glob("*mask*")), folder / f"{folder.name}_seg.nii.gz")
    return folder


@cache
def opened_once(run: Path):
    return open_saved(read_saved(run))


def expected(run: Path, phantom: Path, modalities=MODALITIES, mask=True) -> np.ndarray:
    """Uncalibrated probabilities, by the function that evaluates runs."""
    opened = opened_once(run)
    found = next((phantom / "anat").glob("*mask*")) if mask else None
    case = Case("x", {m: volume(phantom, m) for m in modalities}, found, UNLABELLED, None, None, phantom)
    images, present, _ = prepare_case(case, opened.config.data)
    data = SiteData("x", ("x",), images[None], present[None], np.array([-1]), "")
    return predict(opened, data)[0]


@pytest.mark.slow
@pytest.mark.parametrize("mask", [True, False])
def test_every_subset_of_modalities_agrees_with_the_evaluation(run, phantom, tmp_path, capsys, mask):
    subsets = [chosen for size in range(1, 5) for chosen in combinations(MODALITIES, size)]
    for chosen in subsets:
        brats(phantom, tmp_path / "all" / "+".join(chosen), chosen, mask)
    code, tables, _ = asked(capsys, tmp_path / "all", "--model", run)
    assert code == 0
    assert len(tables) == 15
    for table in tables:
        chosen = table["patient"].split("+")
        assert table["modalities"] == {"used": chosen, "ignored": [], "missing": [m for m in MODALITIES if m not in chosen]}
        assert list(table["probabilities"].values()) == pytest.approx(expected(run, phantom, chosen, mask), abs=1e-6)
        assert table["slices"]["through"] == ("tumour" if mask else "brain")


def test_one_patient_with_all_evidence(calibrated_run, phantom, capsys):
    code, table, _ = asked(capsys, phantom, "--model", calibrated_run / "model.safetensors")
    assert code == 0
    raw = expected(calibrated_run, phantom)
    calibrated = SCALING.apply(raw[None])[0]
    assert list(table["probabilities"].values()) == pytest.approx(calibrated, abs=1e-6)
    inside = (1 - calibrated <= 0.7) | (calibrated == calibrated.max())
    assert table["prediction_set"] == [c for c, here in zip(table["probabilities"], inside, strict=True) if here]
    assert (table["calibrated"], table["coverage"]) == (True, 0.9)
    assert 0 < table["ood"]["score"] < 50
    assert table["ood"]["flagged"] is False
    winning = int(calibrated.argmax())
    for m, drop in table["evidence"]["modalities"].items():
        without = SCALING.apply(expected(calibrated_run, phantom, [n for n in MODALITIES if n != m])[None])[0]
        assert drop == pytest.approx(calibrated[winning] - without[winning], abs=1e-6)
    place = table["evidence"]["place"]
    strongest = [one["logit"] for one in place["strongest"]]
    first = place["strongest"][0]
    assert first["slice"] in table["slices"]["numbers"]
    assert all(
        1 <= one[key] <= size for one in place["strongest"] for key, size in zip(("row", "column"), place["patches"], strict=True)
    )
    assert strongest == sorted(strongest, reverse=True)
    assert set(place["logit_by_slice"]) == set(MODALITIES)


def test_the_card_of_one_patient_goes_into_a_folder_as_well(run, phantom, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for place in (tmp_path / "there", tmp_path / "new"):
        assert main(["predict", str(phantom), "--model", str(run), "--evidence", "none", "--card", str(place)]) == 0
        assert [file.name for file in place.iterdir()] == [f"{phantom.name}.html"]
    capsys.readouterr()


def test_without_a_calibration_it_says_so(run, phantom, capsys):
    assert main(["predict", str(phantom), "--model", str(run), "--evidence", "none"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not calibrated" in out
    assert "Not known whether the patient is like the training patients" in out
    assert "Not a medical device" in out
    assert "By place" not in out


def test_without_a_mask_no_tumour_is_guessed(run, phantom, tmp_path, capsys):
    code, table, _ = asked(capsys, brats(phantom, tmp_path / "p", ("flair",), mask=False), "--model", run)
    assert code == 0
    assert "no mask, and none was proposed" in table["slices"]["why"]
    assert table["evidence"]["modalities"] == {}  # of one modality none can be left out


def test_files_by_name_and_a_modality_that_the_model_does_not_know(model_of, phantom, capsys):
    run = model_of(data={"modalities": ["t1", "flair"]})
    files = [f"{BRATS[m]}={volume(phantom, m)}" for m in ("flair", "t2", "t1")]
    code, table, _ = asked(capsys, "--model", run, "--evidence", "modalities", "--files", *files)
    assert code == 0
    assert table["modalities"] == {"used": ["t1", "flair"], "ignored": ["t2"], "missing": []}
    code, _, error = asked(capsys, "--model", run, "--files", f"t2={volume(phantom, 't2')}")
    assert code == 1
    assert "none of t1, flair" in error


def test_a_calibration_of_another_version_is_named(calibrated_run, phantom, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(calibrated_run, run)
    calibration, sums = load_calibration(run / CALIBRATION_NAME)
    save_calibration(run / CALIBRATION_NAME, calibration, sums | {"ood.count": np.zeros(10, np.float32)})
    code, _, error = asked(capsys, phantom, "--model", run)
    assert code == 1
    assert "another version of FedMRI (Array ood.count: expected float32 (14,), got float32 (10,).)" in " ".join(error.split())
    (run / CALIBRATION_NAME).unlink()
    assert asked(capsys, phantom, "--model", run)[0] == 0


def test_cards_of_patients_with_like_names_lie_side_by_side(calibrated_run, phantom, tmp_path, capsys):
    site = tmp_path / "site"
    for name in ("sub-1 a", "sub-1_a"):
        shutil.copytree(phantom, site / name)
    code, _, _ = asked(capsys, site, "--model", calibrated_run, "--card", tmp_path / "cards")
    assert code == 0
    plain, spaced = sorted((p.name for p in (tmp_path / "cards").iterdir()), key=len)
    assert plain == "sub-1_a.html"
    assert re.fullmatch(r"sub-1_a-[0-9a-f]{8}\.html", spaced)


def test_a_broken_patient_is_named_and_the_others_go_on(calibrated_run, phantom, tmp_path, capsys):
    site = tmp_path / "site"
    for name in ("sub-1", "sub-2", "sub-3"):
        shutil.copytree(phantom, site / name)
    broken = next((site / "sub-2" / "anat").glob("*FLAIR*"))
    broken.write_bytes(broken.read_bytes()[:1000])
    for file in (site / "sub-3" / "anat").glob("*w.nii.gz"):
        file.unlink()
    (site / "sub-3" / "anat" / "sub-1_FLAIR.nii.gz").unlink()
    code, tables, error = asked(capsys, site, "--model", calibrated_run, "--card", tmp_path / "cards")
    assert code == 1
    assert [table["patient"] for table in tables] == ["sub-1", "sub-3", "sub-2"]
    assert "truncated or damaged" in tables[2]["error"]
    assert "no modality" in tables[1]["error"]
    assert "No answer for sub-2" in error
    assert [p.name for p in (tmp_path / "cards").iterdir()] == ["sub-1.html"]
    assert tables[0]["evidence"] is None
    assert main(["predict", str(site), "--model", str(calibrated_run)]) == 1
    assert "sub-1" in capsys.readouterr().out


def test_a_site_toml_names_the_files(run, phantom, tmp_path, capsys):
    patient = tmp_path / "site" / "mri" / "p1"
    patient.mkdir(parents=True)
    shutil.copy(volume(phantom, "t2"), patient / "brain.nii.gz")
    (tmp_path / "site" / "site.toml").write_text('data = "mri"\npatients = "p*"\n[files]\nt2 = "brain.nii.gz"\n')
    for path, single in ((patient, True), (tmp_path / "site", False), (tmp_path / "site" / "site.toml", False)):
        code, found, _ = asked(capsys, path, "--model", run)
        assert code == 0
        assert (found if single else found[0])["modalities"]["used"] == ["t2"]


def test_an_exported_model_answers_as_the_run_does(calibrated_run, phantom, tmp_path, capsys):
    opened = open_saved(read_saved(calibrated_run))
    plain, untouched = merge_trained(open_saved(read_saved(calibrated_run)).model, opened.arrays)
    save_exported(tmp_path / "one.safetensors", plain, untouched, opened.config, (opened.calibration, opened.reference))
    tables = [
        asked(capsys, phantom, "--model", m, "--evidence", "none")[1] for m in (calibrated_run, tmp_path / "one.safetensors")
    ]
    assert tables[1]["probabilities"] == pytest.approx(tables[0]["probabilities"], abs=1e-4)
    assert tables[1]["ood"]["score"] == pytest.approx(tables[0]["ood"]["score"], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda run, phantom: [phantom, "--model", run.parent / "nowhere"], 2, "no such file"),
        (lambda run, phantom: [phantom, "--model", phantom], 2, "has it finished"),
        (lambda run, phantom: [phantom, "--model", volume(phantom, "t1")], 1, "not a readable safetensors"),
        (lambda run, phantom: [phantom, "--model", run, "--weights", phantom / "no.pth"], 1, "--weights FILE"),
        (lambda run, phantom: [phantom / "nobody", "--model", run], 2, "no such file"),
        (lambda run, phantom: [phantom.parent.parent / "empty", "--model", run], 1, "no modality of a patient"),
        (lambda run, phantom: [volume(phantom, "t1"), "--model", run], 2, "--files"),
        (lambda run, phantom: ["--model", run], 2, "name a patient"),
        (lambda run, phantom: [phantom, "--model", run, "--files", "t1=x"], 2, "not both"),
        (lambda run, phantom: ["--model", run, "--files", f"pet={volume(phantom, 't1')}"], 2, "KIND one of"),
        (lambda run, phantom: ["--model", run, "--files", "t1=nowhere.nii"], 2, "no such file"),
    ],
)
def test_what_is_wrong_is_said(run, phantom, capsys, change, code, says):
    (phantom.parent.parent / "empty").mkdir(exist_ok=True)
    got, _, error = asked(capsys, *change(run, phantom))
    assert (got, says in error) == (code, True), error
    assert "Traceback" not in error


def test_other_weights_are_refused(model_of, run, phantom, capsys):
    other = model_of(model={"weights": "random"})
    shipped = SHIPPED
    code, _, error = asked(capsys, phantom, "--model", other, "--weights", shipped)
    assert code == 1
    assert "was trained on weights with SHA-256" in error
    assert asked(capsys, phantom, "--model", run, "--weights", shipped, "--evidence", "none")[0] == 0


def test_the_command_itself_needs_no_torch():
    names = "client.cli.main, client.predict.inputs, client.predict.prefetch, common.model_files.open"
    code = f"import sys, {names}; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout == "False\n"


def test_json_has_what_was_found_about_names(run, phantom, tmp_path, capsys):
    folder = brats(phantom, tmp_path / "patient")  # *_seg: its name does not say that it is the tumour's
    for image in folder.glob("*"):
        image.rename(folder / image.name.replace("patient_", "sub-1_"))
    (folder / "sub-1_seg.nii.gz").rename(folder / "sub-1_dseg.nii.gz")
    code, table, _ = asked(capsys, folder, "--model", run, "--evidence", "none")
    assert code == 0
    assert "mask-by-name" in [finding["code"] for finding in table["findings"]]


def test_the_model_of_a_run_that_has_not_finished_is_said_to_be_one(model_of, phantom, tmp_path, capsys):
    run = model_of()
    (run / "status.json").write_text('{"state": "failed", "round": 2, "rounds": 5}')
    code, table, said = asked(capsys, phantom, "--model", run, "--evidence", "none", "--card", tmp_path / "card.html")
    assert code == 0
    assert "Warning" in said
    assert "round 2 of 5" in said
    assert "round 2 of 5" in table["unfinished"]
    assert "round 2 of 5" in (tmp_path / "card.html").read_text()
    (run / "report.json").write_text("{}")
    code, table, said = asked(capsys, phantom, "--model", run, "--evidence", "none")
    assert (code, table["unfinished"], said) == (0, None, "")
