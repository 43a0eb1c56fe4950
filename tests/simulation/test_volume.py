"""A run on whole volumes through a tiny 3D encoder: federated through Flower, evaluated, reported, and asked."""

import json
from pathlib import Path

import pytest

from client.cli.main import main as site_main
from server.cli.main import main as server_main
from server.report.publish import render_run
from server.report.report import read_report
from simulation.cli import main
from simulation.phantom.hospitals import write_hospitals

CONFIG = """
[data]
axes = ["volume"]
size = 32
slices = 32
field_of_view = 200.0
through = "brain"
intensity = "zscore"
[model]
backbone = "fedmri_cube_mini"
weights = "random"
adapter = { name = "lora", rank = 2 }
centre_features = true
head = "linear"
head_hidden = 0
[objective]
local_crops = 0
[objective.terms]
dino.weight = 0.1
ibot.weight = 0.0
[training]
slices_per_step = 32
batch_size = 4
head_rounds = 2
head_steps = 5
[federation]
rounds = 3
min_sites = 2
round_retries = 0
[evaluation]
every = 0
bootstrap = 20
modality_subsets = true
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=2, patients=2, external=3, seed=2)
    return folder


@pytest.fixture(scope="module")
def finished(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: a round that measures mean features, one that fits the head, and one that tunes adapters."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(CONFIG)
    options = ["--config", str(folder / "tiny.toml"), "--data", str(hospitals), "--cache", str(folder / "cache")]
    assert main(["run", *options, "--external", "external", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_whole_run_through_flower(finished: Path) -> None:
    report = read_report(finished)
    assert report["external"]["n"] == len(report["patients"]) == 3
    assert report["baselines"].keys() >= {"pooled", "local"}
    assert len((finished / "rounds.jsonl").read_text().splitlines()) == 3
    assert report["modality_subsets"]
    page = render_run(finished, report)
    assert "volume, 200 mm" in page or "evidence" in page
    assert list((finished / "evidence").glob("*.png"))


@pytest.mark.slow
def test_a_hospital_is_told_what_the_report_told_and_what_is_of_slices_is_refused(
    hospitals: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = read_report(finished)
    asked = ["predict", str(hospitals / "external"), "--model", str(finished)]
    assert site_main([*asked, "--json", "--evidence", "modalities"]) == 0
    tables = json.loads(capsys.readouterr().out)
    for table, one in zip(tables, report["patients"], strict=True):
        assert list(table["probabilities"].values()) == pytest.approx(one["probabilities"], abs=1e-4)
        assert "the volume, layers at slices" in table["slices"]["why"]
        assert "place" not in table["evidence"]
    for option in (["--card", str(tmp_path / "x")], ["--evidence", "all"], ["--mask-model", str(finished)]):
        assert site_main([*asked, *option]) != 0
        said = capsys.readouterr().err
        assert option[0] in said
        assert "whole volumes" in said
    assert server_main(["export", str(finished), "--out", str(tmp_path / "release"), "--unsigned"]) == 2
    assert "Export knows models of slices" in capsys.readouterr().err
    assert not (tmp_path / "release").exists()
