"""How many sites must stay in a secure sum, and what it hides then, in numbers.

n sites stand in a sum, t of them must stay to the end, k of them tell the coordinator all that they know.
"""

import math

LEAST_SUMMED = 3  # sites in a sum where there are so many: hospitals take part in no smaller one, unless their policy says else


def sites_needed(asked: int, share: float, least: int) -> int:
    """The threshold t of a sum for which so many sites are asked: more than half of them.

    Args:
        asked: n.
        share: `secure.threshold`.
        least: `federation.min_sites`.
    """
    return max(least, math.ceil(share * asked - 1e-9), asked // 2 + 1, min(LEAST_SUMMED, asked), 2)


def hidden_among(summed: int, needed: int, colluding: int) -> int:
    """Among how many sites a site's update is hidden from the coordinator and so many others; 1: it is known to them.

    From t sites' shares any mask can be taken off. From fewer, what remains of the sum is that of the others.
    """
    return 1 if colluding >= needed else max(summed - colluding, 1)
