"""Whole runs in which sites keep something of the model: what travels, what stays, and what the report says of both models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.round import train as training
from client.round.own_arrays import KEPT, keep_own, own_after
from client.round.site_context import SiteContext
from common.config.personal import named_by_kinds
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.data.holdout import held_back
from common.messages.calibration import CALIBRATION, COUNT, OWN, SUMS
from common.messages.round import CHANGE, Task
from common.models.arrays import Arrays, get_arrays, load_arrays, shaped
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from server.report.own_models import decode_own_models
from server.run.federate import federate
from server.strategy.round_loop import FedMRIAvg
from tests.server.made_up_sites import hospital, plan, site_nodes
from tests.server.run.test_stage import LABELS, drifting

SITES = ("a", "b", "c")
KEEP = {"keep": ["norms"]}
NOBODY = {"holdout": 0.0, "every": 0}


@pytest.fixture
def run(folder: Path, tmp_path: Path, local_grid: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs three sites, of which c shares no sums, and gives plan, report, arrays by round, and all replies."""
    (folder / "c" / "sub-1").mkdir(parents=True)

    def read_site(path: Path, *_: Any, **__: Any) -> Site:
        policy = SitePolicy(share_counts=True, min_patients=1, min_summed=2) if path.name == "c" else SitePolicy.simulation()
        return Site(path.name, path, (), SiteConfig(policy=policy))

    monkeypatch.setattr(training, "read_site", read_site)
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, LABELS))
    monkeypatch.setattr("common.training.personal.train_round", drifting)

    def play(name: str, **sections: Any) -> Any:
        parts = {"evaluation": {"holdout": 0.3, "every": 0}, "training": {"head_rounds": 1}, **sections}
        chosen, replies = plan(folder, tmp_path / name, SITES, sections=parts, rounds=3), []

        def noting(node: Callable) -> Callable:
            def respond(message: Any) -> Any:
                replies.append((message.content, node(message)))
                return replies[-1][1]

            return respond

        federate(local_grid({number: noting(node) for number, node in site_nodes(3).items()}), chosen)
        rounds = [load_arrays(chosen.out / "checkpoints" / f"round-000{n}.safetensors")[0] for n in (1, 2, 3)]
        return chosen, json.loads((chosen.out / "report.json").read_text()), rounds, replies

    return play


def own_of(chosen: Any, site: str, arrays: Arrays) -> Arrays:
    run = json.loads((chosen.out / "run.json").read_text())["run"]
    context = SiteContext(site, chosen.data / site, chosen.cache, simulated=True)
    return training.own_arrays(context, run, chosen.config, arrays, 3)


def by_hand(chosen: Any, site: str, arrays: Arrays) -> tuple[float, list[int]]:
    """Loss a patient and how many are right by class, of the held-back patients."""
    patients = hospital(site, LABELS)
    held = patients.select(np.flatnonzero(held_back(patients.ids, 0.3)))
    held = held.select(held.labelled)
    said = predict(TrainedModel(build_model(chosen.config), arrays, chosen.config), held)
    right = np.bincount(held.labels[said.argmax(1) == held.labels], minlength=3)
    return -float(np.log(said[np.arange(len(held)), held.labels]).mean()), right.tolist()


def test_kept_arrays_do_not_leave_and_both_models_are_measured_at_each_site(run) -> None:
    chosen, report, rounds, replies = run("kept", personal=KEEP)
    norms = set(named_by_kinds(rounds[0], ["norms"]))
    sent = [set(reply[CHANGE]) for _, reply in replies if CHANGE in reply]
    assert [norms & names for names in sent] == [norms] * 3 + [set()] * 6  # the head round is common to all
    assert all(norms | names == set(rounds[0]) for names in sent)
    for name, array in rounds[0].items():
        assert np.array_equal(rounds[2][name], array) == (name in norms)
    own = {site: own_of(chosen, site, rounds[2]) for site in SITES}
    assert all(arrays.keys() == norms for arrays in own.values())
    assert all(not np.array_equal(own["a"][name], own["b"][name]) for name in norms)
    told = report["personal"]
    assert (told["kept"], set(told["arrays"]), told["why"]) == (["norms"], norms, "")
    assert told["failures"] == {"c": "the site does not share sums for calibration"}
    for site in ("a", "b"):
        for model, arrays in (("global", rounds[2]), ("own", rounds[2] | own[site])):
            loss, right = by_hand(chosen, site, arrays)
            assert told["sites"][site][model]["loss"] == pytest.approx(loss, abs=2e-3)
            assert [one["right"] for one in told["sites"][site][model]["classes"].values()] == right
    assert told["sites"]["a"]["global"]["loss"] != told["sites"]["a"]["own"]["loss"]
    decoded = decode_own_models(told)
    assert decoded is not None
    assert [site for site, *_ in decoded.sites] == ["a", "b"]
    asked = [(request, reply) for request, reply in replies if CALIBRATION in request and request[CALIBRATION]["stage"] == OWN]
    assert [set(reply) & {SUMS} for _, reply in asked] == [{SUMS}, {SUMS}, set()]
    assert {name.partition(".")[2] for name in asked[0][1][SUMS]} == {COUNT, "calibration.nll", "calibration.confusion"}


def test_a_secure_sum_is_of_fewer_arrays_and_the_same(run) -> None:
    secure = {"enabled": True, "min_summed": 2}
    _, _, plain, _ = run("plain", personal=KEEP, evaluation=NOBODY)
    _, _, masked, replies = run("masked", personal=KEEP, secure=secure, evaluation=NOBODY)
    norms = named_by_kinds(plain[0], ["norms"])
    sizes = [reply["masked"]["masked"].shape[0] for _, reply in replies if "masked" in reply]
    whole, kept = (1 + sum(plain[0][name].size for name in names) for names in (plain[0], norms))
    assert sizes == [whole] * 3 + [whole - kept + 1] * 6
    for name, array in plain[2].items():
        np.testing.assert_allclose(masked[2][name], array, atol=1e-4)


def test_dittos_copy_stays_and_the_global_model_is_the_same_as_without(run) -> None:
    chosen, report, rounds, replies = run("ditto", personal={"ditto_lambda": 0.5})
    _, without, plain, _ = run("without", evaluation=NOBODY)  # the stub's steps are of no patient
    for name, array in plain[2].items():
        np.testing.assert_allclose(rounds[2][name], array, rtol=0, atol=1e-6)
    assert without["personal"] == {}
    assert all(set(reply[CHANGE]) == set(plain[0]) for _, reply in replies if CHANGE in reply)
    loss, _ = by_hand(chosen, "a", own_of(chosen, "a", rounds[2]))
    assert report["personal"]["sites"]["a"]["own"]["loss"] == pytest.approx(loss, abs=2e-3)
    assert (report["personal"]["kept"], report["personal"]["ditto_lambda"]) == ([], 0.5)


def test_where_nobody_is_held_back_the_report_says_that_nothing_was_measured(run) -> None:
    _, report, _, replies = run("none", personal=KEEP, evaluation=NOBODY)
    assert "nobody is held back" in report["personal"]["why"]
    assert not any(CALIBRATION in request for request, _ in replies)


def test_a_sites_own_arrays_are_those_after_a_round_or_the_last_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    assert own_after(tmp_path / "none", 3, template) == {}
    for number in range(1, KEPT + 3):
        keep_own(tmp_path, number, {"a": np.full(2, number, np.float32)})
    assert len(list(tmp_path.iterdir())) == KEPT
    assert own_after(tmp_path, 4, template)["a"].tolist() == [4, 4]
    assert own_after(tmp_path, 99, template)["a"].tolist() == [KEPT + 2] * 2
    assert own_after(tmp_path, 2, template) == {}  # long past
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert own_after(tmp_path, 99, template)["a"].tolist() == [KEPT + 1] * 2
    assert own_after(tmp_path, 99, {"a": np.zeros(3, np.float32)}) == {}
    assert "damaged" in caplog.text


def test_noise_for_whole_hospitals_falls_on_no_array_that_stays(tmp_path: Path) -> None:
    sections = {"personal": KEEP, "training": {"head_rounds": 1}, "site_level": {"enabled": True}, "evaluation": NOBODY}
    config = plan(tmp_path, tmp_path, SITES, sections=sections, rounds=3).config
    template = get_arrays(build_model(config))
    strategy = FedMRIAvg(config.federation, Task(1, "", "", ""), template, SITES, config)
    kept = shaped(strategy.trained_mask(2).astype(float), template)
    norms = named_by_kinds(template, ["norms"])
    assert not any(kept[name].any() for name in norms)
    assert all(array.all() for name, array in kept.items() if name not in norms)
