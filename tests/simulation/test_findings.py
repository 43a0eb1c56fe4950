"""Runs of findings, whole: through Flower with a site without labels, in turn, reported, and asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.cli.main import main as site_main
from common.config.run import RunConfig, config_from_table
from common.errors import DataError, FedMRIError
from common.evaluation.findings import baseline_entries, external_entry, labels_of, subset_entries
from common.metrics.findings import evaluate
from common.tasks.findings import Findings
from server.report.compare_runs import compare_runs
from server.report.publish import render_run
from server.report.report import decode, read_report
from server.report.terminal import result_table
from server.run.federate import headline_figures
from simulation.cli import main
from simulation.cross_site import pool_folds
from simulation.phantom.findings import FINDINGS
from simulation.phantom.hospitals import write_hospitals
from tests.common.tasks.test_findings import TABLE

CONFIG = """
seed = 3
[data]
size = 32
slices = 2
[task]
name = "findings"
findings = ["idh_mutant", "enhancing"]
[model]
backbone = "fedmri_vit_mini"
weights = "random"
rank = 2
head = "linear"
head_hidden = 0
prototypes = 4
[objective]
local_crops = 0
[objective.terms]
findings.weight = 1.0
classification.weight = 0.0
dino.weight = 0.1
[training]
batch_size = 4
[federation]
rounds = 1
min_sites = 2
unlabelled_weight = 0.5
round_retries = 0
[evaluation]
every = 0
bootstrap = 20
modality_subsets = true
"""
NAMES = ("idh_mutant", "enhancing")


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hospitals of one patient, the last without labels, and the external one."""
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=3, patients=1, external=3, seed=2, findings=True)
    rows = ["sub-0001\t44\tF\tx\tyes\tno\tyes", "sub-0002\tn/a\tM\tx\tno\tno\tno", "sub-0003\t50\tM\tx\tn/a\tno\tno"]
    heading = "\t".join(("participant_id", "age", "sex", "subtype", *FINDINGS))
    (folder / "external" / "participants.tsv").write_text("\n".join([heading, *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with its configuration and cache beside it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(CONFIG)
    assert main(["run", *options_of(hospitals, folder), "--out", str(folder / "run")]) == 0
    return folder / "run"


def options_of(hospitals: Path, folder: Path) -> list[str]:
    options = ["--config", str(folder / "tiny.toml"), "--data", str(hospitals), "--cache", str(folder / "cache")]
    return [*options, "--external", "external"]


@pytest.mark.slow
def test_a_whole_run_through_flower(finished: Path) -> None:
    report = read_report(finished)
    entry = report["external"]["findings"]
    assert (entry["n"], entry["unknown"]) == (3, 0)
    assert {name: (one["n"], one["positive"]) for name, one in entry["by_finding"].items()} == {
        "idh_mutant": (2, 1),
        "enhancing": (3, 1),
    }
    said = np.array([one["probabilities"] for one in report["patients"]])
    assert entry["by_finding"]["enhancing"]["auroc"]["value"] == roc_auc_score([1, 0, 0], said[:, 1])
    assert report["patients"][2]["findings"] == {"idh_mutant": None, "enhancing": False}
    assert report["baselines"].keys() == {"pooled", "local"}
    assert report["baselines"]["local"].keys() <= {"hospital-a", "hospital-b"}  # the third has nothing to learn them from
    full = report["modality_subsets"]["t1+t1c+t2+flair"]
    assert full["drop"]["value"] == 0
    assert full["findings"]["mean"] == entry["mean"]
    line = json.loads((finished / "rounds.jsonl").read_text().splitlines()[0])
    weights = {site: part["weight"] for site, part in line["influence"].items()}
    assert weights == pytest.approx({"hospital-a": 0.4, "hospital-b": 0.4, "hospital-c": 0.2})  # it has no label
    page = render_run(finished, report)
    assert 'id="findings"' in page
    assert "Left out" in page
    assert 'id="compared"' not in page  # of classes


@pytest.mark.slow
def test_a_hospital_is_told_what_the_report_told(
    hospitals: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = read_report(finished)
    asked = ["predict", str(hospitals / "external"), "--model", str(finished)]
    assert site_main([*asked, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    for table, one in zip(tables, report["patients"], strict=True):
        assert list(table["probabilities"]) == list(NAMES)
        assert list(table["probabilities"].values()) == pytest.approx(one["probabilities"], abs=1e-5)
        assert table["told"] == [name for name, p in table["probabilities"].items() if p > 0.5]
        assert table["calibrated"] is False
    assert site_main(asked) == 0
    shown = capsys.readouterr().out
    assert "not calibrated yet" in shown
    assert all(name in shown for name in ("idh_mutant", "sub-0003"))
    assert site_main([*asked, "--card", str(tmp_path / "x")]) != 0
    assert "tells several findings, and predicts no class" in capsys.readouterr().err


def report_of(config: RunConfig, known: dict[str, tuple[bool | None, bool | None]], seed: int = 0) -> dict[str, Any]:
    assert isinstance(config.task, Findings)
    said = np.random.default_rng(seed).uniform(0, 1, (len(known), 2))
    patients = [
        {"id": name, "label": None, "findings": dict(zip(config.task.findings, row, strict=True))}
        | {"probabilities": p.tolist(), "modalities": ["t1"]}
        for (name, row), p in zip(known.items(), said, strict=True)
    ]
    return {
        "external": external_entry(labels_of(patients, config), said, config),
        "patients": patients,
        "provenance": {"config": json.loads(config.to_json()), "external": "x"},
        "baselines": {},
        "modality_subsets": {},
        "rounds": [],
        "privacy": {},
        "calibration": None,
    }


def test_folds_are_pooled_over_all_patients(tmp_path: Path) -> None:
    config = config_from_table(TABLE)
    north = {"a": (True, None), "b": (False, True), "c": (None, None)}
    south = {"a": (False, False), "b": (True, True)}
    folds = []
    for number, (name, known) in enumerate((("north", north), ("south", south))):
        run = tmp_path / f"external-{name}"
        run.mkdir()
        report = report_of(config, known, seed=number)
        table = {"pooled": {one["id"]: one["probabilities"] for one in report["patients"]}}
        only = {name: {one["id"]: [0.5, 0.5] for one in report["patients"]}} if name == "south" else {}
        (run / "baselines.json").write_text(json.dumps(table | only))
        folds.append((run, report))
    pooled = pool_folds(tmp_path, folds)
    said = np.array([one["probabilities"] for one in pooled["patients"]])
    found = pooled["external"]["findings"]
    assert (found["n"], found["unknown"]) == (4, 1)
    expected = roc_auc_score([1, 0, 0, 1], said[[0, 1, 3, 4], 0]), roc_auc_score([1, 0, 1], said[[1, 3, 4], 1])
    assert [found["by_finding"][name]["auroc"]["value"] for name in ("edema", "effusion")] == pytest.approx(expected)
    assert found["mean"]["auroc"]["value"] == pytest.approx(np.mean(expected))
    assert pooled["baselines"]["pooled"]["difference"]["value"] == 0
    assert pooled["baselines"]["local"]["south"]["findings"]["n"] == 2  # north's patients were not asked
    page = (tmp_path / "report.html").read_text()
    assert f"mean AUROC of {np.mean(expected):.2f} over 2 findings" in page
    assert "Of 1 patient no finding is known" in page
    assert result_table(decode(pooled)).row_count == 5
    assert headline_figures(pooled["external"]) == {"auroc": found["mean"]["auroc"]["value"]}
    with pytest.raises(FedMRIError, match="not compared side by side"):
        compare_runs([tmp_path, tmp_path])
    nobody = [(run, report_of(config, {"a": (None, None)})) for run, _ in folds]
    with pytest.raises(DataError, match="No finding is known of any patient"):
        pool_folds(tmp_path, nobody)


def test_baselines_and_subsets_are_paired_by_patient() -> None:
    config = config_from_table(TABLE)
    report = report_of(config, {str(n): (n % 2 == 0, n % 3 == 0) for n in range(12)})
    labels, p = labels_of(report["patients"], config), np.array([one["probabilities"] for one in report["patients"]])
    other = p[:, ::-1].copy()
    other[:4] = np.nan
    entry = baseline_entries(labels, p, {"pooled": p, "x": other}, config)
    assert entry["pooled"]["findings"] == {
        k: v for k, v in report["external"]["findings"].items() if k not in ("unknown", "left_out")
    }
    assert entry["local"]["x"]["findings"]["n"] == 8

    def auroc(said: np.ndarray) -> float:
        found = evaluate(labels[4:], said[4:], NAMES, threshold=0.5, bootstrap=0, generator=np.random.default_rng(0))
        return float(found["mean"]["auroc"]["value"])

    assert entry["local"]["x"]["difference"]["value"] == pytest.approx(auroc(p) - auroc(other))
    subsets = subset_entries(labels, p, {"t1": p, "t2": np.full_like(p, np.nan)}, config)
    assert list(subsets) == ["t1"]


def test_phantoms_have_findings_on_request(hospitals: Path) -> None:
    (row,) = [line.split("\t") for line in (hospitals / "hospital-a" / "participants.tsv").read_text().splitlines()[1:]]
    assert set(row[4:]) <= {"yes", "no", "n/a"}
    assert row[4] in ("n/a", "no" if row[3] == "idh-wildtype" else "yes")
    assert row[5] in ("n/a", "yes" if row[3] == "oligodendroglioma" else "no")
    (bare,) = [line.split("\t") for line in (hospitals / "hospital-c" / "participants.tsv").read_text().splitlines()[1:]]
    assert bare[3:] == ["n/a"] * 4
