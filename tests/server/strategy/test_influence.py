"""No site owns a round: bounds against a naive search, a closed form, and whole rounds with one liar."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.aggregation.fedavg import FedAvg
from common.config.sections import FederationConfig
from common.messages.round import SiteReply
from common.messages.update import Update
from server.strategy.aggregation import aggregate
from server.strategy.influence import Influence, as_agreed, at_hospitals, capped, influences, levelled, told

PLAN = FederationConfig(max_site_share=0.5, clip_ratio=2.0)
values = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8)


@given(values, st.floats(0.05, 1.0))
def test_no_value_is_more_than_its_share_and_only_the_largest_are_lowered(given_values, share) -> None:
    found = capped(given_values, share)
    positive = [value for value in given_values if value > 0]
    allowed = max(share, 1 / len(positive)) if positive else 1.0
    assert all(new <= allowed * sum(found) * (1 + 1e-9) for new in found)
    assert all(new <= old for new, old in zip(found, given_values, strict=True))
    level = max(found, default=0.0)
    assert found == [min(value, level) for value in given_values]


def test_the_level_agrees_with_a_bisection() -> None:
    weights, share = [1e7, 40.0, 20.0, 10.0], 0.4
    low, high = 0.0, 1e7
    for _ in range(200):
        middle = (low + high) / 2
        fits = middle <= share * sum(min(weight, middle) for weight in weights)
        low, high = (middle, high) if fits else (low, middle)
    assert capped(weights, share) == pytest.approx([min(weight, low) for weight in weights], rel=1e-9)


def test_what_is_within_the_bounds_stays_to_the_last_bit() -> None:
    weights, norms = [30.0, 40.0, 50.0], [0.1, 0.12, 0.15]
    found = influences(norms, weights, PLAN)
    assert [(one.weight, one.scale) for one in found] == [(weight, 1.0) for weight in weights]
    change = {"w": np.ones(3, np.float32)}
    assert found[0].taken(change) is change


def test_of_two_sites_nobody_can_say_which_is_the_odd_one() -> None:
    assert [one.scale for one in influences([1.0, 100.0], [1.0, 1e7], PLAN)] == [1.0, 1.0]
    assert [one.weight for one in influences([1.0, 100.0, 0.0], [1.0, 1e7, 5.0], PLAN)] == [1.0, 1e7, 5.0]


def test_hospitals_have_bounds_and_a_simulation_has_those_that_are_set() -> None:
    plain = FederationConfig()
    assert (plain.max_site_share, plain.clip_ratio, plain.distance_ratio) == (0.0, 0.0, 0.0)
    bound = at_hospitals(plain)
    assert (bound.max_site_share, bound.clip_ratio, bound.distance_ratio) == (0.5, 2.0, 1.0)
    chosen = FederationConfig(max_site_share=1.0, clip_ratio=50.0, distance_ratio=9.0)
    assert at_hospitals(chosen) == chosen


def test_no_more_patients_count_than_were_agreed() -> None:
    replies = {
        "a": SiteReply("a", 1, patients=10_000_000, labelled=9_000_000, counts_shared=True),
        "b": SiteReply("b", 1, patients=30, labelled=20, counts_shared=True),
    }
    found = as_agreed(replies, {"a": 40, "b": 50})
    assert (found["a"].patients, found["a"].labelled) == (40, 40)
    assert found["b"] is replies["b"]
    assert as_agreed(replies, {}) == replies


def test_without_an_agreement_no_site_counts_more_patients_than_the_others_usually_have() -> None:
    def told(**patients: int) -> dict[str, SiteReply]:
        return {name: SiteReply(name, 1, patients=n, labelled=n // 2, counts_shared=True) for name, n in patients.items()}

    four = told(a=10_000_000, b=30, c=20, d=40)
    assert {name: one.patients for name, one in levelled(four, {}).items()} == {"a": 30, "b": 30, "c": 20, "d": 30}
    assert levelled(four, {"a": 10_000_000})["a"] is four["a"]
    assert levelled(told(a=1000, b=30), {}) == told(a=1000, b=30)
    hidden = told(a=1000, b=30, c=20) | {"d": SiteReply("d", 1)}
    assert levelled(hidden, {})["d"] is hidden["d"]
    assert (levelled(hidden, {})["a"].patients, levelled(hidden, {})["a"].labelled) == (25, 25)


def reply(site: str, change: float, patients: int = 30) -> SiteReply:
    update = Update({"w": np.full(100, change, np.float32)})
    return SiteReply(site, 1, update=update, patients=patients, labelled=patients, counts_shared=True)


def moved(liar: SiteReply, plan: FederationConfig) -> float:
    """What a round with three honest sites, who all change each value by 0.01, changes each value by."""
    replies = {name: reply(name, 0.01) for name in ("a", "b", "c")} | {"liar": liar}
    arrays, _, _ = aggregate(plan, FedAvg().init({}), {"w": np.zeros(100, np.float32)}, replies)
    return float(arrays["w"][0])


def test_a_site_that_claims_ten_million_patients_and_changes_nothing_cannot_freeze_the_model() -> None:
    liar = reply("liar", 0.0, 10_000_000)
    assert moved(liar, FederationConfig()) < 1e-6
    assert moved(liar, PLAN) == pytest.approx(0.005)  # half the weight is the most that it gets


@pytest.mark.parametrize("factor", [20.0, -20.0, -1.0, 1e6])
@pytest.mark.parametrize("patients", [30, 200, 10_000_000])
def test_a_long_or_reversed_change_never_has_more_than_half_of_the_change(factor, patients) -> None:
    found = moved(reply("liar", 0.01 * factor, patients), PLAN)
    honest = 0.01 * 3 / 4
    assert abs(found) <= 2 * honest
    assert found > -1e-9  # three honest sites are not turned round


def test_the_record_tells_shares_that_add_up() -> None:
    found = told({"b": Influence(1.0, 1.0, 3.0), "a": Influence(3.0, 0.5, 2.0)})
    assert found == {
        "a": {"weight": 0.75, "change": 0.5, "scale": 0.5},
        "b": {"weight": 0.25, "change": 0.5, "scale": 1.0},
    }
    assert told({"a": Influence(0.0, 1.0, 0.0)}) == {"a": {"weight": 0.0, "change": 0.0, "scale": 1.0}}
