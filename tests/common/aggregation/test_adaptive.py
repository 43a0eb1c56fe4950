"""FedAdam and FedYogi against their paper's lines, value by value, and what a round leaves alone."""

import math

import numpy as np
import pytest

from common.aggregation.adaptive import Adaptive
from common.aggregation.aggregator import Arrays
from common.aggregation.fedadam import FedAdam
from common.aggregation.fedyogi import FedYogi
from tests.common.aggregation.made_up_changes import SHAPES, some

WEIGHTS = (10.0, 3.0, 7.0)
KINDS = [FedAdam, FedYogi]


def changes(number: int) -> list[tuple[Arrays, float]]:
    return [(some(100 * number + site, 0.1), weight) for site, weight in enumerate(WEIGHTS)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rate", "beta1", "beta2", "tau"), [(0.01, 0.9, 0.99, 1e-3), (0.3, 0.0, 0.5, 0.1), (1.0, 0.5, 0.0, 1e-4)]
)
def test_it_is_the_papers_algorithm_2(kind: type[Adaptive], rate: float, beta1: float, beta2: float, tau: float) -> None:
    strategy, arrays = kind(rate, beta1, beta2, tau), some(7)
    state, w, m, v = strategy.init(arrays), float(arrays["b"][2]), 0.0, tau**2
    for number in range(1, 6):
        arrays, state = strategy.apply(state, arrays, iter(changes(number)))
        mean = sum(weight * float(change["b"][2]) for change, weight in changes(number)) / sum(WEIGHTS)
        m = beta1 * m + (1 - beta1) * mean
        if kind is FedAdam:
            v = beta2 * v + (1 - beta2) * mean * mean
        else:
            v = v - (1 - beta2) * mean * mean * ((v > mean * mean) - (v < mean * mean))
        w += rate * m / (math.sqrt(v) + tau)
        assert float(arrays["b"][2]) == pytest.approx(w, abs=2e-6)
        assert float(state["second_moment.b"][2]) == pytest.approx(v, rel=1e-5)


def test_after_a_large_change_adams_steps_grow_again_sooner_than_yogis() -> None:
    """What tells them apart (Reddi et al., section 3): v = 1 once forgets at beta2 in one, by D^2 a round in the other."""
    small = {"w": np.full(1, 1e-2, np.float32)}
    state = {"first_moment.w": np.zeros(1, np.float32), "second_moment.w": np.ones(1, np.float32)}
    v = {}
    for kind in KINDS:
        after = state
        for _ in range(100):
            _, after = kind(beta2=0.9).apply(after, {"w": np.zeros(1, np.float32)}, iter([(small, 1.0)]))
        v[kind] = float(after["second_moment.w"][0])
    assert v[FedAdam] == pytest.approx(0.9**100 * (1 - 1e-4) + 1e-4, rel=1e-3)
    assert v[FedYogi] == pytest.approx(1 - 100 * 0.1 * 1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_that_a_round_does_not_train_stays_and_its_moments_wait(kind: type[Adaptive]) -> None:
    strategy, arrays = kind(), some(7)
    arrays, state = strategy.apply(strategy.init(arrays), arrays, iter(changes(1)))
    half = [(change | {"b": np.zeros(5, np.float32)}, weight) for change, weight in changes(2)]
    after, kept = strategy.apply(state, arrays, iter(half))
    assert after["b"].tobytes() == arrays["b"].tobytes()
    for moment in ("first_moment.", "second_moment."):
        assert kept[moment + "b"].tobytes() == state[moment + "b"].tobytes()
        assert kept[moment + "a"].tobytes() != state[moment + "a"].tobytes()
    assert not np.array_equal(after["a"], arrays["a"])
    assert {array.dtype for array in (*after.values(), *kept.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_is_not_changed(kind: type[Adaptive]) -> None:
    strategy, arrays = kind(), some(7)
    state = strategy.init(arrays)
    strategy.apply(state, arrays, iter(changes(1)))
    assert all(array.tobytes() == some(7)[name].tobytes() for name, array in arrays.items())
    assert all(array.tobytes() == strategy.init(arrays)[name].tobytes() for name, array in state.items())
    assert {array.shape for array in state.values()} == set(SHAPES.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_weighted_mean_and_the_total_weight_are_enough(kind: type[Adaptive]) -> None:
    strategy, arrays = kind(), some(7)
    mean = {n: np.average([c[n].astype(np.float64) for c, _ in changes(1)], axis=0, weights=WEIGHTS) for n in arrays}
    apart, _ = strategy.apply(strategy.init(arrays), arrays, iter(changes(1)))
    summed, _ = strategy.apply(strategy.init(arrays), arrays, iter([(mean, sum(WEIGHTS))]))
    for name in arrays:
        np.testing.assert_allclose(summed[name], apart[name], rtol=0, atol=1e-6)
