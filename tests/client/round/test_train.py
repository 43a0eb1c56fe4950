"""One round at a site: what it trains, what it refuses, and what never leaves it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from flwr.app import RecordDict

from client.policy.leaving import require_leaving
from client.round import train as training
from client.round.dispatch import answer
from client.round.site_context import SiteContext, find_site_context
from client.round.train import own_weights, site_seed, train_site
from common.config.run import config_from_table
from common.config.site import SiteConfig, SitePolicy, SitePrivacy
from common.data.cases import Case, Site
from common.data.dataset import SiteData
from common.errors import BUDGET_SPENT, ConfigError, DataError, FederationError, FedMRIError, WeightsError
from common.messages.code_version import code_hash
from common.messages.round import CHANGE, Task, pack_arrays, read_reply, write_task
from common.messages.secure_aggregation import request_hash
from common.messages.weights import LACKING
from common.messages.wire import WIRES
from common.models.arrays import arrays_sha256, get_arrays
from common.models.backbones.kept_weights import keep_shipped
from common.models.backbones.weights import SHIPPED, file_sha256
from common.models.build import build_model
from common.secure.fixed_point import UNCOUNTABLE

CONFIG = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": 8, "head_bottleneck": 4},
        "objective": {"local_crops": 1},
        "training": {"batch_size": 4, "precision": "fp32"},
        "federation": {"rounds": 2},
    }
)


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG)


def patients(labels=(0, 1, -1)) -> SiteData:
    rng = np.random.default_rng(0)
    n = len(labels)
    images = rng.random((n, 2, 4, 32, 32)).astype(np.float16)
    ids = tuple(f"sub-{i}" for i in range(n))
    return SiteData("du", ids, images, np.ones((n, 4), bool), np.array(labels, np.int64), "key")


@pytest.fixture
def site(monkeypatch):
    """A site in memory; returns a function that sets its policy, or the error that opening it raises."""
    opened = []

    def have(policy=None, error=None, data=None, privacy=None, cases=()):
        training._simulated_patients.cache_clear()

        def read_site(path: Path, *_, **__):
            opened.append(path)
            if error:
                raise error
            policies: dict[str, Any] = {"policy": policy or SitePolicy.simulation(), "privacy": privacy or SitePrivacy()}
            return Site("du", path, cases, SiteConfig(**policies))

        monkeypatch.setattr(training, "read_site", read_site)
        monkeypatch.setattr(training, "open_site", lambda *_, **__: data or patients())
        return opened

    yield have
    training._simulated_patients.cache_clear()


def ask(model, **changes):
    settings = {"round": 1, "config": CONFIG.to_json(), "code": code_hash(), "backbone": model.backbone_sha256}
    settings |= {"site": "du", "data": "/sites", "cache": "/cache"}
    template = get_arrays(model)
    content = answer(write_task(Task(**settings | changes), pack_arrays(template)), {}, RecordDict())
    return read_reply(content, template), content


def test_a_round_trains_and_the_policy_lets_counts_and_losses_go(model, site):
    opened = site()
    reply, _ = ask(model)
    assert (reply.site, reply.round, reply.error) == ("du", 1, "")
    assert (reply.patients, reply.labelled, reply.counts_shared) == (3, 2, True)
    assert reply.metrics["loss"] > 0
    assert any(change.any() for change in reply.update.change.values())
    assert opened == [Path("/sites/du")]


def test_the_same_round_gives_the_same_bytes_and_another_site_others(model, site):
    site()
    first, again, other = (pack_arrays(ask(model, site=name)[0].update.change) for name in ("du", "du", "cs"))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["int8", "bf16"])
def test_in_fewer_bits_what_a_round_loses_comes_with_the_next(model, site, tmp_path, name):
    """Two rounds in each form, from the same arrays: together they say what float32 says, to half a step."""
    site()
    wire, template = WIRES[name], get_arrays(model)
    config = replace(CONFIG, federation=replace(CONFIG.federation, wire=name))
    truth, rounds = [], []
    for number in (1, 2):
        told = {"round": number, "run": "r", "cache": str(tmp_path)}
        truth.append(ask(model, **told)[0].update.change)
        settings = {
            "config": config.to_json(),
            "code": code_hash(),
            "backbone": model.backbone_sha256,
            "site": "du",
            "data": "/sites",
        }
        asked = write_task(Task(**settings | told), pack_arrays(template))
        content = answer(asked, {}, RecordDict())
        rounds.append(read_reply(content, template, wire).update.change)
        require_leaving(content, asked, SitePolicy.simulation())  # as the gate judges it, from the message alone
    trained = [n for n in template if all(change[n].any() for change in truth)]
    assert trained
    for n in trained:
        np.testing.assert_array_equal(rounds[0][n], wire.rounded(truth[0][n]))
        left = truth[0][n] - rounds[0][n]
        np.testing.assert_array_equal(rounds[1][n], wire.rounded(truth[1][n] + left))
    again = answer(write_task(Task(**settings | told), pack_arrays(template)), {}, RecordDict())
    for n, change in read_reply(again, template, wire).update.change.items():  # a round that is played again
        np.testing.assert_array_equal(change, rounds[1][n])


def test_a_strict_policy_lets_no_number_out(model, site):
    site(SitePolicy())
    reply, content = ask(model)
    assert reply.error == ""
    assert dict(content["metrics"]) == {"num-examples": 1, "labelled": 1, "round": 1}
    assert not reply.counts_shared


def test_an_unlabelled_site_trains_too(model, site):
    site(data=patients((-1, -1, -1)))
    reply, _ = ask(model)
    assert (reply.error, reply.patients, reply.labelled) == ("", 3, 0)


def test_a_site_trains_the_rank_that_its_policy_allows_where_ranks_may_differ(model, site):
    """The components beyond it go to zero: the site's product is of its own rank, whatever the server sent."""
    site(replace(SitePolicy.simulation(), max_rank=1))
    config = config_from_table(json.loads(CONFIG.to_json()) | {"federation": {"rounds": 2, "low_rank": "svd"}})
    reply, _ = ask(model, config=config.to_json())
    sent = get_arrays(model)
    assert reply.error == ""
    for name in (name for name in sent if name.endswith("lora_a")):
        trained = sent[name] + reply.update.change[name]
        assert trained[0].any()
        assert sent[name][1:].any()
        assert not trained[1:].any()


def test_a_site_of_smaller_rank_takes_no_part_where_ranks_may_not_differ(model, site):
    site(replace(SitePolicy.simulation(), max_rank=1))
    reply, _ = ask(model)
    assert reply.error == "the site trains adapters of rank 1 at most, and the run does not let ranks differ"
    site(replace(SitePolicy.simulation(), max_rank=2))  # the run's own
    assert ask(model)[0].error == ""


def test_only_the_public_sentence_of_an_error_leaves(model, site):
    site(error=DataError("Patient sub-Smith, /data/sub-Smith/T1w.nii.gz: truncated"))
    reply, content = ask(model)
    assert reply.error == DataError.public_default
    assert "Smith" not in str(content)
    assert CHANGE not in content


def test_an_unknown_error_leaves_as_its_kind_alone(model, site):
    site(error=ZeroDivisionError("patient Smith has 0 slices"))
    reply, content = ask(model)
    assert "ZeroDivisionError" in reply.error
    assert "Smith" not in str(content)


def test_a_simulated_site_is_opened_once_even_if_it_is_broken(model, site):
    opened = site(error=DataError("broken"))
    ask(model)
    ask(model, round=2)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"code": "f" * 64}, "code is not the server's"),
        ({"backbone": "f" * 64}, "backbone weights are not the agreed ones"),
        ({"config": '{"nonsense": 1}'}, "configuration was refused"),
        ({"site": "../du"}, "could not go on"),
        ({"site": ""}, "configuration was refused"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(model, site, changes, says):
    opened = site()
    reply, _ = ask(model, **changes)
    assert says in reply.error
    assert opened == []


def test_a_site_that_sends_masked_updates_only_refuses_a_plain_run(model, site):
    site(replace(SitePolicy.simulation(), secure_only=True))
    reply, content = ask(model)
    assert reply.error == "the site takes part in secure aggregation only"
    assert CHANGE not in content


def sealed_round(model, config, labels=(0, 1, -1), arrays=None, seal=None):
    """What a secure round asks of training: `train_site` with the hash that the sites have agreed on."""
    template = get_arrays(model)
    task = Task(1, config.to_json(), code_hash(), model.backbone_sha256, site="du", data="/sites", cache="/cache")
    content = write_task(task, pack_arrays(arrays or template))
    return train_site(content, task, find_site_context(task, {}), sealed=seal or request_hash(task, template))


SECURE = replace(CONFIG, secure=replace(CONFIG.secure, enabled=True))


def test_a_plain_request_in_a_secure_run_and_the_other_way_round_are_refused(model, site):
    site()
    reply, content = ask(model, config=SECURE.to_json())
    assert reply.error == FederationError.public_default
    assert CHANGE not in content
    with pytest.raises(FederationError, match="not of the kind"):
        sealed_round(model, CONFIG)


def test_a_secure_round_trains_what_all_sites_agreed_on_and_nothing_else(model, site):
    site()
    reply, _ = sealed_round(model, SECURE)
    assert (reply.patients, reply.labelled) == (3, 2)
    moved = {name: array + 1 for name, array in get_arrays(model).items()}
    with pytest.raises(FederationError, match="not the one that the round began with"):
        sealed_round(model, SECURE, arrays=moved)


def test_a_site_without_weight_stands_in_no_sum_and_is_refused_before_it_trains(model, site, monkeypatch):
    """The sum would be the others' alone, and of fewer than they believe."""
    site(data=patients((-1, -1)))
    monkeypatch.setattr(training, "personal_round", lambda *_, **__: pytest.fail("trained"))
    weightless = replace(SECURE, federation=replace(SECURE.federation, unlabelled_weight=0.0))
    with pytest.raises(FederationError, match="weight in the round is 0") as caught:
        sealed_round(model, weightless)
    assert caught.value.public == UNCOUNTABLE


def test_a_limit_that_the_server_moves_refuses_nobody(model, site):
    site()
    reply, _ = sealed_round(model, replace(SECURE, secure=replace(SECURE.secure, max_weight=1.0)))
    assert reply.patients == 3


def test_a_private_run_does_not_tell_that_a_patients_file_is_unreadable(model, site):
    site(error=DataError("Patient sub-7: damaged"))
    reply, _ = ask(model, config=PRIVATE.to_json())
    assert reply.error == FedMRIError.public_default != DataError.public_default
    reply, _ = ask(model)
    assert reply.error == DataError.public_default


def test_arrays_of_another_model_are_refused(model, site):
    site()
    task = Task(1, CONFIG.to_json(), code_hash(), model.backbone_sha256, "du", "/sites", "/cache")
    content = answer(write_task(task, pack_arrays({"w": np.zeros(3, np.float32)})), {}, RecordDict())
    assert read_reply(content, {}).error == FederationError.public_default


def test_an_empty_message_gets_an_answer():
    assert read_reply(answer(RecordDict(), {}, RecordDict()), {}).error == FederationError.public_default


def test_a_hospitals_node_opens_its_own_folder_whatever_the_request_says():
    context = find_site_context(Task(1, "", "", "", site="cs", data="/etc"), {"site-config": "/srv/du/site.toml"})
    assert (context.name, context.folder, context.simulated) == ("du", Path("/srv/du/site.toml"), False)


@pytest.mark.parametrize("name", ["../du", "a/b", "..", "/etc"])
def test_a_request_cannot_name_a_folder_elsewhere(name):
    with pytest.raises(FederationError, match="no plain folder name"):
        find_site_context(Task(1, "", "", "", site=name, data="/sites"), {})


def test_a_node_without_a_site_says_how_to_get_one():
    with pytest.raises(ConfigError, match="--node-config"):
        find_site_context(Task(1, "", "", ""), {})


def test_seeds_differ_by_site_round_and_run_but_never_by_process():
    seeds = {site_seed(s, name, r) for s in (0, 1) for name in ("a", "b") for r in (1, 2)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert site_seed(0, "a", 1) == 886027111  # `printf 0/a/1 | sha256sum`, first 32 bits, halved


PRIVATE = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": 8, "head_bottleneck": 4},
        "objective": {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "local_crops": 0},
        "training": {"precision": "fp32"},
        "privacy": {"enabled": True, "steps": 2, "sample_rate": 0.5, "noise_multiplier": 1.0},
        "federation": {"rounds": 2},
    }
)


@pytest.mark.slow
def test_a_private_round_is_charged_and_tells_what_is_spent(model, site, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 9, (5, 5, 5)).astype(np.int16)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "t1.nii")
    site(SitePolicy(), cases=(Case("sub-0", {"t1": tmp_path / "t1.nii"}, None, 0, None, None),))
    told = [ask(model, config=PRIVATE.to_json(), cache=str(tmp_path), run="run-1")[0] for _ in range(2)]
    assert [reply.error for reply in told] == ["", ""]
    assert 0 < told[0].epsilon < told[1].epsilon
    assert told[1].metrics == {}
    other, _ = ask(model, config=PRIVATE.to_json(), cache=str(tmp_path), run="run-2")
    assert other.epsilon == told[0].epsilon  # virtual patients are new in every run


def test_a_budget_refuses_what_would_exceed_it(model, site, tmp_path):
    site(privacy=SitePrivacy(epsilon=1.0))
    reply, _ = ask(model, config=PRIVATE.to_json(), cache=str(tmp_path))
    assert reply.error == BUDGET_SPENT
    reply, _ = ask(model)
    assert reply.error == "the site trains with differential privacy only"


@pytest.mark.parametrize("pin", ["backbone_sha256", "initial_sha256"])
def test_a_pinned_site_trains_the_agreed_run_only(model, site, pin):
    agreed = {"backbone_sha256": model.backbone_sha256, "initial_sha256": arrays_sha256(get_arrays(model))}
    site(SitePolicy(**agreed))
    assert ask(model)[0].error == ""
    site(SitePolicy(**{**agreed, pin: "0" * 64}))
    assert ask(model)[0].error == f"the run is not the one that the site pinned ({pin})"


def test_only_the_first_round_starts_from_the_pinned_adapters(model, site):
    site(SitePolicy(initial_sha256="0" * 64))
    assert ask(model, round=2)[0].error == ""


def test_frozen_weights_are_looked_for_with_the_site_and_nowhere_else(tmp_path) -> None:
    """Not beside the code, where a bundle has none, and not in a cache, which may be deleted."""
    context = SiteContext("a", tmp_path / "site.toml", tmp_path / "cache", simulated=False)
    phantom, sha256 = config_from_table({"model": {"weights": "phantom"}}), file_sha256(SHIPPED)
    context.folder.write_text("")
    with pytest.raises(WeightsError, match=f"{sha256}.*fedmri-site weights add") as lacking:
        own_weights(context, phantom, sha256)
    assert lacking.value.public == LACKING
    for named in ("hub", "random"):
        assert own_weights(context, config_from_table({"model": {"weights": named}}), "b" * 64) == ""
    context.folder.write_text('[connection]\nweights = "mine.pth"\n')
    assert own_weights(context, phantom, sha256) == str(tmp_path / "mine.pth")
    keep_shipped(tmp_path / "weights")
    assert own_weights(context, phantom, sha256) == str(tmp_path / "weights" / f"{sha256}.safetensors")
    assert own_weights(replace(context, simulated=True), phantom, sha256) == ""
