"""Updates in fixed point, as whole numbers whose sum cannot overflow: masked sums must be exact.

A site of weight w sends w d for its update d, and w beside it; the server divides the two sums. Levels L, range c, n sites: a
value v of [-c, c] becomes round((v + c) L / 2c) of [0, L], and n L < 2^32. The mapping is Flower's, which clips silently and only
warns where a weight overflows; here both are refused.
"""

from dataclasses import dataclass

import numpy as np
from flwr.common.secure_aggregation.quantization import quantize
from numpy.typing import NDArray

from common.errors import FederationError

MODULUS_BITS = 32
MAX_LEVEL_BITS = 30  # Flower's quantisation counts in int32

# One sentence for all: sites shorten what is beyond a run's limits (`client.round.dispatch`), so no limit can be asked about.
UNCOUNTABLE = "the site's update cannot be counted in a sum, or the site has no weight in it; its log says which"

Words = NDArray[np.uint32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class FixedPoint:
    """How one round counts.

    Attributes:
        update_range: the largest change of one value, c.
        max_weight: the largest weight of a site.
        levels: L, a power of two.
    """

    update_range: float
    max_weight: float
    levels: int

    @classmethod
    def for_sites(cls, sites: int, update_range: float, max_weight: float) -> "FixedPoint":
        """The finest counting whose sum over so many sites fits."""
        bits = min(MAX_LEVEL_BITS, ((2**MODULUS_BITS - 1) // sites).bit_length() - 1)
        return cls(update_range, max_weight, 2**bits)

    def encode(self, update: Values, weight: float) -> Words:
        """The weight and the weighted update as counts, [1 + values].

        Raises:
            FederationError: a value beyond the range, one that is not finite, or a weight that is too large.
        """
        share = self.share(weight)
        worst = float(np.abs(update).max(initial=0.0))
        if not worst <= self.update_range:  # also for NaN
            raise FederationError(
                f"A value of the update changed by {worst:g}; secure.update_range allows {self.update_range:g}.",
                public=UNCOUNTABLE,
            )
        step = 2 * self.update_range / self.levels
        on_grid = np.rint(update * (share / self.levels) / step) * step  # so that Flower's random rounding has nothing to decide
        counts = quantize([on_grid], self.update_range, self.levels)[0]
        return np.concatenate([[share], counts]).astype(np.uint32)

    def share(self, weight: float) -> int:
        """The weight as a count.

        Raises:
            FederationError: it is too large.
        """
        share = round(weight / self.max_weight * self.levels) if np.isfinite(weight) else -1
        if not 0 <= share <= self.levels:
            raise FederationError(
                f"The site's weight {weight:g} cannot be counted: expected at most {self.max_weight:g} (secure.max_weight).",
                public=UNCOUNTABLE,
            )
        return share

    def decode(self, total: Words, sites: int) -> tuple[Values, float]:
        """The weighted mean update and the total weight, from the sum of so many sites' counts.

        Raises:
            FederationError: a sum that no such sites can have made.
        """
        share = int(total[0]) / self.levels
        if share == 0:
            raise FederationError(
                "No site of the round has a labelled patient and federation.unlabelled_weight is 0: there is nothing to average."
            )
        if share > sites:
            raise FederationError("The unmasked sum is damaged: its weight is out of range.")
        counts = total[1:].astype(np.int64) - sites * (self.levels // 2)  # exact: what no site has changed stays as it is
        mean: Values = counts.astype(np.float64) * (2 * self.update_range / self.levels / share)
        slack = 1e-6 + sites / (share * self.levels)  # of rounding
        if not np.abs(mean).max(initial=0.0) <= self.update_range * (1 + slack):
            raise FederationError("The unmasked sum is damaged: a value is out of range.")
        return mean, share * self.max_weight
