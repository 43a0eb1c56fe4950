"""Hospitals with real volumes, some of whom are the external hospital's under other names: nobody trains on them."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from flwr.proto.node_pb2 import NodeInfo

from client.round.dispatch import answer
from client.round.left_out import SiteTwin, note_twins, without_twins
from client.round.site_context import SiteContext
from client.round.train import prepared_patients
from common.config.run import RunConfig
from common.config.site import is_site
from common.data.cases import read_site
from common.data.gate.finding import stay_out
from common.errors import FederationError, PolicyError
from common.messages.code_version import code_hash
from common.messages.held_out import THEIRS
from common.messages.round import Task
from server.run.held_out import HeldOutCheck, held_out_check
from server.strategy.progress import Progress
from server.strategy.site_selection import Presence
from simulation.cli import main as sim_main
from tests.server.conftest import LocalGrid
from tests.server.made_up_sites import plan

RUN = "the-run"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("held-out") / "data"
    assert sim_main(["phantom", str(folder), "--sites", "2", "--patients", "1", "--external", "1", "--seed", "3"]) == 0
    return folder


@pytest.fixture
def data(phantoms, tmp_path, monkeypatch) -> Path:
    """Hospitals `both`, who has an external patient in other files under another name, and `none`."""
    monkeypatch.setenv("FEDMRI_CACHE", str(phantoms / "cache"))
    external, *sites = sorted((p for p in phantoms.iterdir() if is_site(p)), key=lambda p: p.name != "external")
    shutil.copytree(external, tmp_path / "external")
    for name, site in zip(("both", "none"), sites, strict=True):
        shutil.copytree(site, tmp_path / name)
        (tmp_path / name / "participants.tsv").unlink()
    person = next(p for p in sorted(external.iterdir()) if p.name.startswith("sub-"))
    for file in person.glob("anat/*.nii.gz"):
        to = tmp_path / "both" / "sub-new" / "anat" / file.name.replace(person.name, "sub-new")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), 1))  # the same scan, other bytes
    return tmp_path


@pytest.fixture
def check(data, local_grid):
    """check(way): before a round, with all hospitals there; the check itself, and the grid."""

    class Named(LocalGrid):
        def get_nodes(self):
            return [NodeInfo(node_id=1, name="both"), NodeInfo(node_id=2, name="none")]

    def node(name: str):
        return lambda message: answer(message.content, {"site-config": str(data / name / "site.toml")}, RecordDict())

    def make(way: str, policies: dict[str, str] | None = None, grid: Any = None) -> tuple[HeldOutCheck | None, Any]:
        for name in ("both", "none"):
            (data / name / "site.toml").write_text((policies or {}).get(name, ""))
        base = plan(data, data / "out", sites=())
        chosen = replace(base, external=("external",), config=configured(base.config, way))
        task = Task(1, chosen.config.to_json(), code_hash(), "", RUN)
        presence = Presence(chosen.config.federation, (), Progress())
        return held_out_check(chosen, task, presence, Progress()), Named({1: node("both"), 2: node("none")})

    return make


def configured(config: RunConfig, way: str) -> RunConfig:
    return replace(config, twins=replace(config.twins, with_external=way), federation=replace(config.federation, min_sites=1))


def asked(check: HeldOutCheck, grid: Any, number: int = 1) -> list[str]:
    """Who would be asked to train after the check."""
    there = [a for a in check.presence.addresses(grid) if a.name not in check.presence.closed]
    check(grid, number, there)
    return [address.name for address in check.presence.called(grid, number)[0]]


def trains(data: Path, site: str) -> set[str]:
    context = SiteContext(site, data / site / "site.toml", data / "cache", simulated=False)
    found = without_twins(read_site(context.folder, RunConfig()), context, RUN)
    return {case.id for case in found.cases} - stay_out(found.findings)


@pytest.mark.slow
def test_a_run_is_refused_by_content_and_nobody_is_named(data, check):
    one, grid = check("refuse")
    with pytest.raises(FederationError, match="both: patients of this hospital are external ones") as refused:
        asked(one, grid)
    assert "sub-" not in str(refused.value)
    (record,) = (data / "both" / "twins").glob("*.json")
    assert [each["patient"] for each in json.loads(record.read_text())["twins"]] == ["sub-new"]


@pytest.mark.slow
def test_who_leaves_them_out_trains_without_them_and_tells_nothing(data, check):
    for way, policy in (("drop", ""), ("refuse", '[policy]\ntwins = "drop"\n')):
        one, grid = check(way, {"both": policy})
        assert asked(one, grid) == ["both", "none"]
        assert "sub-new" not in trains(data, "both")
        assert len(trains(data, "both")) == len(trains(data, "none")) == 1
        assert asked(one, grid, 2) == ["both", "none"]
        assert len(grid.sent) == 2  # each was asked once


@pytest.mark.slow
def test_a_hospital_that_refuses_is_left_out_of_a_run_that_would_drop(check):
    one, grid = check("drop", {"both": '[policy]\ntwins = "refuse"\n'})
    assert asked(one, grid) == asked(one, grid, 2) == ["none"]
    assert one.presence.closed == {"both": THEIRS}
    assert len(grid.sent) == 2


@pytest.mark.slow
def test_a_hospital_that_has_not_compared_is_not_asked_until_it_has(data, check):
    one, grid = check("drop")
    (data / "none" / "site.toml").write_text("nonsense")
    assert asked(one, grid) == ["both"]
    (data / "none" / "site.toml").write_text("")
    assert asked(one, grid, 2) == ["both", "none"]
    assert one.presence.closed == {}


@pytest.mark.parametrize(("way", "policy"), [("drop", ""), ("refuse", ""), ("refuse", '[policy]\ntwins = "drop"\n')])
def test_a_patient_who_comes_in_mid_run_is_compared_before_anybody_trains_on_them(data, check, way, policy):
    one, grid = check(way, {"none": policy})
    new, place = data / "both" / "sub-new", data / "none" / "sub-late"
    new.rename(data / "sub-late")  # so that `both` has nobody, and the run begins
    assert asked(one, grid) == ["both", "none"]
    assert len(took_part(data, "none", way)) == 1
    (data / "sub-late").rename(place)
    for file in place.glob("anat/*"):
        file.rename(file.with_name(file.name.replace("sub-new", "sub-late")))
    if way == "drop" or policy:
        assert took_part(data, "none", way).isdisjoint({"sub-late"})
        assert len(took_part(data, "none", way)) == 1
        return
    with pytest.raises(PolicyError) as refused:
        took_part(data, "none", way)
    assert (refused.value.public, refused.value.for_good) == (THEIRS, True)


def took_part(data: Path, site: str, way: str) -> set[str]:
    """Who would be in the next round."""
    context = SiteContext(site, data / site / "site.toml", data / "cache", simulated=False)
    config = configured(plan(data, data / "out", sites=()).config, way)
    return {case.id for case in prepared_patients(context, config, RUN).site.cases}


def test_what_an_exchange_has_found_stays_found(data, check):
    context = SiteContext("both", data / "both" / "site.toml", data / "cache", simulated=False)
    one, grid = check("drop")
    note_twins(context, RUN, "drop", [SiteTwin(sorted(trains(data, "both"))[0], "another hospital", leaves=True)])
    before = trains(data, "both")
    asked(one, grid)
    assert trains(data, "both") == before - {"sub-new"}


def test_a_simulation_and_a_run_that_keeps_them_do_not_ask(data, check):
    assert check("keep")[0] is None
    chosen = plan(data, data / "out")
    assert held_out_check(chosen, Task(1, "", "", "", ""), Presence(chosen.config.federation, (), Progress()), Progress()) is None
