"""`fedmri-site import` from a CD to a checked site folder."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from client.cli.main import main
from client.data.registration import Registration
from client.data.volume import Volume, load_nifti, save_nifti
from tests.bids_validator import bids_issues
from tests.client.data.conftest import CONTRAST, head, oblique

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(patient_source: Path, tmp_path_factory) -> Path:
    """Planned, and imported with labels and a mask drawn on the FLAIR; the folder that holds all of it."""
    home = tmp_path_factory.mktemp("home")
    affine = oblique((2.5, 2.5, 3.0))
    lesion = (head(affine, (56, 60, 40), CONTRAST["flair"]) == 1100).astype(np.float32)
    save_nifti(Volume(lesion, affine), home / "mask.nii.gz", np.uint8)
    (home / "masks.csv").write_text("patient_id,file,modality\nP-0001,mask.nii.gz,flair\n")
    (home / "labels.csv").write_text("patient_id;subtype;surname\nP-0001;idh-wildtype;Phantom\n")
    assert main(["import", str(patient_source), "--plan", str(home / "plan.tsv")]) == 0
    tables = ["--masks", str(home / "masks.csv"), "--labels", str(home / "labels.csv"), "--columns", "subtype"]
    assert go(patient_source, home, "--age", "--sex", *tables) == 0
    return home


def go(source: Path, home: Path, *options: str) -> int:
    return main(
        [
            "import",
            str(source),
            "--plan",
            str(home / "plan.tsv"),
            "--go",
            "--out",
            str(home / "site"),
            "--brain",
            "none",
            *options,
        ]
    )


def patient(home: Path) -> Path:
    (folder,) = (home / "site").glob("sub-*")
    return folder


def test_all_four_modalities_on_the_contrast_t1s_grid(done: Path) -> None:
    anat = patient(done) / "anat"
    truth = oblique((2.4, 2.4, 3.2), degrees=9.0)
    volumes = {
        kind: load_nifti(next(anat.glob(f"*{end}.nii.gz")))
        for kind, end in {"t1c": "ce-gadolinium_T1w", "t2": "_T2w", "flair": "FLAIR"}.items()
    }
    t1c = head(truth, (56, 60, 40), CONTRAST["t1c"])
    found = volumes["t1c"]
    flipped = t1c if np.allclose(found.affine, truth, atol=1e-3) else t1c[:, :, ::-1]
    np.testing.assert_array_equal(found.voxels, flipped)  # the reference's own voxels are not touched
    for kind in ("t2", "flair"):
        assert np.allclose(volumes[kind].affine, found.affine)
        expected = head(found.affine, (56, 60, 40), CONTRAST[kind])
        # hard edges: exact registration gives 0.948 and 0.950, one millimetre off 0.942 and 0.944
        assert np.corrcoef(volumes[kind].voxels.ravel(), expected.ravel())[0, 1] > 0.945


def test_the_mask_moves_with_the_modality_it_was_drawn_on(done: Path) -> None:
    (file,) = (done / "site").rglob("*mask.nii.gz")
    mask = load_nifti(file)
    lesion = head(mask.affine, (56, 60, 40), CONTRAST["flair"]) == 1100
    overlap = 2 * (lesion & (mask.voxels > 0)).sum() / (lesion.sum() + (mask.voxels > 0).sum())
    assert overlap > 0.85


def test_nothing_identifying_is_in_the_site_folder(done: Path) -> None:
    name = patient(done).name
    for path in (done / "site").rglob("*"):
        if path.is_file():
            content = path.read_bytes() if path.suffix != ".gz" else bytes(load_header(path))
            for word in (b"Phantom", b"P-0001", b"1970", b"20240301", b"A1\n", b"2.25."):
                assert word not in content, path
    assert re.fullmatch("sub-[0-9a-f]{12}", name)
    (row,) = csv.DictReader((done / "site" / "participants.tsv").open(), delimiter="\t")
    assert row == {"participant_id": name, "age": "54", "sex": "F", "subtype": "idh-wildtype"}
    kept = json.loads(next(patient(done).glob("anat/*_T2w.json")).read_text())
    assert kept["EchoTime"] == 0.095


def test_the_bids_validator_takes_what_is_written(done: Path) -> None:
    assert [issue for issue in bids_issues(done / "site") if issue["severity"] == "error"] == []


def load_header(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes())[:352]


def test_what_became_of_every_file(done: Path, patient_source: Path, log_lines) -> None:
    rows = log_lines(done / "state" / "import.tsv")
    inputs = {str(path.relative_to(patient_source)) for path in patient_source.rglob("*") if path.is_file()}
    assert set(rows) == inputs | {str(done / "mask.nii.gz")}
    assert rows["README.TXT"][3:] == ["left out", "no DICOM file"]
    assert sum(row[3] == "used" for row in rows.values()) == 4 * 40 + 1


def test_a_second_run_adds_nothing(done: Path, patient_source: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / "site").rglob("*")}
    assert go(patient_source, done) == 0
    assert {path: path.stat().st_mtime_ns for path in (done / "site").rglob("*")} == before
    assert "There already: 1." in capsys.readouterr().out


def test_an_interrupted_import_goes_on(done: Path, patient_source: Path, tmp_path: Path, monkeypatch) -> None:
    """Stopped after the first files of the patient: nothing half-written counts, and the next run is whole.

    Nothing is asked of the registration, which takes most of an import: images stay where they are.
    """
    still = Registration(np.eye(4), information=(0.0, 1.0), inconsistency=0.0, overlap=1.0, shift=0.0, turn=0.0)
    monkeypatch.setattr("client.data.patient.register", lambda *_: still)
    for name in ("plan.tsv", "keys"):
        (shutil.copytree if (done / name).is_dir() else shutil.copy)(done / name, tmp_path / name)
    count = iter(range(99))

    def interrupted(*arguments):
        if next(count) == 2:
            raise KeyboardInterrupt
        save_nifti(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("client.data.site_folder.save_nifti", interrupted)
        assert go(patient_source, tmp_path) == 130
    assert not list((tmp_path / "site").glob("sub-*"))
    assert go(patient_source, tmp_path) == 0
    assert {p.name for p in patient(tmp_path).glob("anat/*")} == {p.name for p in patient(done).glob("anat/*")}
    assert not list((tmp_path / "site").glob(".importing*"))


def test_a_plan_that_was_edited_wrongly_is_one_line(done: Path, patient_source: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(done / "keys", tmp_path / "keys")
    (tmp_path / "plan.tsv").write_text((done / "plan.tsv").read_text().replace("\nyes\t", "\nja\t", 1))
    assert go(patient_source, tmp_path) == 1
    assert "plan.tsv: line 2: use: expected yes or no, got 'ja'" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--plan plan.tsv"),
        (["--go", "--plan", "plan.tsv"], "--out SITE"),
        (["--go", "--plan", "absent.tsv", "--out", "site"], "no such plan"),
        (["--plan", "p.tsv", "--go", "--out", "s", "--brain", "scissors"], "--brain scissors: not found on this machine"),
        (["--preset", "nothing"], "Known: brats2021"),
        (["--preset", "egd"], "--out SITE"),
    ],
)
def test_wrong_use(arguments: list[str], said: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["import", "source", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_nothing_to_import(tmp_path: Path, capsys) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("x")
    assert main(["import", str(tmp_path / "source"), "--plan", str(tmp_path / "plan.tsv")]) == 1
    assert "no DICOM file in it" in capsys.readouterr().err


def test_presets_are_listed(tmp_path: Path, capsys) -> None:
    assert main(["import", str(tmp_path), "--preset", "list"]) == 0
    assert "ucsf-pdgm: UCSF-PDGM" in capsys.readouterr().out
