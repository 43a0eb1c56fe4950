"""LoRA-FAIR: the mean B is corrected so that its product with the mean A is near the mean of products (Bian et al., ICCV 2025).

    dB = argmin |M - (B + dB) A|^2 + lambda |dB|^2        M = sum p_k B_k A_k, B and A the means

The paper minimises a dissimilarity of M and (B + dB) A by gradient descent; with the squared Frobenius norm the minimum is a
ridge regression: dB = (M - B A) A^T (A A^T + lambda I)^-1. What it can not reach is the part of M outside the rows of A. It
costs no byte more than the means.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.low_rank.pair_rule import Pair, PairRule, Sites, deviation, mean
from common.schema import ranged


@dataclass(frozen=True)
class Fair(PairRule):
    """Settings of LoRA-FAIR's correction, and what it computes.

    `regularisation` is lambda in units of the mean squared norm of A's rows, so that A's scale does not matter.
    """

    name: ClassVar[str] = "fair"
    regularisation: float = ranged(0.01, 1e-6, 1e6)

    def apply(self, current: Pair, sites: Sites) -> Pair:
        """See `PairRule`."""
        b, a = mean(sites)
        missing, gram = deviation(sites), a @ a.T
        size = float(np.trace(gram)) / len(gram)
        if not size > 0:  # an A of zeros: no B could do anything
            return Pair(b, a, current.residual)
        toward = missing.left @ (missing.right @ a.T)  # [O, r]
        correction = np.linalg.solve(gram + self.regularisation * size * np.eye(len(gram)), toward.T).T
        return Pair(b + correction, a, current.residual)
