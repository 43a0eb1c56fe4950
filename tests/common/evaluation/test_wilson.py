"""The interval of a share against scipy's."""

import pytest
from scipy.stats import binomtest

from common.evaluation.wilson import Share, wilson_interval


@pytest.mark.parametrize(("hits", "of"), [(0, 7), (3, 10), (10, 10), (90, 100), (1, 1), (13, 20)])
def test_the_interval_is_scipys_wilson(hits, of) -> None:
    exact = binomtest(hits, of).proportion_ci(method="wilson")
    found = wilson_interval(hits, of)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert found.value == hits / of


def test_a_share_of_nothing_is_not_known() -> None:
    assert wilson_interval(0, 0) == Share(None, None, None)
