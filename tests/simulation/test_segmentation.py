"""Runs that segment, whole: through Flower with a site without masks, in secure rounds, in turn, and beside MONAI's U-Net."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.run import RunConfig, config_from_table, load_config
from common.errors import FedMRIError
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from server.report.compare_runs import compare_runs
from server.report.publish import render_run
from server.report.report import decode, read_report
from server.report.terminal import result_table
from simulation.cli import main
from simulation.cross_site import pool_folds
from simulation.in_process import rounds
from simulation.phantom.hospitals import write_hospitals
from simulation.segmentation import baseline_entries, measured_of
from tests.common.config.test_segmentation import TABLE
from tests.common.training.test_segmentation_rounds import TERMS, config_of, site_of

CONFIG = """
seed = 3
[data]
size = 32
slices = 2
field_of_view = 160.0
through = "brain"
shift = 8.0
[task]
name = "segmentation"
decoder = { name = "unet", width = 8 }
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
segmentation.weight = 1.0
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
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hospitals of one patient, the last without a mask, and the external one."""
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=3, patients=1, external=2, seed=2)
    for mask in (folder / "hospital-c").rglob("*mask.nii.gz"):
        mask.unlink()
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
    entry = report["external"]["segmentation"]
    assert (entry["n"], entry["undrawn"]) == (2, 0)
    assert 0 <= entry["dice"]["value"] <= 1
    assert [one["segmentation"]["drawn_ml"] > 0 for one in report["patients"]] == [True, True]
    assert report["baselines"].keys() == {"pooled", "monai_unet", "local"}
    assert report["baselines"]["local"].keys() == {"hospital-a", "hospital-b"}  # the third has nothing to learn a tumour from
    line = json.loads((finished / "rounds.jsonl").read_text().splitlines()[0])
    weights = {site: part["weight"] for site, part in line["influence"].items()}
    assert weights == pytest.approx({"hospital-a": 0.4, "hospital-b": 0.4, "hospital-c": 0.2})  # it has no mask
    start = get_arrays(build_model(load_config(finished.parent / "tiny.toml")))
    trained, _ = load_arrays(finished / "model.safetensors")
    assert trained.keys() == start.keys()
    assert any(not np.array_equal(trained[name], start[name]) for name in start if name.startswith("decoder."))
    page = render_run(finished, report)
    assert "mean Dice" in page
    assert "Left out" in page
    assert "MONAI&#39;s U-Net" in page
    assert 'id="compared"' not in page  # of classes


@pytest.mark.slow
def test_masked_sums_are_the_same_average(hospitals: Path, finished: Path, tmp_path: Path) -> None:
    """A secure run ends where the plain one does, to the rounding of its integers."""
    settings = ("secure.enabled=true", "evaluation.baselines=false")
    extra = [word for setting in settings for word in ("--set", setting)]
    assert main(["run", *options_of(hospitals, finished.parent), "--out", str(tmp_path / "secure"), *extra]) == 0
    plain, secure = (load_arrays(run / "model.safetensors")[0] for run in (finished, tmp_path / "secure"))
    for name, array in plain.items():
        np.testing.assert_allclose(secure[name], array, atol=1e-4)


def report_of(config: RunConfig, dice: dict[str, float]) -> dict[str, Any]:
    def row(value: float) -> dict[str, float]:
        return {"dice": value, "jaccard": value / (2 - value), "hd95_mm": 3.0, "drawn_ml": 5.0, "proposed_ml": 4.0}

    nothing: dict[str, Any] = {"label": None, "probabilities": [], "prediction_set": None, "ood": None}
    patients = [{"id": name, **nothing, "modalities": ["t1"], "segmentation": row(value)} for name, value in dice.items()]
    external = {"segmentation": {"n": len(dice), "dice": {"value": 0.5}, "left_out": ["offsets"]}}
    provenance = {"config": json.loads(config.to_json()), "external": "x"}
    return {
        "external": external,
        "patients": patients,
        "provenance": provenance,
        "baselines": {},
        "modality_subsets": {},
        "rounds": [],
        "privacy": {},
        "calibration": None,
    }


def test_folds_are_pooled_over_all_patients(tmp_path: Path) -> None:
    config = config_from_table(TABLE)
    folds = []
    for name, dice in (("north", {"a": 0.9, "b": 0.7}), ("south", {"a": 0.2})):
        run = tmp_path / f"external-{name}"
        run.mkdir()
        report = report_of(config, dice)
        table = {
            "pooled": {one["id"]: one["segmentation"] | {"dice": one["segmentation"]["dice"] - 0.1} for one in report["patients"]}
        }
        (run / "baselines.json").write_text(json.dumps(table))
        folds.append((run, report))
    pooled = pool_folds(tmp_path, folds)
    assert pooled["external"]["segmentation"]["dice"]["value"] == pytest.approx(0.6)
    assert [one["id"] for one in pooled["patients"]] == ["north/a", "north/b", "south/a"]
    assert pooled["baselines"]["pooled"]["segmentation"]["dice"]["value"] == pytest.approx(0.5)
    assert pooled["baselines"]["pooled"]["difference"]["value"] == pytest.approx(0.1)
    assert "mean Dice of 0.60" in (tmp_path / "report.html").read_text()
    assert result_table(decode(pooled)).row_count == 2
    shutil.copytree(tmp_path, tmp_path.with_name("other"))
    with pytest.raises(FedMRIError, match="not compared side by side"):
        compare_runs([tmp_path, tmp_path.with_name("other")])


def test_baselines_are_paired_with_the_federated_model() -> None:
    config = config_from_table(TABLE)
    patients = report_of(config, {"a": 0.9, "b": 0.7})["patients"]
    found = {"monai_unet": {"a": {"dice": 0.5, "jaccard": 0.3, "hd95_mm": None}}, "du": {}}
    told = baseline_entries(measured_of(patients), found, config)
    assert told["monai_unet"]["difference"]["value"] == pytest.approx(0.4)
    assert told["monai_unet"]["segmentation"]["empty"] == 1
    assert told["local"]["du"]["segmentation"]["n"] == 0


def test_a_federation_in_this_program_shares_the_decoder() -> None:
    """Two sites with the same patients: their average is what each of them has."""
    config = config_of(objective={"local_crops": 0, "terms": TERMS}, federation={"rounds": 1})
    model, site = build_model(config), site_of()
    [arrays] = rounds(model, {"a": site}, config)
    assert any(
        not np.array_equal(arrays[name], value) for name, value in get_arrays(model).items() if name.startswith("decoder.")
    )
