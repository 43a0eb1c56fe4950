"""A whole run that calibrates, in this process; and sites that do not answer, refuse, or answer nonsense."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, RecordDict

from client.round import train as training
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.data.holdout import held_back
from common.errors import DataError
from common.evaluation.calibration.calibration import (
    CALIBRATION_NAME,
    Calibration,
    conformal_threshold,
    load_calibration,
    save_calibration,
    score_histogram,
)
from common.evaluation.calibration.offsets import fit_scaling, offset_sums
from common.evaluation.ood import score as ood
from common.evaluation.ood.features import features
from common.messages.calibration import CALIBRATION, CONFUSION, COUNT, NLL, OFFSETS, OOD_SCORES, REFERENCE, SCORES, SUMS
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from server.run import federate as running
from server.run.calibrate import Calibrated, calibrate
from server.run.federate import federate, site_task
from server.strategy.round_loop import FedMRIAvg
from tests.server.made_up_sites import hospital, plan, site_nodes

LABELS = (0, 1, 2, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2)
SITES = ("a", "b", "c")
HELD = {"evaluation": {"holdout": 0.3}}


@pytest.fixture
def sites(folder, monkeypatch):
    """Three sites of eighteen patients each; returns the table of their policies, to be changed."""
    policies: dict[str, SitePolicy] = {}

    def read_site(path, *_, **__):
        if path.name == "broken":
            raise DataError("Patient sub-1: truncated")
        return Site(path.name, path, (), SiteConfig(policy=policies.get(path.name, SitePolicy.simulation())))

    monkeypatch.setattr(training, "read_site", read_site)
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, LABELS))
    monkeypatch.setattr(running, "open_external", lambda *_: hospital("ext", LABELS[:9]))
    return policies


def go(folder, out, grid, names=SITES, **settings):
    chosen = plan(folder, out, names, sections=HELD, **{"rounds": 1, **settings})
    federate(grid(site_nodes(1)), chosen)
    return chosen, json.loads((out / "report.json").read_text())


@pytest.fixture
def ask(folder, tmp_path, local_grid, sites):
    """Only the two exchanges, with the untrained model: ask(nodes) gives what came of them."""
    chosen = plan(folder, tmp_path, SITES, sections=HELD, rounds=1, round_timeout=1.0)
    model = build_model(chosen.config)
    template = get_arrays(model)

    def asked(node=NODE) -> Calibrated:
        strategy = FedMRIAvg(chosen.config.federation, site_task(chosen, model, "run"), template, SITES, chosen.config)
        return calibrate(local_grid({1: node}), strategy, template, chosen.config, 1)

    return asked


NODE = site_nodes(1)[1]


def spoilt(spoil, known):
    """A node whose answers for site b go through `spoil`.

    Args:
        spoil: from a reply's content and its stage (`fit` or `score`) to what is sent instead.
        known: honest answers by request, so that equal ones are computed once.
    """

    def respond(message):
        site, asked = message.content["config"]["site"], message.content[CALIBRATION]
        reference = message.content.array_records.get(REFERENCE, {})
        key = (site, asked["stage"], asked["temperature"], *asked["offsets"], *(array.data for array in reference.values()))
        if key not in known:
            known[key] = NODE(message)
        content = deepcopy(known[key])
        return spoil(content, asked["stage"]) if site == "b" else content

    return respond


@pytest.mark.slow
def test_a_run_calibrates_on_patients_who_never_trained(folder, tmp_path, local_grid, sites) -> None:
    chosen, report = go(folder, tmp_path / "run", local_grid, (*SITES, "broken"))
    config, told = chosen.config, report["calibration"]
    model = build_model(config)
    arrays, _ = load_arrays(tmp_path / "run" / "model.safetensors")
    parts = {}
    for name in SITES:
        patients = hospital(name, LABELS)
        held = held_back(patients.ids, 0.3)
        assert 0 < held.sum() < len(held)
        parts[name] = patients.select(np.flatnonzero(~held)), patients.select(np.flatnonzero(held))
    known = [held.select(held.labelled) for _, held in parts.values()]
    labels = np.concatenate([held.labels for held in known])
    answers = np.concatenate([predict(TrainedModel(model, arrays, config), held) for held in known])
    scaling = fit_scaling(offset_sums(labels, answers), np.bincount(labels, minlength=3))
    calibration, moments = load_calibration(tmp_path / "run" / CALIBRATION_NAME)
    assert calibration.temperature == told["temperature"] == pytest.approx(scaling.temperature, rel=1e-3)
    assert list(calibration.offsets) == told["offsets"] == pytest.approx(scaling.offsets, abs=1e-3)
    assert np.abs(calibration.offsets).max() > 0.1
    histogram = score_histogram(labels, calibration.scaling.apply(answers))
    assert calibration.set_threshold == told["conformal"]["threshold"] == conformal_threshold(histogram, 0.9)
    assert calibration.sites == tuple(told["sites"]) == SITES
    assert calibration.patients == told["patients"] == len(labels)
    assert told["failures"] == {"broken": DataError.public_default}
    felt = [[features(TrainedModel(model, arrays, config), patients) for patients in both] for both in parts.values()]
    expected = ood.add(*(ood.moments(both[0], both[1]) for both in felt))
    assert all(np.allclose(moments[name], expected[name], rtol=1e-4, atol=1e-4) for name in expected)
    raw = predict(TrainedModel(model, arrays, config), hospital("ext", LABELS[:9]))
    found = np.array([patient["probabilities"] for patient in report["patients"]])
    assert found == pytest.approx(calibration.scaling.apply(raw))
    decision = report["decision"]
    assert list(decision["offsets"].values()) == list(calibration.offsets)
    for when, said in (("before", raw), ("after", found)):
        guess = said.argmax(1)[np.array(LABELS[:9]) >= 0]
        assert list(decision[when]["predicted"].values()) == np.bincount(guess, minlength=3).tolist()
    own = {"before": answers, "after": calibration.scaling.apply(answers)}
    for when, said in own.items():
        assert list(decision["held_back"][when]["predicted"].values()) == np.bincount(said.argmax(1), minlength=3).tolist()
    assert list(decision["held_back"]["truth"].values()) == np.bincount(labels, minlength=3).tolist()
    assert report["external"]["ece"] == pytest.approx(told["after"]["ece"])
    assert report["external"]["brier"] == pytest.approx(told["after"]["brier"])
    for patient in report["patients"]:
        best = config.task.classes[int(np.argmax(patient["probabilities"]))]
        assert best in patient["prediction_set"]
        alarm = patient["ood"]["score"] > calibration.ood_threshold
        assert patient["ood"]["flagged"] is (True if alarm else None)  # 15 held-back patients raise one, and vouch for nobody
    assert report["ood"]["of"] == 9
    assert report["ood"]["flagged"] == sum(patient["ood"]["flagged"] is True for patient in report["patients"])
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_who_is_held_back_never_trains(folder, tmp_path, local_grid, sites, monkeypatch) -> None:
    """Change the image and the label of one held-back patient: the model's bytes stay; of one who trains: they do not."""
    ids = hospital("a", LABELS).ids
    held = held_back(ids, 0.3)
    models = []
    for number, row in enumerate((None, int(np.argmax(held)), int(np.argmax(~held)))):

        def opened(site, *_, row=row, **__):
            patients = hospital(site.name, LABELS)
            if row is None or site.name != "a":
                return patients
            labels = patients.labels.copy()
            labels[row] = (labels[row] + 1) % 3
            images = np.array(patients.images)
            images[row] = 0.25
            return replace(patients, labels=labels, images=images)

        training._simulated_patients.cache_clear()
        monkeypatch.setattr(training, "open_site", opened)
        go(folder, tmp_path / str(number), local_grid, ("a", "b"))
        models.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    assert models[0] != models[2]


@pytest.mark.slow
def test_the_counts_that_weigh_are_of_those_who_train(folder, tmp_path, local_grid, sites) -> None:
    grid = local_grid(site_nodes(1))
    seen: list[RecordDict] = []
    push = grid.push_messages
    grid.push_messages = lambda messages: (push(messages), seen.extend(reply.content for reply in grid.replies))[0]  # type: ignore[method-assign]
    federate(grid, plan(folder, tmp_path / "run", ("a", "b"), sections=HELD, rounds=1))
    held = held_back(hospital("a", LABELS).ids, 0.3)
    counts = {(content["metrics"]["num-examples"], content["metrics"]["labelled"]) for content in seen}
    assert counts == {(int((~held).sum()), int((~held & (np.array(LABELS) >= 0)).sum()))}


def set_array(name, values):
    def spoil(content, stage):
        if name in content[SUMS]:
            content[SUMS][name] = Array(np.asarray(values(content[SUMS][name].numpy())))
        return content

    return spoil


def drop(wanted):
    return lambda content, stage: None if stage == wanted else content


NONSENSE = {
    "no answer": drop("fit"),
    "no answer to the second": drop("score"),
    "not finite": set_array(NLL, lambda a: np.full_like(a, np.nan)),
    "negative losses": set_array(NLL, lambda a: -a),
    "losses of more patients": set_array(NLL, lambda a: a * 1e6),
    "negative counts": set_array(COUNT, lambda a: -a),
    "parts of patients": set_array(COUNT, lambda a: a + 0.5),
    "another shape": set_array(NLL, lambda a: a[:-1]),
    "another type": set_array(COUNT, lambda a: a.astype(np.float64)),
    "scores of others": set_array(SCORES, lambda a: a + 1),
    "negative scores": set_array(SCORES, lambda a: np.where(a == 0, -1, a).astype(np.float32)),
    "negative out-of-distribution counts": set_array(OOD_SCORES, lambda a: a - 1),
    "classes of others": set_array(CONFUSION, lambda a: a + 1),
    "a spike in the offsets' losses": set_array(OFFSETS, lambda a: a + 50 * (np.arange(a.size) == 9000).reshape(a.shape)),
    "no losses by offset": set_array(OFFSETS, lambda a: a[:, :1]),
    "moments of nobody": set_array("ood.count", lambda a: a * 0),
    "moments without spread": set_array("ood.outer", lambda a: a * 0),
    "moments beyond all bounds": set_array("ood.outer", lambda a: a * np.float32(1e30)),
    "an empty reply": lambda content, stage: RecordDict({}),
    "more than asked": lambda content, stage: (content[SUMS].__setitem__("x", Array(np.zeros(1, np.float32))), content)[1],
}


@pytest.mark.slow
def test_nonsense_weighs_nothing_and_is_named(ask, sites, subtests) -> None:
    sites["b"] = replace(SitePolicy.simulation(), share_calibration=False)
    honest = ask()
    assert honest.failures == {"b": "the site does not share sums for calibration"}
    sites.clear()
    training._simulated_patients.cache_clear()
    known: dict[tuple[object, ...], RecordDict] = {}
    for name, spoil in NONSENSE.items():
        with subtests.test(name):
            found = ask(spoilt(spoil, known))
            assert found.calibration == honest.calibration
            assert list(found.failures) == ["b"]
            assert all(np.array_equal(found.moments[key], honest.moments[key]) for key in honest.moments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"share_calibration": False}, "does not share sums"),
        ({"min_patients": 12}, "too few patients"),
    ],
)
def test_if_nobody_answers_the_run_ends_uncalibrated_and_says_why(ask, sites, changes, says) -> None:
    sites |= {name: replace(SitePolicy.simulation(), **changes) for name in SITES}
    found = ask()
    assert found.calibration == Calibration()
    assert all(says in found.failures[name] for name in SITES)
    assert (found.moments, found.scorable) == ({}, False)


def test_one_site_alone_calibrates_but_scores_nobody_as_strange(ask, sites, tmp_path) -> None:
    sites |= {name: replace(SitePolicy.simulation(), share_calibration=False) for name in ("a", "b")}
    sites["c"] = replace(SitePolicy.simulation(), share_counts=False)
    found = ask()
    assert found.calibration.sites == ("c",)
    assert found.calibration.patients is None  # the site keeps its number
    assert (found.scorable, found.calibration.ood_threshold) == (False, np.inf)
    assert found.moments == {}  # they are one hospital's own
    save_calibration(tmp_path / CALIBRATION_NAME, found.calibration, found.moments)
    assert load_calibration(tmp_path / CALIBRATION_NAME) == (found.calibration, {})


@pytest.mark.slow
def test_features_that_no_site_could_make_the_threshold_with_are_not_published(ask, sites) -> None:
    """Two sites hold five patients back each: ten would make a Gaussian, but each site has only the other's five."""
    sites["c"] = replace(SitePolicy.simulation(), share_calibration=False)
    found = ask()
    counts = found.moments["ood.count"]
    assert counts[:10].min() >= 2 * ood.MIN_COUNT  # modalities and pairs, of those who trained
    assert not counts[10:].any()
    assert not found.moments["ood.outer"][10:].any()


@pytest.mark.slow
def test_a_run_that_nobody_calibrates_ends_all_the_same(folder, tmp_path, local_grid, sites) -> None:
    sites |= {name: replace(SitePolicy.simulation(), share_calibration=False) for name in ("a", "b")}
    _, report = go(folder, tmp_path / "run", local_grid, ("a", "b"))
    told = report["calibration"]
    assert (told["temperature"], told["sites"], told["patients"]) == (1.0, [], 0)
    assert set(told["failures"]) == {"a", "b"}
    assert told["before"] == told["after"]
    assert report["ood"] is None
    assert report["decision"]["no_offsets"] == "No class offsets: no site gave sums to fit them to."
    assert report["decision"]["before"] == report["decision"]["after"]
    assert {patient["prediction_set"] is None for patient in report["patients"]} == {True}
    assert not (tmp_path / "run" / CALIBRATION_NAME).exists()


@pytest.mark.slow
def test_without_a_hold_out_nobody_is_asked(folder, tmp_path, local_grid, sites) -> None:
    grid = local_grid(site_nodes(1))
    federate(grid, plan(folder, tmp_path / "run", ("a", "b"), rounds=1))
    assert not any(CALIBRATION in message.content for message in grid.sent)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["calibration"], report["ood"]) == (None, None)
    assert "nobody is held back" in report["decision"]["no_offsets"]


class Killed(BaseException):
    """The process ends here."""


def killing(stage):
    def respond(message):
        if CALIBRATION in message.content and message.content[CALIBRATION]["stage"] == stage:
            raise Killed
        return NODE(message)

    return respond


@pytest.mark.slow
def test_a_run_killed_while_it_calibrates_goes_on_without_training(folder, tmp_path, local_grid, sites) -> None:
    chosen, whole = go(folder, tmp_path / "whole", local_grid, ("a", "b"))
    cut = replace(chosen, out=tmp_path / "cut")
    for stage in ("fit", "score"):
        with pytest.raises(Killed):
            federate(local_grid({1: killing(stage)}), replace(cut, resume=stage == "score"))
        assert not (tmp_path / "cut" / "report.json").exists()
    grid = local_grid({1: NODE})
    federate(grid, replace(cut, resume=True))
    assert all(CALIBRATION in message.content for message in grid.sent)
    for name in ("model.safetensors", CALIBRATION_NAME):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    other = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert all(whole[key] == other[key] for key in ("calibration", "ood", "patients"))


def test_a_site_that_takes_part_in_secure_aggregation_only_is_named(ask, sites) -> None:
    sites["a"] = replace(SitePolicy.simulation(), secure_only=True)
    found = ask()
    assert found.calibration.sites == ("b", "c")
    assert found.failures == {"a": "the site takes part in secure aggregation only"}


@pytest.mark.slow
def test_under_secure_aggregation_the_temperature_alone_is_fitted_and_the_report_says_so(folder, tmp_path, local_grid, sites):
    sections = HELD | {"secure": {"enabled": True}}
    grid = local_grid(site_nodes(3))
    seen: list[RecordDict] = []
    push = grid.push_messages
    grid.push_messages = lambda messages: (push(messages), seen.extend(reply.content for reply in grid.replies))[0]  # type: ignore[method-assign]
    federate(grid, plan(folder, tmp_path / "run", SITES, sections=sections, rounds=1))
    told = [set(content[SUMS]) for content in seen if SUMS in content]
    assert told
    assert not any({OFFSETS, CONFUSION} & names for names in told)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["calibration"]["temperature"] != 1
    assert report["calibration"]["offsets"] == []
    assert "would leave in the clear" in report["decision"]["no_offsets"]
    assert report["decision"]["held_back"] is None


@pytest.mark.slow
def test_where_the_sites_have_no_patient_of_a_class_the_temperature_alone_is_fitted(ask, sites, monkeypatch) -> None:
    labels = [label if label < 2 else -1 for label in LABELS]
    monkeypatch.setattr(training, "open_site", lambda site, *_, **__: hospital(site.name, labels))
    found = ask()
    assert found.calibration.sites == SITES
    assert found.calibration.offsets == ()
    assert "a class has no held-back patient" in found.no_offsets


def test_a_site_that_keeps_its_numbers_keeps_them_out_of_the_decision(ask, sites) -> None:
    sites["b"] = replace(SitePolicy.simulation(), share_counts=False)
    found = ask()
    assert found.calibration.offsets
    assert found.confusion is None
