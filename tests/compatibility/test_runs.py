"""Run folders of 2a60dec: their models say what they said, their reports are rendered and compared; a cut-off one is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from common.model_files.open import open_saved, read_saved
from simulation.cli import main as sim_main
from tests.compatibility.conftest import CHECKOUT, OLD, Asked, told

WEIGHTS = CHECKOUT / "common" / "models" / "weights" / "fedmri_vit_mini.safetensors"


def probabilities(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["patient"]: pytest.approx(one["probabilities"], abs=1e-6) for one in answers}


def plain(answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["patient"]: one["probabilities"] for one in answers}


def test_the_model_says_of_every_patient_what_it_said(asked: Asked) -> None:
    words = ("predict", OLD / "external", "--model", OLD / "run", "--evidence", "modalities")
    answers, before = asked("fedmri-site", *words), told("run-predictions.json")
    assert plain(answers) == probabilities(before)
    for now, then in zip(answers, before, strict=True):
        assert now["prediction_set"] == then["prediction_set"]
        assert now["slices"]["numbers"] == then["slices"]["numbers"]
        assert now["modalities"] == then["modalities"]
        assert now["evidence"]["modalities"] == pytest.approx(then["evidence"]["modalities"], abs=1e-6)


def test_the_report_of_then_holds_the_same_probabilities(asked: Asked) -> None:
    answers = asked("fedmri-site", "predict", OLD / "external", "--model", OLD / "run")
    report = json.loads((OLD / "run" / "report.json").read_text())
    classes = report["provenance"]["config"]["data"]["classes"]
    before = {p["id"].rpartition("/")[2]: dict(zip(classes, p["probabilities"], strict=True)) for p in report["patients"]}
    assert plain(answers) == {patient: pytest.approx(values, abs=1e-6) for patient, values in before.items()}


def test_a_checkpoint_is_a_model_that_opens(asked: Asked, tmp_path: Path) -> None:
    last = sorted((OLD / "run" / "checkpoints").glob("round-*.safetensors"))[-1]
    shutil.copy(last, tmp_path / "model.safetensors")  # beside no calibration
    answers = asked("fedmri-site", "predict", OLD / "external", "--model", tmp_path / "model.safetensors")
    assert [one["calibrated"] for one in answers] == [False] * len(answers)
    assert load_file(last).keys() == load_file(OLD / "run" / "model.safetensors").keys()
    raw = {one["patient"]: max(one["probabilities"], key=one["probabilities"].__getitem__) for one in answers}
    assert raw == {one["patient"]: one["prediction"] for one in told("run-predictions.json")}


@pytest.mark.parametrize("run", ["run", "private-run"])
def test_its_arrays_are_read_as_they_were_written(run: str) -> None:
    opened = open_saved(read_saved(OLD / run), str(WEIGHTS))
    written = load_file(OLD / run / "model.safetensors")
    assert opened.arrays.keys() == written.keys()
    assert all((opened.arrays[name] == written[name]).all() for name in written)


@pytest.mark.parametrize("run", ["run", "private-run"])
def test_its_page_is_rendered(run: str, old: Callable[[str], Path], asked: Asked) -> None:
    folder = old(run)
    before = json.loads((folder / "report.json").read_text())
    assert asked("fedmri-server", "report", folder) == before
    page = (folder / "report.html").read_text()
    assert f"{before['external']['mcc']['value']:.2f}" in page
    assert all(site in page for line in before["rounds"] for site in line["sites"])


def test_two_of_them_are_compared(old: Callable[[str], Path], asked: Asked) -> None:
    first, second = old("run"), old("private-run")
    asked("fedmri-server", "report", first, second)
    assert (first / "comparison.html").is_file()


def test_a_hospitals_audit_is_put_into_the_report(old: Callable[[str], Path], asked: Asked) -> None:
    run = old("private-run")
    asked("fedmri-server", "audit", run, "hospital-a", OLD / "privacy-audit.json")
    audit = json.loads((run / "report.json").read_text())["privacy"]["hospital-a"]["audit"]
    assert audit["passed"] is True


@pytest.mark.slow
def test_a_cut_off_run_is_not_gone_on_with_by_other_code(
    old: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = old("cut-off"), tmp_path / "data"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for site in ("hospital-a", "hospital-b", "external"):
        shutil.copytree(OLD / "external", data / site, ignore=shutil.ignore_patterns("site.toml"))
    words = ["--data", data, "--external", "external", "--out", run, "--cache", tmp_path / "cache"]
    words += ["--set", "twins.with_external=keep", "--set", "twins.between_sites=keep"]  # three copies of one folder
    assert sim_main(["run", "--config", str(OLD / "cut-off.toml"), "--resume", *map(str, words)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot be resumed: it was begun by other code" in said
    assert "Install the version that began it, or start a new run." in said
    assert "Traceback" not in said
    assert all(path.read_bytes() == content for path, content in before.items() if path.name in ("run.json", "rounds.jsonl"))
