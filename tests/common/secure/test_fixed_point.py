"""Counting: exact sums, no overflow, refusals instead of silent clipping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import FederationError
from common.secure.fixed_point import UNCOUNTABLE, FixedPoint


@given(st.integers(2, 1000))
def test_the_sum_of_all_sites_always_fits_and_levels_are_as_fine_as_that_allows(sites: int) -> None:
    levels = FixedPoint.for_sites(sites, 1.0, 10.0).levels
    assert sites * levels < 2**32
    assert levels == 2**30 or 2 * sites * levels >= 2**32


@given(
    st.lists(st.tuples(st.floats(0.0, 100.0), st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3)), min_size=2, max_size=9),
    st.integers(0, 3),
)
def test_the_decoded_sum_is_the_weighted_mean(sites: list[tuple[float, list[float]]], absent: int) -> None:
    fixed = FixedPoint.for_sites(len(sites) + absent, 2.0, 100.0)
    total = np.zeros(4, np.uint32)
    for weight, update in sites:
        total += fixed.encode(np.array(update), weight)
    shares = [round(weight / 100.0 * fixed.levels) for weight, _ in sites]
    if sum(shares) == 0:
        with pytest.raises(FederationError, match="nothing to average"):
            fixed.decode(total, len(sites))
        return
    mean, weight = fixed.decode(total, len(sites))
    naive = sum(share * np.array(update) for share, (_, update) in zip(shares, sites, strict=True)) / sum(shares)
    assert weight == pytest.approx(sum(w for w, _ in sites), abs=100.0 * len(sites) / fixed.levels)
    np.testing.assert_allclose(mean, naive, atol=2 * 2.0 * len(sites) / sum(shares) + 1e-9)


@pytest.mark.parametrize(
    ("update", "weight", "named"),
    [
        ([0.0, 1.01], 1.0, "secure.update_range"),
        ([0.0, np.nan], 1.0, "secure.update_range"),
        ([np.inf, 0.0], 1.0, "secure.update_range"),
        ([0.0, 0.5], 10.5, "secure.max_weight"),
        ([0.0, 0.5], -1.0, "secure.max_weight"),
        ([0.0, 0.5], np.nan, "secure.max_weight"),
    ],
)
def test_what_flower_would_clip_or_let_overflow_is_refused(update: list[float], weight: float, named: str) -> None:
    with pytest.raises(FederationError, match=named) as caught:
        FixedPoint.for_sites(8, 1.0, 10.0).encode(np.array(update), weight)
    # The log alone says which of the two: a limit that the server moves must not tell a weight.
    assert caught.value.public == UNCOUNTABLE
    assert "10.5" not in caught.value.public  # the value itself stays


def test_a_damaged_sum_is_noticed() -> None:
    fixed = FixedPoint.for_sites(3, 1.0, 10.0)
    words = fixed.encode(np.array([0.5, -0.5]), 5.0)
    for place, value in ((0, 1), (0, 2**32 - 1), (1, 2**32 - 1), (2, 0)):
        damaged = words.copy()
        damaged[place] = value
        with pytest.raises(FederationError, match="damaged"):
            fixed.decode(damaged, 1)
    fixed.decode(words, 1)


@given(st.integers(2, 60), st.floats(1e-3, 1e3))
def test_what_no_site_changed_comes_back_exactly(sites: int, update_range: float) -> None:
    fixed = FixedPoint.for_sites(sites, update_range, 10.0)
    total = sum((fixed.encode(np.zeros(2), 3.0) for _ in range(sites)), np.zeros(3, np.uint32))
    assert fixed.decode(total, sites)[0].tolist() == [0.0, 0.0]
