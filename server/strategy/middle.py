"""The middle of the sites' changes, and how far from it a change may be.

A bound on lengths does not stop a change that is turned round: it is as long as any. Its distance from the others' gives it
away in part: a change that is farther from the geometric median of all (Pillutla et al., IEEE TSP 2022) than the others usually
are is drawn to it (as in clipping about a centre: Karimireddy et al., ICML 2021, section 5), and the farther it was the nearer:
at twice the bound a half of the bound is left, so that who goes far gains nothing by it. Each array by itself, so that a small
one is no place to hide. No site is refused, and none counts as liar: hospitals differ, and the farthest may be
honest. n sites, V values of an array.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.aggregation.aggregator import Change

LEAST_SITES = 3  # of two nobody can say which is the odd one
STEPS, TOLERANCE = 200, 1e-10  # of Weiszfeld's algorithm; relative


@dataclass(frozen=True)
class Drawn:
    """What is taken of a change.

    Attributes:
        change: of each array middle + part * (change - middle).
        part: of its distance that is left, all arrays together; 1: it was near enough, and is as it came, to the last bit.
    """

    change: Change
    part: float

    @property
    def times(self) -> float:
        """How many times as far as the bound it was, about: what is left falls with the square of that."""
        return 1 / math.sqrt(self.part) if self.part > 0 else math.inf

    @property
    def length(self) -> float:
        """Its norm, all arrays together."""
        return math.hypot(*(float(np.linalg.norm(array.astype(np.float64))) for array in self.change.values()))


def drawn_to_middle(changes: Mapping[str, Change], ratio: float) -> dict[str, Drawn]:
    """Each change, its arrays no farther from the sites' geometric median than `ratio` times the others' median distance.

    Of one at distance d, beyond that bound b, the distance b b / d is left. A site that left an array as it was has no part in
    that array's middle; where fewer than three changed it, it stays.

    Args:
        changes: by site.
        ratio: above 0.
    """
    taken = {site: dict(change) for site, change in changes.items()}
    before, after = dict.fromkeys(changes, 0.0), dict.fromkeys(changes, 0.0)  # squared distances
    for name in sorted({name for change in changes.values() for name in change}):
        voters = [site for site, change in changes.items() if name in change and change[name].any()]
        if len(voters) < LEAST_SITES:
            continue
        rows = np.stack([changes[site][name].astype(np.float64).ravel() for site in voters])
        middle = geometric_median(rows)
        distances = np.linalg.norm(rows - middle, axis=1)
        for place, site in enumerate(voters):
            own, bound = float(distances[place]), ratio * float(np.median(np.delete(distances, place)))
            part = (bound / own) ** 2 if own > bound else 1.0
            before[site], after[site] = before[site] + own**2, after[site] + (part * own) ** 2
            if part < 1.0:
                near = middle + part * (rows[place] - middle)
                taken[site][name] = near.astype(np.float32).reshape(changes[site][name].shape)
    return {site: _drawn(changes[site], taken[site], before[site], after[site]) for site in changes}


def _drawn(change: Change, taken: Change, before: float, after: float) -> Drawn:
    return Drawn(taken, math.sqrt(after / before)) if after < before else Drawn(change, 1.0)


def geometric_median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """[V]: the point with the least sum of distances to the rows [n, V], by Weiszfeld's algorithm from their mean."""
    point, size = rows.mean(axis=0), float(np.linalg.norm(rows, axis=1).max())
    for _ in range(STEPS):
        near = 1.0 / np.maximum(np.linalg.norm(rows - point, axis=1), 1e-12 * size + 1e-300)
        after = np.asarray((near / near.sum()) @ rows, np.float64)
        if np.linalg.norm(after - point) <= TOLERANCE * size:
            return after
        point = after
    return np.asarray(point, np.float64)
