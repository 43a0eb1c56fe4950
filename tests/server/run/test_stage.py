"""Whole runs that choose which global arrays they keep, in this process, trained by a stub; what keeps them from choosing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from client.round import train as training
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.data.holdout import held_back
from common.evaluation.calibration.calibration import CALIBRATION_NAME
from common.evaluation.stages.candidates import candidates
from common.evaluation.stages.choice import choose, held_back_sums, losses
from common.messages.calibration import CALIBRATION, CHOOSE, CONFUSION, SUMS
from common.models.arrays import load_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from common.training.update import LocalUpdate
from server.run import federate as running
from server.run.federate import federate
from server.run.stage import DAMAGED, NO_TUNING, NOBODY, UNASKED
from tests.server.made_up_sites import hospital, plan, site_nodes

LABELS = (0, 1, 2, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2)
SITES = ("a", "b")
NODE = site_nodes(1)[1]


def drifting(model, arrays, patients, config, *, round_number, site_seed, **_):
    """A round that costs nothing: the arrays take a random step."""
    generator = np.random.default_rng(site_seed)
    moved = {n: (a + generator.normal(0, 0.1, a.shape)).astype(np.float32) for n, a in sorted(arrays.items())}
    return LocalUpdate(moved, len(patients), len(patients.labelled), {"loss": 1.0 / round_number})


@pytest.fixture
def sites(folder, monkeypatch):
    """Two sites; returns the table of their policies, to be changed."""
    policies: dict[str, SitePolicy] = {}

    def read_site(path, *_, **__):
        return Site(path.name, path, (), SiteConfig(policy=policies.get(path.name, SitePolicy.simulation())))

    monkeypatch.setattr(training, "read_site", read_site)
    monkeypatch.setattr("common.training.personal.train_round", drifting)
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, LABELS))
    monkeypatch.setattr(running, "open_external", lambda *_: hospital("ext", LABELS[:9]))
    return policies


def chosen(folder, out, stage, holdout=0.3, rounds=3, head_rounds=1, **sections):
    parts = {
        "evaluation": {"holdout": holdout, "stage": stage, "every": 0},
        "training": {"head_rounds": head_rounds, "head_steps": 20},
        **sections,
    }
    return plan(folder, out, SITES, sections=parts, rounds=rounds)


def go(folder, out, grid, stage, node=NODE, **settings):
    federate(grid({1: node}), chosen(folder, out, stage, **settings))
    return json.loads((out / "report.json").read_text()), load_arrays(out / "model.safetensors")[0]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def after(out, number):
    return load_arrays(out / "checkpoints" / f"round-{number:04d}.safetensors")[0]


@pytest.mark.slow
def test_the_best_by_held_back_patients_is_kept_and_the_rest_told(folder, tmp_path, local_grid, sites) -> None:
    """The same by hand: from the checkpoints, on the pooled patients."""
    out = tmp_path / "run"
    report, kept = go(folder, out, local_grid, "auto")
    told, config = report["stage"], chosen(folder, out, "auto").config
    model = build_model(config)
    pooled = []
    for name in SITES:
        patients = hospital(name, LABELS)
        held = patients.select(np.flatnonzero(held_back(patients.ids, 0.3)))
        pooled.append(held.select(held.labelled))
    labels = np.concatenate([held.labels for held in pooled])
    found = candidates("auto", lambda number: after(out, number), 3, 1)
    answers = [np.concatenate([predict(TrainedModel(model, one.arrays, config), held) for held in pooled]) for one in found]
    values = losses([held_back_sums(labels, said, config) for said in answers])
    assert [row["name"] for row in told["candidates"]] == [one.name for one in found]
    assert [row["loss"] for row in told["candidates"]] == pytest.approx(values, abs=2e-3)
    assert told["kept"] == found[choose([row["loss"] for row in told["candidates"]])].name
    assert same(kept, next(one.arrays for one in found if one.name == told["kept"]))
    assert (told["sites"], told["patients"], told["failures"]) == (list(SITES), len(labels), {})
    raw = predict(TrainedModel(model, kept, config), hospital("ext", LABELS[:9]))
    guess = raw.argmax(1)[np.array(LABELS[:9]) >= 0]  # and it is what is measured at the external hospital
    assert list(report["decision"]["before"]["predicted"].values()) == np.bincount(guess, minlength=3).tolist()


def preferring(number):
    """A node whose answers speak for one candidate: the losses of all others are those of patients who are all called another."""

    def respond(message):
        content = NODE(message)
        if CALIBRATION in message.content and message.content[CALIBRATION]["stage"] == CHOOSE:
            sums = content[SUMS]
            best = {name.partition(".")[2]: array for name, array in sums.items() if name.startswith(f"{number:02d}.")}
            for name in list(sums):
                if not name.startswith(f"{number:02d}.") and "count" not in name and "confusion" not in name:
                    values = best[name.partition(".")[2]].numpy()
                    sums[name] = type(sums[name])(values + np.float32(2.0))
        return content

    return respond


@pytest.mark.slow
def test_what_is_kept_is_what_is_calibrated_and_an_earlier_round_can_be(folder, tmp_path, local_grid, sites) -> None:
    out = tmp_path / "run"
    sent = local_grid({1: preferring(2)})
    federate(sent, chosen(folder, out, "auto"))
    told = json.loads((out / "report.json").read_text())["stage"]
    assert told["kept"] == "round 1"  # of round 3, 2, 1, the average, and between
    kept = load_arrays(out / "model.safetensors")[0]
    assert same(kept, after(out, 1))
    assert not same(kept, after(out, 3))
    stages = [message.content[CALIBRATION]["stage"] for message in sent.sent if CALIBRATION in message.content]
    assert stages == [CHOOSE] * 2 + ["fit"] * 2 + ["score"] * 2
    for message in sent.sent:
        if CALIBRATION in message.content and message.content[CALIBRATION]["stage"] != CHOOSE:
            assert same({name: array.numpy() for name, array in message.content["arrays"].items()}, kept)


@pytest.mark.slow
def test_the_last_round_is_kept_by_default_and_nobody_is_asked(folder, tmp_path, local_grid, sites) -> None:
    grid = local_grid({1: NODE})
    federate(grid, chosen(folder, tmp_path / "run", "last", rounds=2))
    assert json.loads((tmp_path / "run" / "report.json").read_text())["stage"] == {}
    assert same(load_arrays(tmp_path / "run" / "model.safetensors")[0], after(tmp_path / "run", 2))
    stages = {message.content[CALIBRATION]["stage"] for message in grid.sent if CALIBRATION in message.content}
    assert stages == {"fit", "score"}


def test_an_average_needs_nobody_held_back(folder, tmp_path, local_grid, sites) -> None:
    report, kept = go(folder, tmp_path / "run", local_grid, "average", holdout=0.0)
    assert report["stage"] == {"asked": "average", "kept": "average of rounds 2 to 3", "why": UNASKED}
    two, three = (after(tmp_path / "run", number) for number in (2, 3))
    assert all(kept[name] == pytest.approx((two[name] + three[name]) / 2, abs=1e-6) for name in kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [({"holdout": 0.0}, "nobody is held back"), ({"rounds": 1}, NO_TUNING)],
)
def test_where_nothing_can_be_chosen_the_last_round_is_kept_and_the_report_says_why(
    folder, tmp_path, local_grid, sites, settings, says
) -> None:
    report, kept = go(folder, tmp_path / "run", local_grid, "auto", **settings)
    assert says in report["stage"]["why"]
    assert same(kept, after(tmp_path / "run", settings.get("rounds", 3)))


def test_sites_that_share_nothing_choose_nothing(folder, tmp_path, local_grid, sites) -> None:
    sites |= {name: replace(SitePolicy.simulation(), min_patients=10) for name in SITES}  # fewer are held back
    report, kept = go(folder, tmp_path / "run", local_grid, "best", rounds=2)
    assert report["stage"]["why"] == NOBODY
    assert set(report["stage"]["failures"]) == set(SITES)
    assert same(kept, after(tmp_path / "run", 2))


@pytest.mark.slow
def test_a_site_that_speaks_nonsense_has_no_part_in_the_choice(folder, tmp_path, local_grid, sites) -> None:
    def respond(message):
        content = NODE(message)
        asked = message.content[CALIBRATION]["stage"] if CALIBRATION in message.content else ""
        if asked == CHOOSE and message.content["config"]["site"] == "b":
            name = f"01.{CONFUSION}"
            content[SUMS][name] = type(content[SUMS][name])(
                np.diag([1, 0, 0]).astype(np.float32)
            )  # of one candidate other patients
        return content

    report, _ = go(folder, tmp_path / "run", local_grid, "best", node=respond, rounds=2)
    assert report["stage"]["sites"] == ["a"]
    assert set(report["stage"]["failures"]) == {"b"}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_a_run_killed_while_it_chooses_ends_in_the_same_bytes(folder, tmp_path, local_grid, sites) -> None:
    def killing(message):
        if CALIBRATION in message.content and message.content[CALIBRATION]["stage"] == CHOOSE:
            raise Killed
        return NODE(message)

    go(folder, tmp_path / "whole", local_grid, "auto")
    cut = chosen(folder, tmp_path / "cut", "auto")
    with pytest.raises(Killed):
        federate(local_grid({1: killing}), cut)
    federate(local_grid({1: NODE}), replace(cut, resume=True))
    for name in ("model.safetensors", CALIBRATION_NAME):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_damaged_checkpoint_keeps_the_last_round(folder, tmp_path, local_grid, sites, monkeypatch) -> None:
    def spoilt(run, template, number):
        (run / "checkpoints" / "round-0001.safetensors").write_bytes(b"nothing")
        return checkpoint(run, template, number)

    from server.run.checkpoint import load_like as checkpoint

    monkeypatch.setattr(running, "load_like", spoilt)
    report, kept = go(folder, tmp_path / "run", local_grid, "auto", rounds=2)
    assert report["stage"]["why"] == DAMAGED
    assert same(kept, after(tmp_path / "run", 2))
