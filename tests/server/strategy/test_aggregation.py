"""Judging and aggregating against closed forms and a naive loop; every kind of bad reply refused."""

import numpy as np
import pytest

from common.aggregation.fedavgm import FedAvgM
from common.config.run import RunConfig
from common.config.sections import FederationConfig, SiteLevelConfig
from common.errors import FederationError
from common.messages.round import SiteReply, write_reply
from common.messages.update import Update
from common.models.arrays import Arrays
from server.strategy.aggregation import aggregate, judge_reply, known_metrics, noised_sum, norm_outliers, step, weigh

CURRENT = {"w": np.zeros((2, 2), np.float32)}


def reply(value: float, site: str = "a", **changes) -> SiteReply:
    settings = {"patients": 10, "labelled": 10, "counts_shared": True} | changes
    return SiteReply(site, 1, update=Update({"w": np.full((2, 2), value, np.float32)}), **settings)


def judge(answer: SiteReply, **plan) -> SiteReply:
    return judge_reply(write_reply(answer), CURRENT, 1, FederationConfig(**plan))


def mean_of(replies: dict[str, SiteReply], unlabelled_weight: float) -> tuple[Arrays, dict[str, float]]:
    """FedAvg."""
    arrays, state, terms = aggregate(FederationConfig(unlabelled_weight=unlabelled_weight), {}, CURRENT, replies)
    assert state == {}
    return arrays, terms


def test_weights_are_labelled_patients_and_a_share_of_the_others():
    assert weigh([reply(0, patients=10, labelled=4), reply(0, patients=8, labelled=0)], 0.5) == [7.0, 4.0]
    assert weigh([reply(0, patients=10, labelled=4), reply(0, patients=8, labelled=8)], 0.0) == [4.0, 8.0]


def test_a_site_that_keeps_its_counts_weighs_as_the_mean_of_the_others():
    assert weigh([reply(0, patients=10), reply(0, patients=20, labelled=20), reply(0, counts_shared=False)], 1.0) == [10, 20, 15]
    assert weigh([reply(0, counts_shared=False), reply(0, patients=1, labelled=1, counts_shared=False)], 1.0) == [1, 1]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((1.0, 2.0, 3.0), []),
        ((1.0, 2.0, 75.1), ["c"]),  # 50.07 times the median of 1 and 2
        ((1.0, 2.0, 74.9), []),
        ((90.0, -1.0, 1.0, 1.0), ["a"]),
        ((1.0, 1.0, 100.0, 100.0), ["c", "d"]),
        ((1.0, 100.0), []),  # nobody can say which of two is the odd one
        ((0.0, 0.0, 100.0), []),  # two sites without labels in a head round say nothing of the third
        ((0.0, 1.0, 1.0, 100.0), ["d"]),
    ],
)
def test_a_change_is_held_against_the_median_of_the_others(values, found):
    replies = {site: reply(value, site) for site, value in zip("abcd", values, strict=False)}
    assert list(norm_outliers(replies, 50.0)) == found
    assert norm_outliers(replies, 0.0) == {}


def test_no_weight_at_all_is_an_error():
    with pytest.raises(FederationError, match="unlabelled_weight is 0"):
        weigh([reply(0, labelled=0)], 0.0)


def test_the_mean_is_the_weighted_mean():
    arrays, terms = mean_of(
        {"b": reply(4.0, "b", patients=30, labelled=30, metrics={"dino": 1.0}), "a": reply(0.0, metrics={"dino": 3.0, "x": 2.0})},
        1.0,
    )
    np.testing.assert_array_equal(arrays["w"], np.full((2, 2), 3.0))
    assert arrays["w"].dtype == np.float32
    assert terms == {"dino": 1.5, "x": 2.0}


def test_the_order_of_arrival_does_not_change_a_byte():
    # Even in float64 the order of this sum tells: (1e30 - 1e30) + 1 is 1, (1 + 1e30) - 1e30 is 0.
    replies = {site: reply(value, site) for site, value in (("a", 1e30), ("b", -1e30), ("c", 3.0))}
    forward, _ = mean_of(replies, 1.0)
    backward, _ = mean_of(dict(reversed(replies.items())), 1.0)
    assert forward["w"].tobytes() == backward["w"].tobytes()
    np.testing.assert_array_equal(forward["w"], np.ones((2, 2)))


def test_the_mean_agrees_with_a_naive_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=7).astype(np.float32)
    replies = {f"site-{i}": reply(values[i], f"site-{i}", patients=i + 3, labelled=i) for i in range(7)}
    total = weight = 0.0
    for i in range(7):
        total += float(values[i]) * (i + 0.3 * 3)
        weight += i + 0.3 * 3
    np.testing.assert_allclose(mean_of(replies, 0.3)[0]["w"], np.full((2, 2), total / weight), rtol=1e-6)


def test_a_good_reply_passes():
    assert judge(reply(1.0), max_update_norm=2.0).update.change["w"][0, 0] == 1.0  # its norm is exactly 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply(float("nan")), "not finite"),
        (reply(1.001), "beyond federation.max_update_norm = 2"),
        (SiteReply("a", 1, error="no room"), "no room"),
        (SiteReply("a", 2, update=Update({"w": np.zeros((2, 2), np.float32)})), "to round 2, not 1"),
        (SiteReply("a", 1, update=Update({"v": np.zeros((2, 2), np.float32)})), "names differ"),
        (SiteReply("a", 1, update=Update({"w": np.zeros(4, np.float32)})), "expected float32"),
    ],
)
def test_a_bad_reply_is_refused(answer, says):
    with pytest.raises(FederationError, match=says):
        judge(answer, max_update_norm=2.0)


def test_no_bound_lets_any_finite_update_pass():
    assert judge(reply(1e30)).update.change["w"][0, 0] == np.float32(1e30)


def test_site_level_privacy_clips_every_site_weighs_them_the_same_and_tells_no_loss() -> None:
    current = {"a": np.zeros(2, np.float32), "b": np.ones(1, np.float32)}
    far = {"a": np.array([300.0, 400.0], np.float32), "b": np.zeros(1, np.float32)}
    near = {"a": np.zeros(2, np.float32), "b": np.array([0.5], np.float32)}
    replies = {
        "x": SiteReply("x", 1, update=Update(far), patients=1000, labelled=1000, counts_shared=True),
        "y": SiteReply("y", 1, update=Update(near), patients=1, labelled=1, counts_shared=True),
    }
    noised = noised_sum(replies, current, np.ones(3, bool), SiteLevelConfig(enabled=True, clip=1.0, noise=0.0))
    found, _ = step(FederationConfig().strategy, {}, current, iter([noised]))
    np.testing.assert_allclose(found["a"], [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [1.25], rtol=1e-6)


def test_a_change_that_would_overflow_the_model_is_refused() -> None:
    most = {"w": np.full((2, 2), 3e38, np.float32)}
    with pytest.raises(FederationError, match="not finite"):
        judge_reply(write_reply(reply(3e38)), most, 1, FederationConfig())


def test_an_aggregator_that_diverges_ends_the_run_by_name() -> None:
    plan = FederationConfig(strategy=FedAvgM(server_learning_rate=1000.0))
    with pytest.raises(FederationError, match="'fedavgm' has diverged: Array w"):
        aggregate(plan, plan.strategy.init(CURRENT), CURRENT, {"a": reply(1e36)})


def test_a_site_cannot_write_what_it_likes_into_the_rounds_metrics() -> None:
    told = {"loss": 0.5, "classification": 1e308, "accuracy_of_everybody_else": 0.1, "seconds": 3.0}
    kept, dropped = known_metrics(told, RunConfig())
    assert kept == {"loss": 0.5, "seconds": 3.0}
    assert dropped == "accuracy_of_everybody_else, classification"
