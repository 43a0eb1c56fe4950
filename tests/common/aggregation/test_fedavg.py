"""FedAvg against a naive loop, numpy, and what it was at 2a60dec: the mean of the trained arrays."""

import numpy as np
import pytest

from common.aggregation.aggregator import Arrays
from common.aggregation.fedavg import FedAvg
from common.errors import FederationError

WEIGHTS = [3.0, 0.0, 1.5, 7.0, 2.0]


def some(seed: int, scale: float = 1.0) -> Arrays:
    generator = np.random.default_rng(seed)
    return {
        "a": generator.normal(0, scale, (3, 2)).astype(np.float32),
        "b": generator.normal(0, scale, 4).astype(np.float32),
        "c": np.array(generator.normal(0, scale), np.float32),
    }


def test_the_global_arrays_move_by_the_weighted_mean_change() -> None:
    current, changes = some(9), [some(i, 0.1) for i in range(5)]
    arrays, state = FedAvg().apply({}, current, zip(changes, WEIGHTS, strict=True))
    assert state == {}
    for name, old in current.items():
        for index in np.ndindex(old.shape):
            total = sum(float(change[name][index]) * weight for change, weight in zip(changes, WEIGHTS, strict=True))
            assert arrays[name][index] == pytest.approx(float(old[index]) + total / sum(WEIGHTS), rel=1e-6)
        assert arrays[name].dtype == np.float32
        assert arrays[name].shape == old.shape


def test_the_mean_of_changes_is_the_change_of_means() -> None:
    current, trained = some(9), [some(i) for i in range(5)]
    changes = [{name: array - current[name] for name, array in site.items()} for site in trained]
    arrays, _ = FedAvg().apply({}, current, zip(changes, WEIGHTS, strict=True))
    for name, found in arrays.items():
        whole = np.average([site[name].astype(np.float64) for site in trained], axis=0, weights=WEIGHTS)
        np.testing.assert_allclose(found, whole, rtol=0, atol=3e-7)  # a unit in the last place of values of about 1


def test_the_weighted_mean_and_the_total_weight_are_enough() -> None:
    current, changes = some(9), [some(i, 0.1) for i in range(5)]
    apart, _ = FedAvg().apply({}, current, zip(changes, WEIGHTS, strict=True))
    mean = {n: np.average([c[n].astype(np.float64) for c in changes], axis=0, weights=WEIGHTS) for n in current}
    summed, _ = FedAvg().apply({}, current, iter([(mean, sum(WEIGHTS))]))
    for name, array in apart.items():
        np.testing.assert_allclose(summed[name], array, rtol=2e-7)


def test_what_no_site_has_changed_keeps_its_bits() -> None:
    current = {"w": np.array([-0.0, 0.1, 1e-45, -3e38], np.float32)}
    still = {"w": np.zeros(4, np.float32)}
    arrays, _ = FedAvg().apply({}, current, iter([(still, 3.0), (still, 4.0)]))
    assert arrays["w"].tobytes() == current["w"].tobytes()


@pytest.mark.parametrize("changes", [[], [(some(0), 0.0)]])
def test_nothing_to_average_is_an_error(changes: list[tuple[Arrays, float]]) -> None:
    with pytest.raises(FederationError, match="total weight of 0"):
        FedAvg().apply({}, some(1), iter(changes))
