"""A pooling that masks teach, through whole runs: hospitals that have masks, and hospitals that have none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.run import config_from_table
from server.run.federate import federate
from server.run.pooling import told_after, untaught
from simulation.phantom import write_hospitals
from tests.server.made_up_sites import plan, site_nodes

SECTIONS = {"model": {"pooling": "guided"}, "training": {"head_rounds": 2, "head_steps": 2}}


@pytest.mark.slow
def test_a_run_whose_hospitals_have_no_masks_says_so(tmp_path: Path, local_grid: Any) -> None:
    write_hospitals(tmp_path / "data", sites=2, patients=2, external=2, seed=1)
    sites, said = ("hospital-a", "hospital-b"), []
    for name in ("with", "without"):
        asked = plan(tmp_path / "data", tmp_path / name, sites=sites, rounds=2, sections=SECTIONS)
        federate(local_grid(site_nodes()), replace(asked, external=("external",), cache=tmp_path / f"cache {name}"))
        said.append(json.loads((tmp_path / name / "report.json").read_text())["provenance"].get("pooling", ""))
        for mask in (tmp_path / "data").rglob("*_mask.nii.gz"):
            mask.unlink()
    assert said[0] == ""
    assert "No hospital had a tumour mask" in said[1]


def test_nothing_is_said_before_the_round_that_fits_it(zeros: dict[str, Any]) -> None:
    config = config_from_table(SECTIONS | {"training": {"head_rounds": 2, "ssl_rounds": 1}, "federation": {"rounds": 4}})
    assert [bool(untaught(config, zeros, number)) for number in (1, 2, 3)] == [False, True, True]
    assert [bool(told_after(config, zeros, number)) for number in (1, 2, 3)] == [False, True, False]
    assert untaught(config, {name: array + 1 for name, array in zeros.items()}, 3) == ""
    assert untaught(config_from_table({"training": {"head_rounds": 2}}), zeros, 3) == ""


@pytest.fixture
def zeros() -> dict[str, Any]:
    return {"pool.query": np.zeros((4, 8), np.float32)}
