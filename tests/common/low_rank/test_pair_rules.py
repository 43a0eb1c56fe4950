"""Every rule against naive dense products in float64, one pair at a time."""

import numpy as np
import pytest

from common.low_rank.factors import Factors
from common.low_rank.fair import Fair
from common.low_rank.pair_rule import Pair, Sites, deviation, mean, mean_of_products
from common.low_rank.residual import Residual
from common.low_rank.svd import Svd

SHARES = (0.5, 0.2, 0.3)
OUT, IN, R = 14, 11, 3


def pair(seed: int = 0, residual: int = 0) -> Pair:
    generator = np.random.default_rng(seed)
    kept = Factors(generator.normal(size=(OUT, residual)), generator.normal(size=(residual, IN)))
    return Pair(generator.normal(size=(OUT, R)), generator.normal(size=(R, IN)), kept)


def sites(current: Pair, seed: int = 1, spread: float = 0.3) -> Sites:
    generator = np.random.default_rng(seed)
    return [
        (
            Factors(
                current.b + spread * generator.normal(size=current.b.shape),
                current.a + spread * generator.normal(size=current.a.shape),
            ),
            share,
        )
        for share in SHARES
    ]


def naive_mean(trained: Sites) -> np.ndarray:
    """The mean of the products, by a loop."""
    total = np.zeros((OUT, IN))
    for factors, share in trained:
        total += share * factors.left @ factors.right
    return total


def naive_product(trained: Sites) -> np.ndarray:
    """The product of the means."""
    b = np.average([factors.left for factors, _ in trained], axis=0, weights=SHARES)
    a = np.average([factors.right for factors, _ in trained], axis=0, weights=SHARES)
    return np.asarray(b @ a)


def held(found: Pair) -> np.ndarray:
    """What a pair holds beside the frozen map."""
    return found.b @ found.a + found.residual.left @ found.residual.right


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * values[:rank] @ v[:rank]


def test_the_deviation_is_the_mean_of_products_minus_the_product_of_means() -> None:
    trained = sites(pair())
    found = deviation(trained)
    np.testing.assert_allclose(found.left @ found.right, naive_mean(trained) - naive_product(trained), atol=1e-12)
    wanted = mean_of_products(trained)
    np.testing.assert_allclose(wanted.left @ wanted.right, naive_mean(trained), atol=1e-12)
    means = mean(trained)
    np.testing.assert_allclose(means.left @ means.right, naive_product(trained), atol=1e-12)


def test_the_deviation_is_zero_where_the_sites_share_a_factor() -> None:
    """But for the last place of the mean of equal numbers."""
    current = pair()
    trained = [(Factors(factors.left, current.a), share) for factors, share in sites(current)]
    found = deviation(trained)
    assert np.abs(found.left @ found.right).max() < 1e-15 * np.abs(naive_mean(trained)).max()


@pytest.mark.parametrize("regularisation", [1e-6, 0.01, 1.0])
def test_lora_fair_is_the_minimum_of_its_objective(regularisation: float) -> None:
    """Against ordinary least squares on stacked equations, whose matrices are dense: dB [A | sqrt(lambda) I] = [M - B A | 0]."""
    current = pair()
    trained = sites(current)
    found = Fair(regularisation).apply(current, trained)
    means = mean(trained)
    np.testing.assert_array_equal(found.a, means.right)
    size = np.trace(means.right @ means.right.T) / R
    equations = np.concatenate([means.right, np.sqrt(regularisation * size) * np.eye(R)], axis=1)
    wanted = np.concatenate([naive_mean(trained) - naive_product(trained), np.zeros((OUT, R))], axis=1)
    correction = np.linalg.lstsq(equations.T, wanted.T, rcond=None)[0].T
    np.testing.assert_allclose(found.b, means.left + correction, atol=1e-10)


def test_lora_fair_is_nearer_than_the_means_and_the_more_so_the_less_it_is_held_to_b() -> None:
    current = pair()
    trained = sites(current)
    wanted = naive_mean(trained)
    distances = [np.linalg.norm(wanted - held(Fair(r).apply(current, trained))) for r in (1e-6, 0.01, 1.0, 1e6)]
    apart = np.linalg.norm(wanted - naive_product(trained))
    assert distances == sorted(distances)
    assert distances[1] < 0.9 * apart
    np.testing.assert_allclose(distances[-1], apart, rtol=1e-3)


def test_lora_fairs_strength_does_not_depend_on_how_a_product_is_parted() -> None:
    current = pair()
    trained = sites(current)
    other = [(Factors(factors.left / 10, factors.right * 10), share) for factors, share in trained]
    one, two = Fair().apply(current, trained), Fair().apply(current, other)
    np.testing.assert_allclose(held(one), held(two), atol=1e-10)


def test_lora_fair_lets_an_a_of_zeros_be() -> None:
    current = pair()
    trained = [(Factors(factors.left, np.zeros((R, IN))), share) for factors, share in sites(current)]
    found = Fair().apply(current, trained)
    np.testing.assert_allclose(found.b, mean(trained).left)


def test_the_residual_makes_every_mean_exact() -> None:
    """Over rounds in which its rank has room for what comes: two sites' worth a round."""
    rule, current, frozen = Residual(kept_rank=OUT), pair(residual=OUT), np.zeros((OUT, IN))
    current = Pair(current.b, current.a, Factors(np.zeros((OUT, OUT)), np.zeros((OUT, IN))))
    for number in range(4):
        trained = sites(current, seed=number)
        frozen = current.residual.left @ current.residual.right  # each site's map holds it, whatever the site trains
        current = rule.apply(current, trained)
        np.testing.assert_allclose(held(current), naive_mean(trained) + frozen, atol=1e-11)
        assert np.linalg.norm(current.residual.left @ current.residual.right - frozen) > 0.1
        np.testing.assert_array_equal(current.b, mean(trained).left)


def test_a_residual_beyond_its_rank_is_cut_to_the_nearest() -> None:
    current = pair(residual=4)
    trained = sites(current)
    found = Residual(kept_rank=4).apply(current, trained)
    whole = current.residual.left @ current.residual.right + naive_mean(trained) - naive_product(trained)
    np.testing.assert_allclose(found.residual.left @ found.residual.right, best(whole, 4), atol=1e-11)
    assert np.linalg.norm(whole - best(whole, 4)) > 0.1


def test_svd_is_the_nearest_pair_to_the_mean_of_products() -> None:
    current = pair()
    trained = sites(current)
    found = Svd().apply(current, trained)
    assert found.b.shape == current.b.shape
    assert found.a.shape == current.a.shape
    np.testing.assert_allclose(held(found), best(naive_mean(trained), R), atol=1e-11)


def test_svd_takes_sites_of_smaller_rank_at_their_own() -> None:
    """A site that trained one component sends zeros for the others, and its product is of rank one."""
    current = pair()
    trained = list(sites(current))
    (b, a), share = trained[1]
    trained[1] = (Factors(np.concatenate([b[:, :1], np.zeros((OUT, R - 1))], axis=1), np.pad(a[:1], ((0, R - 1), (0, 0)))), share)
    naive = naive_mean([trained[0], trained[2]]) + share * np.outer(b[:, 0], a[0])
    np.testing.assert_allclose(held(Svd().apply(current, trained)), best(naive, R), atol=1e-11)
