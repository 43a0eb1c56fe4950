"""Bulyan: Krum's choices, trimmed value by value (El Mhamdi et al., ICML 2018, section 4).

Krum bounds the distance of what is chosen, all values together: in many dimensions a liar may hide one large value there. Bulyan
lets each value move by what most of the chosen changes agree on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from common.aggregation.aggregator import Arrays, Change, State, moved
from common.aggregation.krum import by_score, squared_distances
from common.aggregation.votes import in_order, votes
from common.schema import ranged


@dataclass(frozen=True)
class Bulyan:
    """Krum chooses one change after the other, each among those that are left, until n - 2f are chosen.

    Each value then moves by the mean of the n - 4f votes that are nearest to the chosen changes' median. Sites do not weigh
    (`votes`).
    """

    name: ClassVar[str] = "bulyan"
    from_sum: ClassVar[bool] = False
    byzantine: int = ranged(1, 1, 1000)  # f: so many sites may send anything

    @property
    def least_sites(self) -> int:
        """4f + 3 (section 4.1)."""
        return 4 * self.byzantine + 3

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        sites = votes(self.name, self.least_sites, changes)
        distances, left, chosen = squared_distances(sites), set(range(len(sites))), list[Change]()
        while len(left) > 2 * self.byzantine:
            best = by_score(distances, left, self.byzantine)[0]
            left.remove(best)
            chosen.append(sites[best])
        near = len(sites) - 4 * self.byzantine
        return moved(current, {name: mean_near_median(in_order(chosen, name), near) for name in current}), state


def mean_near_median(votes_: NDArray[np.float64], near: int) -> NDArray[np.float64]:
    """The mean, for each value, of the `near` votes nearest to their median.

    Args:
        votes_: [n, *shape], each value in ascending order.
        near: of n.
    """
    distance = np.abs(votes_ - np.median(votes_, axis=0))
    nearest = np.argsort(distance, axis=0, kind="stable")[:near]
    return np.asarray(np.take_along_axis(votes_, nearest, axis=0).mean(0))
