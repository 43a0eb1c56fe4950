"""The middle of changes against a general optimizer, and what one of four sites can do to a round."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from common.aggregation.fedavg import FedAvg
from common.config.sections import FederationConfig
from common.messages.round import SiteReply
from common.messages.update import Update
from server.strategy.aggregation import aggregate, influence_of
from server.strategy.influence import at_hospitals, told
from server.strategy.middle import drawn_to_middle, geometric_median

PLAN = at_hospitals(FederationConfig())


def rows(n: int, values: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, values))


@pytest.mark.parametrize(("n", "values", "seed"), [(3, 2, 0), (4, 5, 1), (5, 3, 2), (9, 4, 3)])
def test_the_middle_has_the_least_sum_of_distances(n: int, values: int, seed: int) -> None:
    points = rows(n, values, seed)

    def distances(point: np.ndarray) -> float:
        return float(np.linalg.norm(points - point, axis=1).sum())

    best = minimize(distances, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20000})
    assert distances(geometric_median(points)) <= best.fun + 1e-7
    assert geometric_median(points) == pytest.approx(best.x, abs=1e-3)


def test_of_points_that_are_mostly_one_the_middle_is_that_one() -> None:
    points = np.array([[1.0, 2.0]] * 3 + [[100.0, -50.0]])
    assert geometric_median(points) == pytest.approx([1.0, 2.0], abs=1e-6)
    assert geometric_median(np.zeros((3, 2))) == pytest.approx([0.0, 0.0])


def test_a_far_array_comes_as_near_as_the_others_usually_are_and_all_else_stays_to_the_last_bit() -> None:
    points = {"w": rows(4, 6, 4), "v": rows(4, 2, 7)}
    points["w"][3] *= 50
    changes = {site: {name: points[name][place].astype(np.float32) for name in points} for place, site in enumerate("abcd")}
    for ratio in (1.0, 2.0):
        found = drawn_to_middle(changes, ratio)
        for name in points:
            stacked = np.array([changes[site][name] for site in "abcd"], np.float64)
            middle = geometric_median(stacked)
            distances = np.linalg.norm(stacked - middle, axis=1)
            for place, site in enumerate("abcd"):
                most, array = ratio * np.median(np.delete(distances, place)), found[site].change[name]
                if distances[place] <= most:
                    assert array is changes[site][name]
                else:
                    assert array - middle == pytest.approx((stacked[place] - middle) * (most / distances[place]) ** 2, abs=1e-5)
        assert found["d"].part < 0.2
        assert found["d"].times > 2
        assert found["d"].length == pytest.approx(np.linalg.norm(np.concatenate(list(found["d"].change.values()))))


def test_a_small_array_is_no_place_to_hide() -> None:
    """A change near the others' in its large array, and a hundred times as long in its small one."""
    changes = {site: {"w": rows(1, 500, place)[0] * 10, "b": rows(1, 3, place)[0]} for place, site in enumerate("abcd")}
    changes["d"]["b"] = changes["d"]["b"] * 100
    found = drawn_to_middle(changes, 1.0)["d"].change
    assert np.linalg.norm(found["b"]) < 5
    assert found["w"] == pytest.approx(changes["d"]["w"], abs=10)


def test_an_array_that_fewer_than_three_sites_changed_stays() -> None:
    changes = {site: {"w": np.full(4, value)} for site, value in {"a": 0.0, "b": 0.0, "c": 1.0, "d": -90.0}.items()}
    assert all(one.change is changes[site] and one.part == 1.0 for site, one in drawn_to_middle(changes, 1.0).items())


def replies(liar: np.ndarray, patients: int = 30) -> dict[str, SiteReply]:
    """Three honest hospitals that differ, and one more."""
    honest = np.ones(50) + 0.5 * rows(3, 50, 5)
    changes = dict(zip("abc", honest, strict=True)) | {"liar": liar}
    return {
        name: SiteReply(name, 1, update=Update({"w": change.astype(np.float32)}), patients=30, labelled=30, counts_shared=True)
        for name, change in changes.items()
    } | (
        {
            "liar": SiteReply(
                "liar", 1, update=Update({"w": liar.astype(np.float32)}), patients=patients, labelled=patients, counts_shared=True
            )
        }
    )


def stepped(plan: FederationConfig, liar: np.ndarray) -> np.ndarray:
    arrays, _, _ = aggregate(plan, FedAvg().init({}), {"w": np.zeros(50, np.float32)}, replies(liar))
    return arrays["w"]


def test_a_change_that_is_turned_round_costs_a_part_of_the_step_and_not_its_half() -> None:
    """Four of one size, an own change sent with the other sign: the plain mean loses half of the step."""
    own = np.ones(50) + 0.5 * rows(1, 50, 6)[0]
    honest = stepped(PLAN, own).mean()
    without = replace(PLAN, distance_ratio=1e9)
    assert stepped(without, -own).mean() == pytest.approx(honest / 2, rel=0.1)
    assert stepped(PLAN, -own).mean() > 0.8 * honest
    assert stepped(PLAN, own) == pytest.approx(stepped(without, own), abs=0.1)


def test_the_record_tells_how_far_off_a_change_was() -> None:
    found = told(influence_of(PLAN, replies(-np.ones(50))))
    assert found["liar"]["drawn"] < 0.5
    assert sum(part["change"] for part in found.values()) == pytest.approx(1.0)
    assert found["liar"]["change"] < 0.25
    two = {name: one for name, one in replies(-np.ones(50)).items() if name in ("a", "liar")}
    assert all("drawn" not in part for part in told(influence_of(PLAN, two)).values())


def test_a_site_that_changed_nothing_is_no_part_of_the_middle() -> None:
    found = influence_of(PLAN, replies(np.zeros(50)))
    assert found["liar"].drawn is None
    assert not found["liar"].taken({"w": np.zeros(50, np.float32)})["w"].any()
