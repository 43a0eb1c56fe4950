"""FedEx-LoRA: what the means miss is kept, and the mean is exact (Singhal et al., arXiv 2410.09432).

    W' = W + s (B A + residual)        residual <- residual + sum p_k (B_k - B)(A_k - A)

The paper adds the residual to the frozen W. Here W is pinned by its hash, and stays: the residual travels beside it as factors of
rank R, the same at all sites and trained by none. Each round adds up to (K - 1) r to its rank, K sites; beyond R it is cut to the
nearest of rank R (QR and SVD of the factors), and `left` of a round's record says how much of the mean that has cost.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.low_rank.factors import added, truncated
from common.low_rank.pair_rule import Pair, PairRule, Sites, deviation, mean
from common.schema import ranged


@dataclass(frozen=True)
class Residual(PairRule):
    """Settings of the residual, and what it computes."""

    name: ClassVar[str] = "residual"
    kept_rank: int = ranged(32, 1, 1024)  # R; a round's message to a site grows by R / r of its pairs, a reply does not

    @property
    def residual_rank(self) -> int:
        """See `PairRule`."""
        return self.kept_rank

    def apply(self, current: Pair, sites: Sites) -> Pair:
        """See `PairRule`."""
        b, a = mean(sites)
        return Pair(b, a, truncated(added([current.residual, deviation(sites)]), self.kept_rank))
