"""The audits that `fedmri-sim run` makes: against naive counting, with a planted fault, and in the report."""

import argparse
import json
import tomllib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.cli.main import main as at_the_site
from client.privacy import audit
from common.config.run import RunConfig, config_from_table
from common.models.arrays import get_arrays, load_arrays, save_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.privacy.audit import CHECKS, CanaryAudit
from common.privacy.gradients import Parameters
from common.training.predict import predict
from server.cli.main import main as at_the_server
from server.report.publish import write_report
from server.report.report import read_report
from server.report.results import complete
from server.run.privacy_claims import privacy_claims
from simulation import auditing, experiment
from simulation.auditing import CANARIES, audit_sites
from simulation.baselines import open_folders
from simulation.cli import _show
from simulation.experiment import add_audits, run_experiment
from simulation.experiment_plan import Experiment
from simulation.phantom import write_hospitals

RECIPE = """
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
rank = 1
head_hidden = 8
head_bottleneck = 4
[objective]
dino = 0.0
ibot = 0.0
koleo = 0.0
local_crops = 0
[training]
precision = "fp32"
[privacy]
enabled = true
sample_rate = 0.3
[evaluation]
bootstrap = 0
"""
CONFIG = config_from_table(tomllib.loads(RECIPE))
QUIET = CanaryAudit(1.5, 0.2, 1e-5, 120, 70)
SITES = ("hospital-a", "hospital-b", "hospital-c")  # the last has no labels


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=3, patients=4, external=5, seed=2)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Trained arrays that answer at random, but not all alike."""
    generator = np.random.default_rng(0)
    arrays = {name: a + generator.normal(0, 0.5, a.shape).astype(a.dtype) for name, a in get_arrays(build_model(CONFIG)).items()}
    folder = tmp_path_factory.mktemp("run")
    save_arrays(folder / "model.safetensors", arrays, {})
    return folder / "model.safetensors"


def losses(site: str, data: Path, model: Path, cache: Path) -> list[float]:
    """Cross entropies, one patient at a time."""
    patients = open_folders((data / site,), CONFIG, cache)
    arrays, _ = load_arrays(model)
    trained = TrainedModel(build_model(CONFIG), arrays, CONFIG)
    answers = [predict(trained, patients.select([row]))[0] for row in patients.labelled]
    return [-np.log(p[label]) for p, label in zip(answers, patients.labels[patients.labelled], strict=True)]


@dataclass
class Audited:
    """What `audit_sites` found at a site with labels and at one without, and whom it asked and told."""

    found: dict[str, dict[str, Any]]
    asked: list[int]
    told: list[str]


@pytest.fixture(scope="module")
def audited(data, model, tmp_path_factory) -> Audited:
    """Two whole audits, side by side in processes of their own: half a minute, so once for all who ask about a whole one."""
    one = Audited({}, [], [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditing, "run_canaries", lambda generator: one.asked.append(generator.initial_seed()) or QUIET)
        sites, cache = [data / "hospital-a", data / "hospital-c"], tmp_path_factory.mktemp("cache")
        one.found = audit_sites(sites, [data / "external"], CONFIG, cache, model, 2, one.told.append)
    return one


@pytest.fixture
def without_rounds(monkeypatch) -> None:
    """A step alone is audited: whole rounds are `audited`'s, and `tests.client.privacy.test_round_audit`'s."""
    monkeypatch.setattr(audit, "check_rounds", lambda *_: [])


@pytest.mark.slow
def test_a_sites_audit_against_counting_pairs(audited, data, model, tmp_path) -> None:
    found = audited.found["hospital-a"]
    members, others = (losses(site, data, model, tmp_path) for site in ("hospital-a", "external"))
    pairs = [(m < o) + 0.5 * (m == o) for m, o in product(members, others)]
    assert found["membership_auc"] == pytest.approx(np.mean(pairs))
    assert np.mean(pairs) not in (0, 0.5, 1)  # or the two sides might be swapped, or the same, unseen
    assert found["passed"] is True
    assert found["mechanism"] == {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "sample_rate": 0.3}
    assert found["canary"]["audited"] == 0.2  # handed in, not asked again


@pytest.mark.slow
def test_without_labels_losses_are_not_compared(audited) -> None:
    found = audited.found["hospital-c"]
    assert found["membership_auc"] is None
    assert found["passed"] is True


@pytest.mark.slow
def test_sites_side_by_side_share_the_canaries(audited) -> None:
    assert audited.asked == [CONFIG.seed]
    assert audited.told[0] == CANARIES
    assert sorted(audited.told[1:]) == list(audited.found) == ["hospital-a", "hospital-c"]
    json.dumps(audited.found, allow_nan=False)
    assert all([check["name"] for check in table["checks"]] == list(CHECKS) for table in audited.found.values())


class Stage:
    """An experiment whose federation has been run, and what it is told."""

    def __init__(self, data: Path, model: Path, out: Path, config: RunConfig = CONFIG) -> None:
        line = {"round": 1, "sites": [*SITES[:2]], "failures": [{"site": SITES[2], "reason": "refused"}], "attempts": 1}
        self.notes: list[str] = []
        self.told: list[tuple[str, int, int]] = []
        self.plan = Experiment(config, out / "c.toml", (), data, SITES, ("external",), out, out / "cache", out / "models")
        save_arrays(out / "model.safetensors", load_arrays(model)[0], {})
        provenance = {"config": json.loads(config.to_json())}
        self.report = complete({"rounds": [line], "provenance": provenance, "privacy": privacy_claims(config, [line])})
        write_report(out, self.report)

    def audit(self) -> dict:
        return add_audits(self.plan, self.report, (SITES[2],), self.notes.append, lambda *step: self.told.append(step))


def here(work, jobs, workers, on_done):
    """`side_by_side` in this process, where faults can be planted."""
    found = {}
    for one in jobs:
        found[one.name] = work(one)
        on_done(one.name)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("without_rounds")
def test_the_report_takes_the_audits_in(data, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(auditing, "run_canaries", lambda generator: QUIET)
    monkeypatch.setattr(auditing, "side_by_side", here)
    stage = Stage(data, model, tmp_path)
    report = stage.audit()
    assert report == read_report(tmp_path)
    assert {site for site, claim in report["privacy"].items() if "audit" in claim} == {"hospital-a", "hospital-b"}
    assert stage.notes == ["Privacy audit: passed at 2 of 2 sites."]
    assert stage.told == [("privacy audits", n, 3) for n in range(4)]
    entry = report["privacy"]["hospital-a"]["audit"]
    assert entry["canary"] == {"claimed": 1.5, "audited": 0.2, "passed": True}
    page = (tmp_path / "report.html").read_text()
    assert f'<td class="num">{entry["membership_auc"]:.2f}</td>' in page
    assert "another scanner" in page
    assert "not audited" in page  # hospital-c


@pytest.mark.slow
@pytest.mark.usefixtures("without_rounds")
def test_a_planted_fault_is_loud_and_the_report_is_written(data, model, tmp_path, monkeypatch, capsys) -> None:
    honest = vars(audit)["patient_gradients"]

    def doubled(*arguments: Any) -> Parameters:
        return {name: torch.cat([value, value]) for name, value in honest(*arguments).items()}

    monkeypatch.setattr(audit, "patient_gradients", doubled)
    monkeypatch.setattr(auditing, "run_canaries", lambda generator: QUIET)
    monkeypatch.setattr(auditing, "side_by_side", here)
    stage = Stage(
        data,
        model,
        tmp_path,
        config_from_table(json.loads(CONFIG.to_json()) | {"privacy": {"enabled": True, "max_grad_norm": 1e-3}}),
    )
    report = stage.audit()
    assert stage.notes[0].startswith("PRIVACY CLAIM REFUTED at hospital-a (one patient's share is bounded: one patient moved")
    assert stage.notes[-1] == "Privacy audit: passed at 0 of 2 sites."
    assert not read_report(tmp_path)["privacy"]["hospital-b"]["audit"]["passed"]
    assert (tmp_path / "report.html").read_text().count("✕ REFUTED") == 2

    assert _show(report, argparse.Namespace(json=False, out=tmp_path)) == 0
    assert capsys.readouterr().out.count("PRIVACY CLAIM REFUTED at") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "audited"), [({}, True), ({"audit": False}, False)])
def test_a_setting_switches_it_off(data, model, tmp_path, monkeypatch, settings, audited) -> None:
    table = json.loads(CONFIG.to_json())
    config = config_from_table(table | {"evaluation": {"baselines": False} | settings})
    stage = Stage(data, model, tmp_path, config)
    asked = []
    monkeypatch.setattr(experiment, "require_folder", lambda out, **_: None)
    monkeypatch.setattr(experiment, "run_federation", lambda *_, **__: None)
    monkeypatch.setattr(experiment, "audit_sites", lambda sites, *_: asked.extend(sites) or {})
    run_experiment(stage.plan, stage.notes.append, lambda *_: None, lambda _: None)
    assert bool(asked) is audited


@pytest.mark.slow
@pytest.mark.usefixtures("without_rounds")
def test_what_a_site_prints_is_what_the_coordinator_takes(data, model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(audit, "run_canaries", lambda generator: QUIET)
    stage = Stage(data, model, tmp_path)
    (tmp_path / "agreed.toml").write_text(RECIPE)
    others = ["--model", str(model), "--others", str(data / "external")]
    agreed = ["audit", "privacy", str(data / "hospital-b"), "--config", str(tmp_path / "agreed.toml"), *others, "--json"]
    assert at_the_site(agreed) == 0
    (tmp_path / "sent.json").write_text(capsys.readouterr().out)
    assert at_the_server(["audit", str(tmp_path), "hospital-b", str(tmp_path / "sent.json")]) == 0
    entry = read_report(tmp_path)["privacy"]["hospital-b"]["audit"]
    assert entry["passed"] is True
    assert 0 <= entry["membership_auc"] <= 1
    capsys.readouterr()
    assert at_the_site([*agreed, "--set", "noise_multiplier=5.0"]) == 0  # it passes, but is no audit of this run
    (tmp_path / "sent.json").write_text(capsys.readouterr().out)
    assert at_the_server(["audit", str(tmp_path), stage.plan.sites[0], str(tmp_path / "sent.json")]) == 1
    assert "noise_multiplier: expected 1.0, as in the run; got 5.0" in capsys.readouterr().err


def test_a_run_without_privacy_is_not_audited(data, model, tmp_path, monkeypatch) -> None:
    stage = Stage(
        data, model, tmp_path, config_from_table({"data": {"size": 32, "slices": 2}, "evaluation": {"baselines": False}})
    )
    monkeypatch.setattr(experiment, "require_folder", lambda out, **_: None)
    monkeypatch.setattr(experiment, "run_federation", lambda *_, **__: None)
    monkeypatch.setattr(experiment, "audit_sites", lambda *_: pytest.fail("audited"))
    assert run_experiment(stage.plan, stage.notes.append, lambda *_: None, lambda _: None)["privacy"] == {}
