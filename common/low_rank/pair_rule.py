"""What makes the next global pair B, A of a low-rank map out of the sites' pairs.

The mean of the products B A is not the product of the mean B and the mean A, unless all sites share one of the two. A rule says
what is made of that. It is a frozen dataclass with its settings, and knows one pair at a time; all other arrays go through
`federation.strategy` (`paired`). p_k is the share of site k, and they add up to 1; O outputs, I inputs, r rank of the pair, R of
the residual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.adapters.adapter import Adapter
from common.aggregation.aggregator import Aggregator
from common.low_rank.factors import Factors, Matrix, added, scaled

Sites = Sequence[tuple[Factors, float]]  # each site's B_k and A_k as it has trained them, and p_k


@dataclass(frozen=True)
class Pair:
    """A global pair: the map is the frozen one plus a multiple of `b @ a` plus what the residual holds.

    Attributes:
        b: [O, r].
        a: [r, I].
        residual: [O, R] and [R, I], which no site trains; R is 0 where the rule keeps none.
    """

    b: Matrix
    a: Matrix
    residual: Factors


class PairRule:
    """The base class of rules.

    Attributes:
        name: in `federation.low_rank`.
        from_sum: the sites' mean factors are all that it needs, as in secure aggregation.
        takes_pairs: it aggregates the pairs in the place of `federation.strategy`.
        ranks_differ: a site may train the first components of a pair alone (`policy.max_rank` of its site.toml).
    """

    name: ClassVar[str]
    from_sum: ClassVar[bool] = False
    takes_pairs: ClassVar[bool] = True
    ranks_differ: ClassVar[bool] = False

    @property
    def residual_rank(self) -> int:
        """R, of what travels beside each pair."""
        return 0

    def apply(self, current: Pair, sites: Sites) -> Pair:
        """The next pair.

        Args:
            current: the one that the sites were sent.
            sites: theirs; at least one has moved it.
        """
        raise NotImplementedError

    def why_not(self, adapter: Adapter, strategy: Aggregator) -> str:
        """Why it cannot run with these; "" where it can."""
        if not self.takes_pairs:
            return ""
        if not adapter.pairs:
            return f'model.adapter = "{adapter.name}", whose map is not the frozen one plus a product of two factors'
        if adapter.exact_mean:
            return "a model.adapter.factor of which one factor a round is still: the mean of the other is exact already"
        if not strategy.from_sum:
            return f'federation.strategy = "{strategy.name}", which judges single sites: of the pairs all would be in the mean'
        return ""


def mean(sites: Sites) -> Factors:
    """The mean B and the mean A."""
    left = sum((share * factors.left for factors, share in sites), start=np.zeros(()))
    right = sum((share * factors.right for factors, share in sites), start=np.zeros(()))
    return Factors(left, right)


def mean_of_products(sites: Sites) -> Factors:
    """sum p_k B_k A_k, of rank up to K r for K sites."""
    return added(scaled(factors, share) for factors, share in sites)


def deviation(sites: Sites) -> Factors:
    """The mean of the products minus the product of the means: sum p_k (B_k - B)(A_k - A), B and A the means.

    It is zero, but for rounding of the mean, where all sites share a factor: nothing large is subtracted from anything large.
    """
    b, a = mean(sites)
    return added(Factors(share * (factors.left - b), factors.right - a) for factors, share in sites)
