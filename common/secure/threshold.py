"""How many sites must stay in a secure sum, and what it hides then, in numbers.

n sites stand in a sum, t of them must stay to the end, k of them tell the coordinator all that they know.
"""

import math

from common.config.sections import SecureConfig


def sites_needed(asked: int, plan: SecureConfig, least: int) -> int:
    """The threshold t of a sum for which so many sites are asked: more than half of them.

    Args:
        asked: n.
        plan: `threshold` and `min_summed` are read.
        least: `federation.min_sites`.
    """
    return max(least, math.ceil(plan.threshold * asked - 1e-9), asked // 2 + 1, min(plan.min_summed, asked), 2)


def hidden_among(summed: int, needed: int, colluding: int) -> int:
    """Among how many sites a site's update is hidden from the coordinator and so many others; 1: it is known to them.

    From t sites' shares any mask can be taken off. From fewer, what remains of the sum is that of the others.
    """
    return 1 if colluding >= needed else max(summed - colluding, 1)
