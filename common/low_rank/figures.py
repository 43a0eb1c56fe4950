"""What averaging the factors apart costs, measured anew from what went in and what came out, whatever the rule."""

from collections.abc import Iterable

import numpy as np

from common.aggregation.aggregator import Arrays, Change
from common.low_rank.factors import Factors, added, norm, scaled
from common.low_rank.pair_rule import deviation, mean_of_products
from common.low_rank.pairs import has_moved, maps, read_pair, read_sites


def pair_figures(current: Arrays, changes: Iterable[tuple[Change, float]], new: Arrays) -> dict[str, float]:
    """Distances in Frobenius norm, all pairs together, relative to the mean of products; nothing where no pair has moved.

    Args:
        current: the global arrays that the sites were sent.
        changes: each site's change and weight; gone through several times.
        new: the global arrays that came of them.

    Returns:
        `deviation`: of the product of the mean factors, which no rule would mend; `left`: of what the new arrays hold.
    """
    rows = []
    for map_ in maps(current):
        if has_moved(map_, changes):
            sites, before, after = read_sites(map_, current, changes), read_pair(map_, current), read_pair(map_, new)
            wanted = mean_of_products(sites)
            held = added([Factors(after.b, after.a), after.residual, scaled(before.residual, -1.0)])
            rows.append([norm(wanted), norm(deviation(sites)), norm(added([wanted, scaled(held, -1.0)]))])
    size, apart, left = np.linalg.norm(rows, axis=0) if rows else np.zeros(3)
    return {"deviation": float(apart / size), "left": float(left / size)} if size > 0 else {}
