"""The mean of products, cut to the pair's rank (FlexLoRA: Bai et al., NeurIPS 2024; HLoRA of NVFlare: QR and SVD on factors).

    sum p_k B_k A_k = U S V^T,    B = U_r S_r,    A = V_r^T

Singular values fall, so the first components are the best pair of any smaller rank: a site may train those alone
(`policy.max_rank` of its site.toml), and its product has its share in the mean. Rows of A have norm 1, as at LoRA's start, and B
is zero where the product is: a component without weight can still learn.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.low_rank.factors import truncated
from common.low_rank.pair_rule import Pair, PairRule, Sites, mean_of_products


@dataclass(frozen=True)
class Svd(PairRule):
    """The nearest pair to the mean of products."""

    name: ClassVar[str] = "svd"
    ranks_differ: ClassVar[bool] = True

    def apply(self, current: Pair, sites: Sites) -> Pair:
        """See `PairRule`."""
        best = truncated(mean_of_products(sites), len(current.a))
        return Pair(best.left, best.right, current.residual)
