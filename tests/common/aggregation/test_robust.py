"""Trimmed mean, median, Krum, Multi-Krum and Bulyan: numbers worked out by hand, scipy, naive loops, and what liars can do."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import trim_mean

from common.aggregation.aggregator import Aggregator, Arrays
from common.aggregation.bulyan import Bulyan
from common.aggregation.fedadam import FedAdam
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedyogi import FedYogi
from common.aggregation.krum import Krum
from common.aggregation.median import Median
from common.aggregation.multikrum import MultiKrum
from common.aggregation.trimmed_mean import TrimmedMean
from common.config.run import config_from_table
from common.errors import ConfigError, FederationError
from tests.common.aggregation.made_up_changes import SHAPES, numbers, one_round, some

ROBUST = [TrimmedMean(1), TrimmedMean(3), Median(), Krum(1), Krum(2), MultiKrum(1), MultiKrum(2, 3), Bulyan(1)]


@pytest.mark.parametrize(
    ("strategy", "sites", "found"),
    [
        (TrimmedMean(1), (1, 900, 2, -5), 1.5),
        (TrimmedMean(2), (1, 900, 2, -5, 4), 2),
        (Median(), (1, 900, 2), 2),
        (Median(), (1, 900, 2, -5), 1.5),
        (Krum(1), (9, 1, 2, 3, 100), 2),  # two nearest each: scores 85, 5, 2, 5, ...
        (Krum(1), (5, 1, 2, 4, 100), 2),  # scores 10, 10, 5, 5, ...: as good as 4, and shorter
        (MultiKrum(1), (9, 1, 2, 3, 100), 1.5),
        (MultiKrum(1, 1), (9, 1, 2, 3, 100), 2),
        # Scores by four, then three, two, one and one nearest: 3 is chosen, then 4, then 2 (as good as 5), then 5, then 1 (as 6).
        (Bulyan(1), (1, 2, 3, 4, 5, 6, 100), 3),
    ],
)
def test_numbers_by_hand(strategy: Aggregator, sites: tuple[float, ...], found: float) -> None:
    assert one_round(strategy, numbers(*sites))["w"].tolist() == [found]


def sites(seed: int, n: int = 8) -> list[Arrays]:
    return [some(100 * seed + site) for site in range(n)]


@pytest.mark.parametrize("byzantine", [1, 2, 3])
def test_the_trimmed_mean_is_scipys(byzantine: int) -> None:
    found = one_round(TrimmedMean(byzantine), [(change, 1.0) for change in sites(1)])
    for name in SHAPES:
        expected = trim_mean(np.stack([change[name] for change in sites(1)]).astype(np.float64), byzantine / 8, axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=3e-7)


def flat(change: Arrays) -> np.ndarray[Any, Any]:
    return np.concatenate([change[name].astype(np.float64).ravel() for name in sorted(change)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("byzantine", [1, 2])
def test_krum_is_a_naive_loop(seed: int, byzantine: int) -> None:
    vectors = [flat(change) for change in sites(seed)]
    scores = []
    for i, one in enumerate(vectors):
        others = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(vectors) if j != i)
        scores.append(sum(others[: len(vectors) - byzantine - 2]))
    order = np.argsort(scores)
    changes = [(change, 1.0) for change in sites(seed)]
    np.testing.assert_array_equal(flat(one_round(Krum(byzantine), changes)), vectors[order[0]])
    for many in (1, 2, 4):
        mean = np.mean([vectors[i] for i in order[:many]], axis=0)
        np.testing.assert_allclose(flat(one_round(MultiKrum(byzantine, many), changes)), mean, rtol=0, atol=3e-7)


@pytest.mark.parametrize("strategy", [*ROBUST, FedAvg(), FedAdam(), FedYogi()], ids=str)
def test_the_sites_names_do_not_count(strategy: Aggregator) -> None:
    """Rules that look at each site give the very same bytes in whatever order; a sum differs by what it rounds off."""
    changes = [(change, 3.0 + i) for i, change in enumerate(sites(2))]
    found = one_round(strategy, changes)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(changes))
        other = one_round(strategy, [changes[i] for i in order])
        for name in SHAPES:
            if strategy.from_sum:
                np.testing.assert_allclose(other[name], found[name], rtol=0, atol=1e-7)
            else:
                assert other[name].tobytes() == found[name].tobytes()


def test_of_equal_scores_the_shorter_change_is_taken_whoever_sent_it() -> None:
    for order in ((5, 1, 2, 4, 100), (4, 2, 100, 1, 5), (2, 4, 5, 100, 1)):
        assert one_round(Krum(1), numbers(*order))["w"].tolist() == [2]


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
@pytest.mark.parametrize("lie", [1e6, -1e6, -20.0, 0.5])
def test_one_liar_moves_no_value_beyond_the_honest_ones(strategy: Aggregator, lie: float) -> None:
    honest = sites(3, 7)
    liar = {name: np.asarray(lie * array, np.float32) for name, array in honest[0].items()}
    found = one_round(strategy, [*((change, 1.0) for change in honest), (liar, 1e7)])
    for name in SHAPES:
        values = np.stack([change[name] for change in honest])
        if strategy.name in ("krum", "multikrum"):  # these bound the distance, not each value
            spread = max(float(np.linalg.norm(flat(a) - flat(b))) for a, b in combinations(honest, 2))
            assert np.linalg.norm(flat(found) - np.mean([flat(c) for c in honest], axis=0)) <= spread
        else:
            assert (found[name] >= values.min(0)).all()
            assert (found[name] <= values.max(0)).all()


def test_the_same_liar_moves_fedavg_as_far_as_it_likes() -> None:
    honest = sites(3, 7)
    liar = {name: np.asarray(1e6 * array, np.float32) for name, array in honest[0].items()}
    found = one_round(FedAvg(), [*((change, 1.0) for change in honest), (liar, 1.0)])
    assert np.linalg.norm(flat(found)) > 1e5


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
def test_patients_that_a_site_claims_do_not_count(strategy: Aggregator) -> None:
    some_, other = (
        [(change, weight) for change, weight in zip(sites(4), weights, strict=True)] for weights in (range(1, 9), [7] * 8)
    )
    for name, array in one_round(strategy, some_).items():
        assert array.tobytes() == one_round(strategy, other)[name].tobytes()


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
def test_sites_without_a_say_do_not_vote(strategy: Aggregator) -> None:
    """Two unlabelled sites in a head round change nothing: they would be each other's nearest, and stop Krum for good."""
    voters = [(change, 1.0) for change in sites(5)]
    nothing: Arrays = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    found = one_round(strategy, [(nothing, 9.0), *voters, (nothing, 9.0), (some(77), 0.0)])
    for name, array in one_round(strategy, voters).items():
        assert array.tobytes() == found[name].tobytes()


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
def test_an_array_that_no_site_has_trained_keeps_its_bits(strategy: Aggregator) -> None:
    current = some(1) | {"b": np.array([-0.0, 0.1, 1e-45, -3e38, 1], np.float32)}
    half = [(change | {"b": np.zeros(5, np.float32)}, 1.0) for change in sites(6)]
    arrays, _ = strategy.apply({}, current, iter(half))
    assert arrays["b"].tobytes() == current["b"].tobytes()
    assert arrays["a"].tobytes() != current["a"].tobytes()


LEAST = [
    (TrimmedMean(1), 3),
    (TrimmedMean(2), 5),
    (Median(), 3),
    (Krum(1), 5),
    (Krum(2), 7),
    (MultiKrum(1), 5),
    (MultiKrum(1, 6), 9),
    (Bulyan(1), 7),
    (Bulyan(2), 11),
]


@pytest.mark.parametrize(("strategy", "least"), LEAST, ids=str)
def test_too_few_sites_are_refused_by_name_in_the_round(strategy: Aggregator, least: int) -> None:
    changes = [(some(site), 1.0) for site in range(least)]
    one_round(strategy, changes)
    nothing: Arrays = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    says = rf'"{strategy.name}" needs the changes of {least} sites or more; .* {least} sites answered, and {least - 1} of them'
    with pytest.raises(FederationError, match=says):
        one_round(strategy, [*changes[1:], (nothing, 1.0)])


@pytest.mark.parametrize(("strategy", "least"), LEAST, ids=str)
def test_and_in_the_configuration_where_a_round_might_have_too_few(strategy: Aggregator, least: int) -> None:
    settings = {"name": strategy.name, **vars(strategy)}
    with pytest.raises(ConfigError, match=rf'"{strategy.name}" needs {least} sites .* Set federation\.min_sites = {least}'):
        config_from_table({"federation": {"strategy": settings, "min_sites": least - 1}})
    assert config_from_table({"federation": {"strategy": settings, "min_sites": least}}).federation.strategy == strategy


@pytest.mark.parametrize("section", ["secure", "site_level"])
@pytest.mark.parametrize("name", ["trimmed-mean", "median", "krum", "multikrum", "bulyan"])
def test_where_the_server_sees_the_sum_alone_they_are_refused_by_name(name: str, section: str) -> None:
    with pytest.raises(ConfigError, match=rf'federation\.strategy = "{name}" cannot run with {section}\.enabled'):
        config_from_table({section: {"enabled": True}, "federation": {"strategy": name, "min_sites": 7}})


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_what_works_on_sums_is_not(name: str) -> None:
    config_from_table({"secure": {"enabled": True}, "federation": {"strategy": name}})
