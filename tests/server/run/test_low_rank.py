"""Whole runs with rules for low-rank pairs: what is recorded, what travels, and what the page shows."""

import json

import numpy as np
import pytest

from common.models.arrays import load_arrays
from common.models.build import build_model
from server.report.publish import render_run
from server.report.report import read_report
from server.run.federate import federate
from tests.server.made_up_sites import plan, site_nodes

SITES = ("a", "b")
MOVING = {"training": {"learning_rate": 1e-2, "local_epochs": 3}}  # in the first step of all B is zero, and A learns nothing


def run(folder, out, local_grid, sections=None, **federation):
    chosen = plan(folder, out, SITES, sections={**MOVING, **(sections or {})}, rounds=2, **federation)
    federate(local_grid(site_nodes()), chosen)
    return chosen, json.loads((out / "report.json").read_text())["rounds"]


@pytest.mark.slow
def test_by_default_the_deviation_is_recorded_and_nothing_is_made_of_it(folder, tmp_path, local_grid):
    _, rounds = run(folder, tmp_path / "run", local_grid)
    assert [list(line["low_rank"]) for line in rounds] == [["deviation"]] * 2
    assert all(0 < line["low_rank"]["deviation"] < 10 for line in rounds)
    page = render_run(tmp_path / "run", read_report(tmp_path / "run"))
    assert "distance from the mean of their products" in page
    assert "after federation.low_rank" not in page


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["fair", "svd"])
def test_a_rule_leaves_less_of_the_deviation_at_no_byte_more(folder, tmp_path, local_grid, rule):
    _, rounds = run(folder, tmp_path / "run", local_grid, low_rank=rule)
    assert all(line["low_rank"]["left"] < line["low_rank"]["deviation"] for line in rounds)
    assert all(line["bytes_up"] == line["bytes_down"] for line in rounds)
    assert "after federation.low_rank" in render_run(tmp_path / "run", read_report(tmp_path / "run"))


@pytest.mark.slow
def test_the_residual_is_exact_goes_down_only_and_leaves_the_backbone_pinned(folder, tmp_path, local_grid):
    chosen, rounds = run(folder, tmp_path / "run", local_grid, low_rank={"name": "residual", "kept_rank": 4})
    assert all(line["low_rank"]["left"] < 1e-6 < line["low_rank"]["deviation"] for line in rounds)
    arrays, metadata = load_arrays(tmp_path / "run" / "model.safetensors")
    residuals = [array for name, array in arrays.items() if ".residual_" in name]
    assert sum(array.any() for array in residuals) == len(residuals) == 10
    assert metadata["backbone_sha256"] == build_model(chosen.config).backbone_sha256
    more = sum(array.nbytes for array in residuals)
    assert all(line["bytes_down"] - line["bytes_up"] - 2 * more < 2 * 10 * 200 for line in rounds)  # and headers
    assert all(line["bytes_down"] - line["bytes_up"] > 2 * more for line in rounds)


@pytest.mark.slow
def test_a_residual_that_outgrows_its_rank_says_what_it_cost(folder, tmp_path, local_grid):
    _, rounds = run(folder, tmp_path / "run", local_grid, low_rank={"name": "residual", "kept_rank": 1})
    assert all(1e-6 < line["low_rank"]["left"] < line["low_rank"]["deviation"] for line in rounds)


@pytest.mark.slow
@pytest.mark.parametrize("sections", [{"secure": {"enabled": True}}, {"site_level": {"enabled": True, "noise": 0.1}}])
def test_where_single_updates_are_not_seen_or_must_not_be_told_nothing_is_recorded(folder, tmp_path, local_grid, sections):
    _, rounds = run(folder, tmp_path / "run", local_grid, sections)
    assert all("low_rank" not in line for line in rounds)


@pytest.mark.slow
def test_head_rounds_and_adapters_without_pairs_record_nothing(folder, tmp_path, local_grid):
    heads = {"training": {"head_rounds": 1, "head_steps": 1, "local_epochs": 2}}
    _, rounds = run(folder, tmp_path / "heads", local_grid, heads, low_rank="svd")
    assert ["low_rank" in line for line in rounds] == [False, True]
    _, rounds = run(folder, tmp_path / "dora", local_grid, {"model": {"adapter": "dora", "backbone": "fedmri_vit_mini"}})
    assert not any("low_rank" in line for line in rounds)


@pytest.mark.slow
def test_a_still_factor_has_no_deviation(folder, tmp_path, local_grid):
    _, rounds = run(folder, tmp_path / "run", local_grid, {"model": {"adapter": {"factor": "alternate", "rank": 2}}})
    assert np.max([line["low_rank"]["deviation"] for line in rounds]) < 1e-6
