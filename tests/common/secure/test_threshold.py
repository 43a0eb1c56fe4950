"""How many must stay, and what a sum hides then, against the protocol's own two facts, counted out."""

from itertools import combinations

import pytest

from common.config.sections import SecureConfig
from common.secure.threshold import hidden_among, sites_needed


@pytest.mark.parametrize(
    ("asked", "threshold", "least", "summed", "needed"),
    [
        (2, 0.6, 2, 3, 2),
        (3, 0.6, 2, 3, 3),
        (3, 0.6, 2, 2, 2),
        (4, 0.6, 2, 3, 3),
        (8, 0.6, 2, 3, 5),
        (8, 0.9, 2, 3, 8),
        (8, 0.6, 7, 3, 7),
    ],
)
def test_the_largest_of_all_demands_counts(asked: int, threshold: float, least: int, summed: int, needed: int) -> None:
    assert sites_needed(asked, SecureConfig(threshold=threshold, min_summed=summed), least) == needed
    assert needed > asked / 2


@pytest.mark.parametrize(("summed", "needed"), [(2, 2), (3, 2), (3, 3), (5, 3), (8, 5)])
def test_what_is_hidden_is_what_the_known_updates_and_shares_leave_over(summed: int, needed: int) -> None:
    """Site 0 is the one to be hidden; whoever colludes knows their own update, and gives their shares away."""
    for k in range(summed):
        for told in combinations(range(1, summed), k):
            unknown = set(range(summed)) - set(told)
            unmasked = len(told) >= needed  # so many shares give every seed
            assert hidden_among(summed, needed, k) == (1 if unmasked else len(unknown))
