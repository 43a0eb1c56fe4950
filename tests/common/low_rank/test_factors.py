"""Products that are never multiplied out, against the same multiplied out by numpy."""

import numpy as np
import pytest

from common.low_rank.factors import Factors, added, norm, scaled, truncated

SHAPES = [(20, 6, 15), (6, 30, 9), (4, 3, 40), (5, 12, 7)]  # O, R, I: thin, wider than O and I, and in between


def some(outputs: int, rank: int, inputs: int, seed: int = 0) -> Factors:
    generator = np.random.default_rng(seed)
    return Factors(generator.normal(size=(outputs, rank)), generator.normal(size=(rank, inputs)))


def dense(factors: Factors) -> np.ndarray:
    return factors.left @ factors.right


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The nearest matrix of a rank, by numpy's SVD of the whole matrix."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * values[:rank] @ v[:rank]


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_multiple_and_norm_are_those_of_the_matrices(shape: tuple[int, int, int]) -> None:
    one, other = some(*shape), some(shape[0], 2, shape[2], seed=1)
    np.testing.assert_allclose(dense(added([one, scaled(other, -3.0)])), dense(one) - 3 * dense(other), atol=1e-12)
    np.testing.assert_allclose(norm(one), np.linalg.norm(dense(one)), rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5, 45])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_product_is_that_of_numpys_svd_of_the_whole_matrix(shape: tuple[int, int, int], rank: int) -> None:
    factors = some(*shape)
    found = truncated(factors, rank)
    assert found.left.shape == (shape[0], rank)
    assert found.right.shape == (rank, shape[2])
    np.testing.assert_allclose(dense(found), best(dense(factors), rank), atol=1e-10)


def test_components_are_sorted_and_any_first_ones_are_the_best_of_their_rank() -> None:
    factors = some(20, 6, 15)
    found = truncated(factors, 5)
    for rank in range(1, 6):
        np.testing.assert_allclose(found.left[:, :rank] @ found.right[:rank], best(dense(factors), rank), atol=1e-10)
    np.testing.assert_allclose(found.right @ found.right.T, np.eye(5), atol=1e-12)


def test_a_vectors_sign_does_not_depend_on_the_factors_that_the_product_came_in() -> None:
    factors, turn = some(20, 6, 15), np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    one, other = truncated(factors, 4), truncated(Factors(factors.left @ turn, turn.T @ factors.right), 4)
    np.testing.assert_allclose(one.left, other.left, atol=1e-10)
    np.testing.assert_allclose(one.right, other.right, atol=1e-10)


def test_a_product_of_zero_keeps_rows_that_can_learn() -> None:
    """As LoRA starts: B zero, A not. Were both zero, neither would have a gradient ever again."""
    found = truncated(Factors(np.zeros((20, 6)), some(1, 6, 15).right), 4)
    assert not found.left.any()
    np.testing.assert_allclose(np.linalg.norm(found.right, axis=1), 1.0)


def test_a_map_whose_product_would_fill_any_memory_is_no_trouble() -> None:
    """100,000 by 100,000 in float64 are 80 GB."""
    factors = some(100_000, 3, 100_000)
    found = truncated(added([factors, scaled(factors, -0.5)]), 3)
    np.testing.assert_allclose(norm(found), norm(factors) / 2, rtol=1e-9)
