"""Every aggregator beside Flower's own strategy of that name, on the same replies (FedAvgM: `test_fedavgm`)."""

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.supercore.task_identity import TaskIdentity

from common.aggregation.aggregator import Aggregator, Arrays
from common.aggregation.bulyan import Bulyan
from common.aggregation.fedadam import FedAdam
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedyogi import FedYogi
from common.aggregation.krum import Krum
from common.aggregation.median import Median
from common.aggregation.multikrum import MultiKrum
from common.aggregation.trimmed_mean import TrimmedMean
from tests.common.aggregation.made_up_changes import of_flowers, some, whole

WEIGHTS = (10.0, 3.0, 7.0, 1.0, 20.0, 5.0, 2.0, 4.0)
SEEDS = range(2)


@pytest.fixture(autouse=True)
def flower_process(monkeypatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):  # Flower sets them in each process that it starts
        monkeypatch.setattr(TaskIdentity, name, 7)


def changes(seed: int, n: int = 8) -> list[tuple[Arrays, float]]:
    return [(some(100 * seed + site, 0.1), WEIGHTS[site]) for site in range(n)]


def whole_changes(seed: int, n: int = 8) -> list[tuple[Arrays, float]]:
    """From the shortest to the longest: of equal scores Flower takes the first, ours the shortest."""
    found = [whole(100 * seed + site) for site in range(n)]
    found.sort(key=lambda change: sum(float((array**2).sum()) for array in change.values()))
    return [(change, 1.0) for change in found]


def require_equal(ours: Arrays, theirs: Arrays) -> None:
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FedAvg(), flowers.FedAvg()),
        (TrimmedMean(1), flowers.FedTrimmedAvg(beta=0.2)),  # of 8 sites int(0.2 * 8) = 1
        (TrimmedMean(3), flowers.FedTrimmedAvg(beta=0.4)),
        (Median(), flowers.FedMedian()),
        (Krum(1), flowers.Krum(num_malicious_nodes=1)),
        (Krum(2), flowers.Krum(num_malicious_nodes=2)),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_it_is_flowers_own(ours: Aggregator, theirs: Any, seed: int) -> None:
    current = some(seed + 50)
    arrays, _ = ours.apply(ours.init(current), current, iter(changes(seed)))
    require_equal(arrays, of_flowers(theirs, 1, current, changes(seed)))


def test_the_median_of_an_odd_number_of_sites_is_flowers_own_too() -> None:
    current = some(9)
    require_equal(Median().apply({}, current, iter(changes(1, 7)))[0], of_flowers(flowers.FedMedian(), 1, current, changes(1, 7)))


@pytest.mark.parametrize("seed", SEEDS)
def test_multi_krum_is_flowers_where_sites_claim_as_many_patients(seed: int) -> None:
    current, same = some(seed), [(change, 5.0) for change, _ in changes(seed)]
    theirs = of_flowers(flowers.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=5), 1, current, same)
    require_equal(MultiKrum(1).apply({}, current, iter(same))[0], theirs)


def test_flowers_multi_krum_weighs_what_it_has_selected_and_ours_does_not() -> None:
    """A liar among the selected may claim any number of patients. What Flower does is the weighted mean of the same two."""
    current = {"w": np.zeros(1, np.float32)}
    values, weights = (1.0, 2.0, 4.0, 40.0, -30.0), (1.0, 9.0, 5.0, 5.0, 5.0)
    sites = [({"w": np.array([value], np.float32)}, weight) for value, weight in zip(values, weights, strict=True)]
    ours, _ = MultiKrum(1, selected=2).apply({}, current, iter(sites))
    theirs = of_flowers(flowers.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2), 1, current, sites)
    assert float(ours["w"][0]) == (2.0 + 1.0) / 2  # scores 10, 5, 13, ...
    assert float(theirs["w"][0]) == pytest.approx((9 * 2.0 + 1 * 1.0) / 10, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("n", [7, 8, 11])
def test_bulyan_is_flowers_with_the_papers_choice_one_after_the_other(seed: int, n: int) -> None:
    """Flower's default takes the n - 2f best of one look; the paper chooses one, takes it away, and looks again."""

    def one_by_one(contents: list[RecordDict], byzantine: int, many: int) -> list[RecordDict]:
        left, chosen = list(contents), list[RecordDict]()
        while len(chosen) < many:
            (best,) = select_multikrum(left, byzantine, 1)
            chosen.append(best)
            left = [content for content in left if content is not best]
        return chosen

    current = {name: np.zeros_like(array) for name, array in whole(0).items()}
    byzantine = 2 if n >= 11 else 1
    ours, _ = Bulyan(byzantine).apply({}, current, iter(whole_changes(seed, n)))
    theirs = flowers.Bulyan(num_malicious_nodes=byzantine, selection_rule=one_by_one)
    require_equal(ours, of_flowers(theirs, 1, current, whole_changes(seed, n)))


@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_fedadam_is_flowers_but_for_where_v_begins_and_the_rates_correction(beta1: float) -> None:
    """Flower begins v at 0 and multiplies the rate by sqrt(1 - beta2^(t+1)) / (1 - beta1^(t+1)); the paper does neither.

    So Flower's v is ours less beta2^t tau^2. Given both, the steps are equal.
    """
    ours, current = FedAdam(0.02, beta1, 0.95, 0.01), some(7)
    theirs: Any = flowers.FedAdam(beta_1=beta1, beta_2=0.95, tau=0.01)
    state = ours.init(current)
    without = np.zeros((3, 2))
    for number in range(1, 6):
        theirs.current_arrays = current
        theirs.eta = 0.02 / (math.sqrt(1 - 0.95 ** (number + 1)) / (1 - beta1 ** (number + 1)))
        theirs.v_t = {name: state[f"second_moment.{name}"] for name in current}
        found = of_flowers(theirs, number, current, changes(number))
        mean = np.average([c["a"] for c, _ in changes(number)], axis=0, weights=WEIGHTS)
        without = 0.95 * without + 0.05 * mean**2  # Flower's own v
        current, state = ours.apply(state, current, iter(changes(number)))
        require_equal(current, found)
        np.testing.assert_allclose(state["second_moment.a"], without + 0.95**number * 0.01**2, rtol=1e-5)


@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_fedyogi_is_flowers_once_v_begins_at_tau_squared_as_in_the_paper(beta1: float) -> None:
    ours, current = FedYogi(0.02, beta1, 0.95, 0.01), some(7)
    theirs: Any = flowers.FedYogi(eta=0.02, beta_1=beta1, beta_2=0.95, tau=0.01)
    theirs.v_t = {name: np.full_like(array, 0.01**2) for name, array in current.items()}
    state = ours.init(current)
    for number in range(1, 6):
        theirs.current_arrays = current
        found = of_flowers(theirs, number, current, changes(number))
        current, state = ours.apply(state, current, iter(changes(number)))
        require_equal(current, found)
