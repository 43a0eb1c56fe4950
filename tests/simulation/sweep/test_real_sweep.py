"""The command with the real trainer, on phantoms as small as can be."""

import json
from pathlib import Path

import pytest

from common.config.run import config_from_json
from common.data.holdout import split
from common.models.build import build_model
from simulation.baselines import open_folders, train_alone
from simulation.cli import main
from simulation.in_process import federate
from simulation.phantom import write_hospitals
from simulation.sweep.grid import read_grid
from simulation.sweep.plan import plan_sweep

GRID = """
settings = ["data.size=32", "data.slices=1", "rounds=3", "head_rounds=2", "head_steps=2", "head_views=1", "min_sites=1",
            'model.pooling="mean"',
            "modality_subsets=false", "bootstrap=20", "holdout=0.5"]
seeds = [0]

[[data]]
name = "phantoms"
folder = "{folder}"
folds = ["external"]

[product]
"model.blocks" = [1, 2]
"""


@pytest.mark.thorough
def test_a_sweep_of_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hospitals(tmp_path / "hospitals", sites=2, patients=4, external=2, seed=5)
    file, cache = tmp_path / "grid.toml", tmp_path / "cache"
    file.write_text(GRID.format(folder=tmp_path / "hospitals"))
    command = ["sweep", str(file), "--out", str(tmp_path / "out"), "--cache", str(cache), "--workers", "1"]
    assert main([*command, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [(arm["name"], arm["runs"]) for arm in table["arms"]] == [("model.blocks=1", 1), ("model.blocks=2", 1)]
    assert table["chosen"] in ("model.blocks=1", "model.blocks=2")
    assert [arm["external"]["patients"] for arm in table["arms"]] == [2, 2]
    assert main(command) == 0
    again = capsys.readouterr()
    assert "2 were done before" in again.err
    assert "nothing was chosen on them" in " ".join(again.out.split())

    job = plan_sweep(read_grid(file), cache)[0]
    config = config_from_json(job.config)
    patients, _ = split(open_folders(job.sites[:1], config, cache), config.evaluation.holdout)
    alone = train_alone(patients, config, "one")[-1]
    federated = federate(build_model(config), {"one": patients}, config)
    for name, array in alone.items():
        assert federated[name] == pytest.approx(
            array, abs=1e-5
        )  # a change that is sent is rounded once more, and AdamW goes on from there
