"""Wilson's interval of a proportion, which holds for few patients too, and for proportions near 0 and 1."""

import math
from typing import NamedTuple

Z = 1.959963984540054  # 97.5% quantile of the normal distribution


class Share(NamedTuple):
    """A proportion and its 95% interval; None where it is of nothing."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def wilson_interval(hits: int, of: int) -> Share:
    """The score interval (Wilson, JASA 1927, equation 4)."""
    if of < 1:
        return Share()
    share = hits / of
    middle, width = share + Z**2 / (2 * of), Z * math.sqrt(max(0.0, share * (1 - share)) / of + Z**2 / (4 * of**2))
    low, high = (min(1.0, max(0.0, (middle + sign * width) / (1 + Z**2 / of))) for sign in (-1, 1))
    return Share(share, low, high)
