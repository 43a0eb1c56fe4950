"""Secure rounds through the strategy and the sites' own door, with nodes that fail in every stage."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from client.round import dispatch as site
from client.round import train as training
from client.round.dispatch import answer
from client.round.site_context import SiteContext
from common.config.run import RunConfig, config_from_table
from common.config.site import SiteConfig, SitePolicy
from common.data.cases import Site
from common.errors import BUDGET_SPENT, FederationError, PrivacyError
from common.messages.code_version import code_hash
from common.messages.round import ARRAYS, SiteReply, Task, pack_arrays, read_task, unpack_arrays, write_task
from common.messages.secure_aggregation import MASKED, SECURE, request_hash
from common.messages.update import Update
from common.secure.fixed_point import UNCOUNTABLE
from server.strategy.secure_round_loop import SecureAvg

LIKE = {"v": np.zeros((2, 2), np.float32), "w": np.zeros(3, np.float32)}
SITES = ("a", "b", "c", "d")
WEIGHTS = {"a": 10, "b": 20, "c": 30, "d": 40}


def config(**secure: Any) -> RunConfig:
    return config_from_table({"secure": {"enabled": True, **secure}, "federation": {"min_sites": 2, "round_retries": 1}})


def trained(current: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """What a site's training makes of the global arrays."""
    generator = np.random.default_rng(ord(name))
    return {key: (a + generator.normal(0, 0.01, a.shape)).astype(np.float32) for key, a in current.items()}


@pytest.fixture
def play(local_grid, monkeypatch) -> Callable:
    """Run a federation; `lost` names sites and the stage that they do not answer."""
    trainings: list[str] = []
    asked: dict[str, Any] = {"spent": (), "scale": {}}

    def train_site(content: RecordDict, task: Task, place: SiteContext, *, sealed: bytes | None = None):
        assert sealed == request_hash(task, unpack_arrays(content.array_records[ARRAYS], LIKE))
        trainings.append(place.name)
        if place.name in asked["spent"]:
            raise PrivacyError("spent", public=BUDGET_SPENT)
        current = unpack_arrays(content.array_records[ARRAYS], LIKE)
        patients = WEIGHTS[place.name]
        scale = asked["scale"].get(place.name, 1.0)
        arrays = {key: np.float32(scale) * a for key, a in trained(current, place.name).items()}
        update = Update.between(arrays, current)
        reply = SiteReply(place.name, task.round, update=update, patients=patients, labelled=patients, epsilon=0.5)
        return reply, Site(place.name, place.folder, (), SiteConfig())

    monkeypatch.setattr(site, "train_site", train_site)

    def play_once(run: RunConfig, lost=None, rounds: int = 1, nodes: int = 4, spent=(), scale=None, once=False):
        asked.update(spent=spent, scale=scale or {})
        lost = dict(lost or {})
        trainings.clear()
        memory = {number: RecordDict() for number in range(nodes)}

        def node(number: int) -> Callable[[Message], RecordDict | None]:
            def respond(message: Message) -> RecordDict | None:
                stage, name = message.content[SECURE]["stage"], read_task(message.content).site
                if lost.get(name) == stage:
                    if once:
                        del lost[name]
                    return None
                return answer(message.content, {}, memory[number])

            return respond

        grid, records = local_grid({number: node(number) for number in range(nodes)}), []
        task = Task(1, run.to_json(), code_hash(), "backbone", data="/data")
        strategy = SecureAvg(run, task, LIKE, SITES)
        result = strategy.start(
            grid, pack_arrays(LIKE), rounds, 0.1, on_round=lambda record, arrays: records.append((record, arrays))
        )
        return unpack_arrays(result.arrays, LIKE), records, grid, list(trainings), memory

    vars(play_once)["trainings"] = trainings
    return play_once


def mean_of(names: str) -> Iterator[tuple[str, np.ndarray]]:
    total = sum(WEIGHTS[name] for name in names)
    for key in LIKE:
        yield key, np.sum([WEIGHTS[name] / total * trained(LIKE, name)[key].astype(np.float64) for name in names], axis=0)


@pytest.mark.parametrize(
    ("lost", "summed"),
    [({}, "abcd"), ({"b": "keys"}, "acd"), ({"b": "shares"}, "acd"), ({"b": "masked"}, "acd"), ({"b": "unmask"}, "abcd")],
    ids=str,
)
def test_the_model_is_the_plain_mean_of_those_in_the_sum(play, lost: dict[str, str], summed: str) -> None:
    arrays, [(record, _)], _, _, memory = play(config(), lost)
    for key, expected in mean_of(summed):
        np.testing.assert_allclose(arrays[key], expected, rtol=1e-4, atol=1e-7)
    assert record.sites == tuple(summed)
    assert list(record.failures) == list(lost)
    assert record.epsilon == dict.fromkeys(summed, 0.5)
    assert record.train == {}  # nothing of a single site is told
    for number, state in memory.items():  # what is left of the round's secrets is only at the site that went away
        secrets = [name for name in state if not name.startswith(f"{SECURE}-done")]
        assert secrets == ([f"{SECURE}-b"] if SITES[number] in lost and lost["b"] in ("masked", "unmask", "shares") else [])


def test_rounds_follow_each_other(play) -> None:
    arrays, records, *_ = play(config(), rounds=3)
    assert [record.round for record, _ in records] == [1, 2, 3]
    for key, one in mean_of("abcd"):
        np.testing.assert_allclose(arrays[key], 3 * one, rtol=1e-4, atol=1e-6)


def test_nothing_that_a_site_says_tells_its_weight_or_its_update(play) -> None:
    """Replies are collected as the server gets them: no arrays but the masked ones, no counts, no losses."""
    _, [(record, _)], grid, *_ = play(config())
    assert record.bytes_up > 4 * (1 + 7) * 4
    assert record.bytes_down > 0
    assert all(ARRAYS in m.content.array_records or m.content[SECURE]["stage"] != "masked" for m in grid.sent)


def test_replies_hold_no_counts(play, monkeypatch) -> None:
    seen: list[RecordDict] = []
    real = vars(site)["write_stage_reply"]
    monkeypatch.setattr(site, "write_stage_reply", lambda reply, told: seen.append(real(reply, told)) or seen[-1])
    play(config())
    assert len(seen) == 16
    for content in seen:
        assert ARRAYS not in content
        assert content["metrics"]["num-examples"] == content["metrics"]["labelled"] == 1
        assert set(content["metrics"]) == {"num-examples", "labelled", "round"}
    assert sum(MASKED in content for content in seen) == 4


def test_too_few_sites_fail_cleanly_before_anything_is_trained(play) -> None:
    with pytest.raises(FederationError, match="Round 1 ended with 2 valid updates") as caught:
        play(config(), {"a": "shares", "b": "keys"})
    assert "a: no reply within" in str(caught.value)
    assert play.trainings == []


def test_too_few_left_after_training_begin_anew_with_new_keys(play) -> None:
    with pytest.raises(FederationError, match="after 2 attempts"):
        play(config(), {"a": "masked", "b": "masked"})


@pytest.mark.parametrize("most", [35.0, 15.0])
def test_a_weight_beyond_the_runs_limit_counts_as_the_limit_and_nobody_learns_whose(play, most: float) -> None:
    """A refusal would tell a server that moves the limit how many patients a site has, in fourteen questions."""
    arrays, [(record, _)], *_ = play(config(max_weight=most))
    assert record.failures == {}
    weights = {name: min(weight, most) for name, weight in WEIGHTS.items()}
    for key in LIKE:
        expected = sum(weights[name] / sum(weights.values()) * trained(LIKE, name)[key].astype(np.float64) for name in SITES)
        np.testing.assert_allclose(arrays[key], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("secure", "federation"), [({"update_range": 0.5}, {}), ({"update_range": 10.0}, {"max_update_norm": 0.5})], ids=str
)
def test_an_update_beyond_the_runs_limits_is_shortened_not_refused(play, secure, federation) -> None:
    run = replace(config(**secure), federation=replace(config().federation, **federation))
    arrays, [(record, _)], *_ = play(run, scale={"b": 100.0})
    assert record.failures == {}
    change = np.concatenate([100.0 * trained(LIKE, "b")[key].ravel() for key in sorted(LIKE)]).astype(np.float64)
    worst = np.linalg.norm(change) / 0.5 if federation else np.abs(change).max() / 0.5
    others = np.sum([WEIGHTS[n] * np.concatenate([trained(LIKE, n)[k].ravel() for k in sorted(LIKE)]) for n in "acd"], axis=0)
    expected = (others + WEIGHTS["b"] * change / worst) / sum(WEIGHTS.values())
    np.testing.assert_allclose(np.concatenate([arrays[key].ravel() for key in sorted(LIKE)]), expected, rtol=1e-3, atol=1e-6)


def test_an_update_that_is_not_finite_is_held_back_by_the_site(play) -> None:
    _, [(record, _)], *_ = play(config(), scale={"b": np.inf})
    assert record.failures == {"b": UNCOUNTABLE}


def test_the_run_ends_in_good_order_when_budgets_are_spent(play) -> None:
    with pytest.raises(FederationError, match="privacy budget left for round 1"):
        play(config(), spent=("a", "b"))


def test_each_site_needs_a_node_of_its_own(play) -> None:
    with pytest.raises(FederationError, match="a Flower node for each of the 4 sites"):
        play(config(), nodes=2)


def test_a_stage_without_a_round_or_of_no_kind_is_answered_not_raised(play) -> None:
    content = write_task(Task(1, config().to_json(), code_hash(), "x", site="a", data="/data"), None)
    for record in (ConfigRecord(), ConfigRecord({"stage": "unmask"}), ConfigRecord({"stage": 3}), MetricRecord({"stage": 1})):
        content[SECURE] = record
        assert "no round is open" in str(answer(content, {}, RecordDict())["site"]["error"])


def test_with_site_level_privacy_the_sites_clip_and_weigh_the_same(play) -> None:
    run = config_from_table(
        {
            "secure": {"enabled": True},
            "site_level": {"enabled": True, "clip": 0.01, "noise": 0.0},
            "federation": {"min_sites": 2},
        }
    )
    arrays, *_ = play(run)
    changes = [np.concatenate([trained(LIKE, name)[key].ravel() for key in sorted(LIKE)]).astype(np.float64) for name in SITES]
    expected = np.mean([change * min(1.0, 0.01 / float(np.linalg.norm(change))) for change in changes], axis=0)
    np.testing.assert_allclose(np.concatenate([arrays[key].ravel() for key in sorted(LIKE)]), expected, rtol=1e-4, atol=1e-7)


def test_site_level_noise_is_added_to_the_sum(play) -> None:
    run = config_from_table(
        {"secure": {"enabled": True}, "site_level": {"enabled": True, "noise": 50.0}, "federation": {"min_sites": 2}}
    )
    first, second = (np.concatenate([a.ravel() for a in play(run)[0].values()]) for _ in range(2))
    assert np.abs(first - second).max() > 1  # 50 / 4 is its standard deviation


def test_the_record_counts_every_time_that_a_site_may_have_trained(play) -> None:
    _, [(record, _)], *_ = play(config(), {"b": "unmask"})
    assert record.trained == {"a": 1, "b": 1, "c": 1, "d": 1}
    _, [(record, _)], *_ = play(config(), {"b": "keys"})
    assert record.trained == {"a": 1, "c": 1, "d": 1}
    _, [(record, _)], *_ = play(config(), spent=("d",))
    assert record.trained == {"a": 1, "b": 1, "c": 1}
    _, [(record, _)], _, trainings, _ = play(config(), {"a": "masked", "b": "masked"}, once=True)
    assert record.attempts == 2
    assert record.trained == {"a": 2, "b": 2, "c": 2, "d": 2}  # whether a and b trained before they were lost, nobody can know
    assert sorted(trainings) == ["a", "b", "c", "c", "d", "d"]


def test_a_round_that_failed_in_unmasking_is_not_begun_again(play) -> None:
    with pytest.raises(FederationError, match="unmasked before"):
        play(config(), {"a": "unmask", "b": "unmask"})


@pytest.mark.parametrize("policy", [{"backbone_sha256": "0" * 64}, {"max_rank": 1}])
def test_what_a_policy_refuses_is_refused_before_anybody_trains(play, monkeypatch, policy) -> None:
    real = vars(training)["read_policy"]

    def read_policy(folder: Path, *, simulated: bool) -> SitePolicy:
        return replace(real(folder, simulated=simulated), **policy) if folder.name == "b" else real(folder, simulated=simulated)

    monkeypatch.setattr(training, "read_policy", read_policy)
    _, records, grid, trained_at, _ = play(config(), rounds=2)
    assert sorted(trained_at) == ["a", "a", "c", "c", "d", "d"]
    assert [record.sites for record, _ in records] == [("a", "c", "d")] * 2
    assert [list(record.failures) for record, _ in records] == [["b"], []]
    assert sum(read_task(message.content).site == "b" for message in grid.sent) == 1
