"""`fedmri-site`: what its verbs print and how they exit."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.cli.main import main
from client.gate.audit_log import LOG_NAME
from client.gate.ledger_watch import note_grown
from client.privacy.ledger import append, read_ledger
from common.cli import config_path
from common.config.run import load_config
from common.config.site import read_site_config
from common.models.backbones.weights import SHIPPED_FILES, file_sha256
from common.privacy.charge import Charge


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "bonn" / "sub-[red]1" / "anat"
    folder.mkdir(parents=True)
    for kind in ("T1w", "FLAIR"):
        voxels = np.random.default_rng(len(kind)).uniform(50, 200, (9, 9, 4)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"sub-[red]1_{kind}.nii.gz")
    return tmp_path / "bonn"


def truncate(site: Path) -> None:
    file = next(site.glob("*/anat/*FLAIR.nii.gz"))
    file.write_bytes(file.read_bytes()[:100])


def test_a_good_site(site: Path, capsys) -> None:
    assert main(["check", str(site)]) == 0
    out = capsys.readouterr().out
    assert "Site bonn" in out
    assert "Usable: 1 of 1 patients. 0 errors" in out
    assert "every patient is unlabelled" in out


def test_a_bad_site_names_patient_and_file(site: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    truncate(site)
    assert main(["check", str(site)]) == 1
    captured = capsys.readouterr()
    assert "sub-[red]1" in captured.out
    assert "…" not in captured.out
    assert "1 error," in captured.out
    assert "Traceback" not in captured.out + captured.err


def test_json(site: Path, capsys) -> None:
    truncate(site)
    (site / "site.toml").write_text('name = "Bonn"')
    assert main(["check", str(site / "site.toml"), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["site"] == "Bonn"
    assert result["modalities"]["t1"] == 1
    assert [one["patient"] for one in result["findings"] if one["level"] == "error"] == ["sub-[red]1"]


def test_a_configuration_names_the_classes(site: Path, tmp_path: Path, capsys) -> None:
    (site / "participants.tsv").write_text("participant_id\twho\nsub-[red]1\tyes\n")
    config = tmp_path / "run.toml"
    config.write_text('[data]\nlabel = "who"\nclasses = ["yes", "no"]\n')
    assert main(["check", str(site), "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"yes": 1, "no": 0, "unlabelled": 0}


def test_an_unusable_site_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["check", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: Site")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["check", "/nowhere"], ["check", ".", "--config", "no-such-name"]])
def test_wrong_use(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_wrong_site_toml_is_wrong_use(site: Path, capsys) -> None:
    (site / "site.toml").write_text("patient = 3")
    assert main(["check", str(site)]) == 2
    assert "Unknown key 'patient'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check"], ["check", ".", "--jason"]])
def test_argparse_refuses_with_2(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_help_names_the_verb(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--help"])
    assert caught.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.slow
def test_the_budget_of_a_site(site: Path, capsys) -> None:
    (site / "site.toml").write_text("[privacy]\nepsilon = 8.0\n")
    plan = ["noise_multiplier=1.0146484375", "sample_rate=0.08", "steps=20", "rounds=20"]
    assert main(["budget", str(site), *(word for setting in plan for word in ("--set", setting)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["limit"], told["spent"], told["left"]) == (8.0, 0.0, 8.0)
    assert told["rounds_that_fit"] == 20  # 400 steps
    assert main(["budget", str(site)]) == 0
    assert "The planned run fits: 5 rounds." in capsys.readouterr().out
    assert main(["budget", str(site), "--set", "rounds=50"]) == 0
    assert "of the 50 planned rounds fit" in capsys.readouterr().out


def test_a_run_without_privacy_has_no_budget(site: Path, capsys) -> None:
    assert main(["budget", str(site), "--config", "demo"]) == 2
    assert "privacy.enabled" in capsys.readouterr().err


def test_a_damaged_ledger_is_one_line_on_the_terminal(site: Path, capsys) -> None:
    (site / "privacy-ledger.jsonl").write_text("{}\n")
    assert main(["budget", str(site)]) == 1
    error = capsys.readouterr().err
    assert "not as it was written" in error
    assert "Traceback" not in error


def test_a_ledger_that_has_lost_charges_is_not_shown_as_a_budget_that_is_left(site: Path, capsys) -> None:
    (site / "site.toml").write_text("[privacy]\nepsilon = 8.0\n")
    ledger, log = site / "privacy-ledger.jsonl", site / "state" / LOG_NAME
    append(ledger, read_ledger(ledger), Charge(1.0, 0.1, 10), (frozenset({"x"}),), "run")
    note_grown(log, read_ledger(ledger))
    ledger.unlink()
    for name in (site, site / "site.toml"):
        assert main(["budget", str(name)]) == 1
        assert "fedmri-site ledger accept" in " ".join(capsys.readouterr().err.split())


def test_pins_can_be_pasted(capsys, tmp_path: Path) -> None:
    assert main(["pins", "--config", "demo"]) == 0
    (tmp_path / "site.toml").write_text(capsys.readouterr().out)
    policy = read_site_config(tmp_path).policy
    assert policy.backbone_sha256 == file_sha256(SHIPPED_FILES[load_config(config_path("demo")).model.weights])
    assert policy.initial_sha256


def test_membership_needs_a_model_and_others(site: Path, capsys) -> None:
    assert main(["audit", "privacy", str(site), "--others", str(site)]) == 2
    assert "--model" in capsys.readouterr().err
