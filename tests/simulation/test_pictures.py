"""A run on pictures, whole: through Flower, reported, and asked by a hospital."""

import json
from pathlib import Path

import numpy as np
import pytest

from client.cli.main import main as site_main
from server.report.publish import render_run
from server.report.report import read_report
from simulation.cli import main
from tests.common.data.gate.test_pictures import picture, saved

CONFIG = """
[data]
modalities = ["image"]
slices = 1
size = 32
field_of_view = 100.0
[task]
name = "classification"
label = "finding"
classes = ["clear", "nodule"]
[model]
backbone = "fedmri_vit_mini"
weights = "random"
head = "linear"
head_hidden = 0
[objective]
local_crops = 0
[objective.terms]
classification.weight = 1.0
dino.weight = 0.0
ibot.weight = 0.0
[training]
head_rounds = 1
head_steps = 60
[federation]
rounds = 1
min_sites = 2
round_retries = 0
[evaluation]
bootstrap = 20
baselines = false
"""


def hospital(folder: Path, count: int, seed: int) -> None:
    """A bright disc is the nodule."""
    y, x = np.mgrid[:48, :48]
    rows = []
    for n in range(count):
        pixels = picture(48, 48, seed=seed + n).astype(int) // 2
        pixels[((y - 24) ** 2 + (x - 26) ** 2 < 150) & (n % 2 == 1)] += 120
        saved(folder / f"sub-{n}" / "film.png", pixels.astype(np.uint8))
        rows.append(f"sub-{n}\t{40 + n}\t{('clear', 'nodule')[n % 2]}\n")
    (folder / "participants.tsv").write_text("participant_id\tage\tfinding\n" + "".join(rows))


@pytest.mark.slow
def test_a_whole_run_on_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count, seed in (("north", 6, 0), ("south", 8, 50), ("external", 6, 90)):
        hospital(tmp_path / "data" / name, count, seed)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    where = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run")]
    assert main(["run", "--config", str(tmp_path / "tiny.toml"), *where, "--external", "external"]) == 0
    assert "too small to find them elsewhere" in capsys.readouterr().err.replace("\n", " ")  # the same person twice
    report = read_report(tmp_path / "run")
    assert report["external"]["n"] == 6
    assert report["external"]["auroc"]["macro"] > 0.9
    assert "AUROC" in render_run(tmp_path / "run", report)
    asked = ["--model", str(tmp_path / "run"), "--json"]
    assert site_main(["predict", str(tmp_path / "data" / "external"), *asked]) == 0
    tables = json.loads(capsys.readouterr().out)
    said = [list(one["probabilities"].values()) for one in tables]
    np.testing.assert_allclose(said, [one["probabilities"] for one in report["patients"]], atol=1e-4)
    film = tmp_path / "data" / "external" / "sub-1" / "film.png"
    assert site_main(["predict", str(film.parent), *asked]) == 0
    assert site_main(["predict", "--files", f"image={film}", *asked]) == 0
    alone, named = (json.loads(text) for text in capsys.readouterr().out.replace("}\n{", "}\0{").split("\0"))
    assert alone["probabilities"] == named["probabilities"]
    assert alone["probabilities"]["nodule"] == pytest.approx(said[1][1], abs=1e-4)
    assert named["modalities"]["used"] == ["image"]
