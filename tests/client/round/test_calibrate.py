"""What a hospital tells to calibrate a model: by whose leave, of how many, and what the gate lets out."""

import hashlib
import json
import tomllib
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.gate.audit_log import LOG_NAME
from client.gate.gate import Gate
from client.gate.replay_guard import SPLIT_NAME
from client.policy.keeping import keep_back
from client.policy.leaving import require_leaving
from client.round import train as training
from client.round.dispatch import answer
from common.config.run import config_from_table
from common.config.site import SiteConfig, SitePolicy, SitePrivacy
from common.data.cases import Site
from common.data.holdout import held_back
from common.errors import PolicyError
from common.evaluation.calibration.calibration import Scaling
from common.evaluation.ood import score as ood
from common.messages.calibration import (
    CALIBRATION,
    CHOOSE,
    CONFUSION,
    COUNT,
    FIT,
    HAVING,
    NLL,
    OFFSETS,
    OOD_SCORES,
    SCORE,
    SCORES,
    SUMS,
    CalibrationRequest,
    write_asked,
)
from common.messages.code_version import code_hash
from common.messages.round import Task, pack_arrays, read_status
from common.models.arrays import get_arrays
from common.models.build import build_model
from tests.client.gate.test_gate import asked as asked_to_train
from tests.client.gate.test_gate import bundle, home, identity  # noqa: F401
from tests.server.made_up_sites import TINY, hospital

LABELS = (0, 1, 2, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2)
SECTIONS = tomllib.loads(TINY) | {"evaluation": {"holdout": 0.3}}
CONFIG = config_from_table(SECTIONS)
OPEN = SitePolicy.simulation()


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG)


@pytest.fixture
def site(monkeypatch):
    """A site in memory; call it with its policy."""

    def have(policy=OPEN, privacy=None, labels=LABELS, present=None):
        training._simulated_patients.cache_clear()
        settings = SiteConfig(policy=policy, privacy=privacy or SitePrivacy())
        patients = hospital("du", labels)
        patients = patients if present is None else replace(patients, present=present)
        monkeypatch.setattr(training, "read_site", lambda path, *_, **__: Site("du", path, (), settings))
        monkeypatch.setattr(training, "open_site", lambda *_, **__: patients)
        return patients

    yield have
    training._simulated_patients.cache_clear()


def request(model, wanted, config=CONFIG, reference=None, candidates=()):
    task = Task(2, config.to_json(), code_hash(), model.backbone_sha256, site="du", data="/sites", cache="/cache")
    return write_asked(task, pack_arrays(get_arrays(model)), wanted, reference, candidates)


def ask(model, wanted, **changes):
    content = answer(request(model, wanted, **changes), {}, RecordDict())
    return (
        read_status(content),
        {name: array.numpy() for name, array in content.array_records.get(SUMS, ArrayRecord()).items()},
        content,
    )


def test_a_site_that_shares_tells_sums_and_nothing_else(model, site) -> None:
    patients = site()
    held = held_back(patients.ids, 0.3)
    status, sums, content = ask(model, CalibrationRequest(FIT))
    assert (status.error, set(content)) == ("", {SUMS, "metrics", "site"})
    assert set(content["metrics"]) == {"num-examples", "labelled", "round"}
    assert sums[COUNT] == [int((held & (patients.labels >= 0)).sum())]
    assert sums[HAVING].tolist() == [int((~held).sum())] * 10 + [int(held.sum())] * 4  # modalities and pairs; adapted
    moments = pack_arrays(ood.add(*[{name: sums[name] for name in ood.NAMES}] * 2))
    status, sums, _ = ask(model, CalibrationRequest(SCORE, Scaling(1.5, (1.0, -0.5, -0.5))), reference=moments)
    assert (status.error, set(sums)) == ("", {SCORES, CONFUSION, OOD_SCORES})
    assert sums[SCORES].sum() == int((held & (patients.labels >= 0)).sum())
    _, sums, _ = ask(model, CalibrationRequest(SCORE, Scaling(1.5, (15.0, 0.0, 0.0))))
    assert set(sums) == {SCORES, CONFUSION}
    assert sums[CONFUSION].sum(1).tolist() == np.bincount(patients.labels[held & (patients.labels >= 0)], minlength=3).tolist()
    assert sums[CONFUSION].sum(0)[0] == sums[SCORES].sum()  # an offset of 15 names the first class for all


def test_each_candidate_is_judged_by_itself(model, site) -> None:
    """Its sums are those that a run whose last round it was would be calibrated by."""
    site()
    own = get_arrays(model)
    other = {
        name: (array + np.float32(0.1) * np.random.default_rng(0).normal(size=array.shape)).astype(np.float32)
        for name, array in own.items()
    }
    packed = [pack_arrays(own), pack_arrays(other)]
    status, sums, content = ask(model, CalibrationRequest(CHOOSE, candidates=2), candidates=packed)
    assert (status.error, set(content)) == ("", {SUMS, "metrics", "site"})
    _, alone, _ = ask(model, CalibrationRequest(FIT))
    names = (NLL, COUNT, OFFSETS, CONFUSION)
    assert set(sums) == {f"{k:02d}.{name}" for k in range(2) for name in names}
    assert all(np.array_equal(sums[f"00.{name}"], alone[name]) for name in names)
    assert not np.array_equal(sums[f"01.{NLL}"], alone[NLL])
    status, sums, _ = ask(model, CalibrationRequest(CHOOSE, candidates=2), candidates=packed[:1])
    assert (bool(status.error), sums) == (True, {})


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (SitePolicy(min_patients=1), "does not share sums"),
        (replace(OPEN, secure_only=True), "secure aggregation only"),
        (replace(OPEN, min_patients=9), "too few patients"),  # nine train, fewer are held back
        (replace(OPEN, backbone_sha256="f" * 64), "not the one that the site pinned"),
    ],
)
def test_a_policy_that_forbids_it_is_answered_with_its_sentence(model, site, policy, says) -> None:
    site(policy)
    for wanted in (CalibrationRequest(CHOOSE, candidates=1), CalibrationRequest(FIT), CalibrationRequest(SCORE)):
        status, sums, _ = ask(model, wanted, candidates=[pack_arrays(get_arrays(model))] * wanted.candidates)
        assert says in status.error
        assert sums == {}


def test_under_a_privacy_budget_nothing_is_told(model, site) -> None:
    site(privacy=SitePrivacy(epsilon=3.0))
    assert ask(model, CalibrationRequest(FIT))[0].error == "the site shares nothing without differential privacy"


def test_without_a_hold_out_or_a_pin_on_the_start_it_behaves(model, site) -> None:
    site()
    config = config_from_table(SECTIONS | {"evaluation": {"holdout": 0.0}})
    assert "too few patients" in ask(model, CalibrationRequest(FIT), config=config)[0].error
    site(replace(OPEN, initial_sha256="f" * 64))  # that is of the first round's arrays, not of the last's
    assert ask(model, CalibrationRequest(FIT))[0].error == ""


def test_a_site_without_labels_still_tells_what_is_strange(model, site) -> None:
    site(labels=(-1,) * 14)
    status, sums, _ = ask(model, CalibrationRequest(FIT))
    assert status.error == ""
    assert (sums[COUNT].tolist(), sums[NLL].max()) == ([0], 0)
    assert sums[HAVING].min() > 0


def test_modalities_that_few_have_are_left_out_of_the_moments(model, site) -> None:
    present = np.ones((14, 4), bool)
    present[2:, 1] = False  # two patients have it
    site(replace(OPEN, min_patients=3), present=present)
    status, sums, _ = ask(model, CalibrationRequest(FIT))
    assert status.error == ""
    assert sums[HAVING][1] == 0
    assert not sums["ood.sum"][1].any()
    assert not sums["ood.outer"][1].any()


OF_TWO = {
    COUNT: Array(np.array([2], np.float32)),
    CONFUSION: Array(np.diag([2, 0, 0]).astype(np.float32)),
    OFFSETS: Array(np.zeros((25, 25, 25), np.float32)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({"images": Array(np.zeros(9, np.float32))}, "not of the form"),
        ({NLL: Array(np.zeros(98, np.float32))}, "not of the form"),
        ({COUNT: Array(np.array([4.5], np.float32))}, "not of the form"),
        ({COUNT: Array(np.array([2], np.float32))}, "not of the form"),
        (OF_TWO, "too few patients"),
        ({HAVING: Array(np.array([9, 9, 2] + [9] * 11, np.float32))}, "too few patients"),
    ],
)
def test_the_gates_rules_over_a_reply_made_by_other_code(model, site, spoil, says) -> None:
    site()
    content = ask(model, CalibrationRequest(FIT))[2]
    policy = replace(OPEN, min_patients=3)
    require_leaving(content, request(model, CalibrationRequest(FIT)), policy)
    content[SUMS].update(spoil)
    with pytest.raises(PolicyError) as refused:
        require_leaving(content, request(model, CalibrationRequest(FIT)), policy)
    assert says in refused.value.public


def test_neither_losses_nor_updates_ride_along(model, site) -> None:
    site()
    wanted, honest = request(model, CalibrationRequest(FIT)), ask(model, CalibrationRequest(FIT))[2]
    for name, record in (("arrays", ArrayRecord()), ("secure", ConfigRecord({"a": 1})), ("x", MetricRecord({"a": 1}))):
        content = deepcopy(honest)
        content[name] = record
        with pytest.raises(PolicyError):
            require_leaving(content, wanted, OPEN)
    content = deepcopy(honest)
    content["metrics"]["loss"] = 0.5
    with pytest.raises(PolicyError):
        require_leaving(content, wanted, OPEN)
    with pytest.raises(PolicyError):  # and sums do not ride along with an update
        require_leaving(honest, asked_to_train(CONFIG)[0].content, OPEN)
    kept = keep_back(honest, SitePolicy(share_calibration=True))
    assert dict(kept["metrics"]) == {"num-examples": 1, "labelled": 1, "round": 2}
    assert SUMS in kept


CONTENT = """
    from flwr.app import RecordDict
    zeros = {{"calibration.nll": np.zeros(97, np.float32), "calibration.count": np.array([{count}], np.float32)}}
    shapes = {{"ood.count": (14,), "ood.sum": (14, {f}), "ood.outer": (14, {f}, {f})}}
    zeros["calibration.confusion"] = np.diag([{count}, 0, 0]).astype(np.float32)
    zeros["calibration.offsets"] = np.zeros((25, 25, 25), np.float32)
    zeros |= {{name: np.zeros(shape, np.float32) for name, shape in shapes.items()}}
    {spoil}
    content = reply(message, arrays).content
    del content["change"]
    content["sums"] = ArrayRecord({{name: Array(value) for name, value in zeros.items()}})
    return Message(content, reply_to=message)
"""


def through_the_gate(folder, tmp_path, policy, wanted=FIT, spoil="pass", count=12, config=CONFIG):
    (folder / "site.toml").write_text(f'name = "a"\n{policy}')
    for number in range(12):
        (folder / f"sub-{number}").mkdir(exist_ok=True)
    code = bundle(tmp_path, CONTENT.format(spoil=spoil, count=count, f=ood.WIDTH).strip())
    from client.gate.approvals import approve

    approve(folder, hashlib.sha256(code).hexdigest())
    message, context = asked_to_train(config)
    message.content[CALIBRATION] = ConfigRecord({"stage": wanted, "temperature": 1.0})
    content, _ = Gate(folder / "site.toml").answer(message, context, code)
    lines = [json.loads(line) for line in (folder / "state" / LOG_NAME).read_text().splitlines()]
    return read_status(content).error, content, lines


SHARES = "[policy]\nshare_calibration = true\n"


def test_the_gate_lets_sums_out_and_logs_them(home, tmp_path) -> None:  # noqa: F811
    error, content, lines = through_the_gate(home, tmp_path, SHARES)
    assert error == ""
    assert set(content[SUMS]) == {NLL, COUNT, OFFSETS, CONFUSION, *ood.NAMES}
    assert [(line["event"], line["calibration"]) for line in lines] == [("asked", FIT), ("answered", FIT)]
    assert lines[1]["arrays"] == sorted([NLL, COUNT, OFFSETS, CONFUSION, *ood.NAMES])


@pytest.mark.parametrize(
    ("policy", "config", "says"),
    [
        ("", CONFIG, "does not share sums"),
        (SHARES + "secure_only = true\n", CONFIG, "secure aggregation only"),
        (SHARES + "min_patients = 13\n", CONFIG, "too few patients"),  # twelve folders
        (SHARES + "[privacy]\nepsilon = 3.0\n", CONFIG, "differential privacy only"),
    ],
)
def test_the_gate_refuses_before_any_of_the_bundle_runs(home, tmp_path, policy, config, says) -> None:  # noqa: F811
    error, content, lines = through_the_gate(home, tmp_path, policy, config=config)
    assert says in error
    assert SUMS not in content
    assert not (tmp_path / "ran").exists()
    assert (lines[1]["event"], lines[1]["calibration"]) == ("refused", FIT)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"evaluation": {"holdout": 0.301}}, {"data": {"modalities": ["t1"]}}])
def test_the_gate_tells_sums_over_one_hold_out_only(home, tmp_path, change) -> None:  # noqa: F811
    table = {name: {**SECTIONS.get(name, {}), **value} if isinstance(value, dict) else value for name, value in change.items()}
    other = config_from_table(SECTIONS | table)
    error, content, _ = through_the_gate(home, tmp_path, SHARES, count=9)  # nothing has left: any hold-out may still be told
    assert SUMS not in content
    assert not (home / "state" / SPLIT_NAME).exists()
    for _ in range(2):
        assert through_the_gate(home, tmp_path, SHARES)[0] == ""
    seeded = config_from_table(SECTIONS | {"seed": 1})
    assert through_the_gate(home, tmp_path, SHARES, config=seeded)[0] == ""  # a seed decides nobody's side
    (tmp_path / "ran").unlink()
    error, content, _ = through_the_gate(home, tmp_path, SHARES, config=other)
    assert "another hold-out" in error
    assert SUMS not in content
    assert not (tmp_path / "ran").exists()
    (home / "state" / SPLIT_NAME).unlink()  # the hospital's own decision
    assert "another hold-out" not in through_the_gate(home, tmp_path, SHARES, config=other)[0]


@pytest.mark.parametrize(
    ("spoil", "count", "says"),
    [
        ("zeros['x'] = np.zeros(3, np.float32)", 12, "not of the form"),
        ("zeros['ood.sum'] = np.zeros((14, 3), np.float32)", 12, "not of the form"),
        ("pass", 9, "too few patients"),
    ],
)
def test_what_an_approved_bundle_tells_too_much_stays_here(home, tmp_path, spoil, count, says) -> None:  # noqa: F811
    error, content, _ = through_the_gate(home, tmp_path, SHARES, spoil=spoil, count=count)
    assert says in error
    assert SUMS not in content
