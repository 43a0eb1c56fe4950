"""Krum: the change that lies closest to the others (Blanchard et al., NeurIPS 2017, section 3)."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from common.aggregation.aggregator import Arrays, Change, State, moved
from common.aggregation.votes import votes
from common.schema import ranged


@dataclass(frozen=True)
class Krum:
    """The global arrays move by one site's change: that with the least sum of squared distances to its n - f - 2 nearest.

    Sites do not weigh (`votes`), and in each round the model learns from one of them.
    """

    name: ClassVar[str] = "krum"
    from_sum: ClassVar[bool] = False
    byzantine: int = ranged(1, 1, 1000)  # f: so many sites may send anything

    @property
    def least_sites(self) -> int:
        """2f + 3 (proposition 1)."""
        return 2 * self.byzantine + 3

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        sites = votes(self.name, self.least_sites, changes)
        best = sites[by_score(squared_distances(sites), range(len(sites)), self.byzantine)[0]]
        return moved(current, {name: best[name].astype(np.float64) for name in current}), state


def squared_distances(changes: Sequence[Change]) -> NDArray[np.float64]:
    """[n, n], between all changes, all arrays together. On the diagonal stand the changes' own squared norms."""
    found = np.diag([_squared(change, None) for change in changes])
    for i, j in combinations(range(len(changes)), 2):
        found[i, j] = found[j, i] = _squared(changes[i], changes[j])
    return found


def by_score(distances: NDArray[np.float64], among: Collection[int], byzantine: int) -> list[int]:
    """Those `among` the changes, from the lowest score to the highest; of equal ones the shorter change is first.

    Args:
        distances: as `squared_distances` gives them.
        among: indices of the m changes that are looked at. The score of each is the sum of its m - f - 2 least distances to the
            others; of one at least, since Bulyan looks at fewer and fewer.
        byzantine: f.
    """
    nearest = max(1, len(among) - byzantine - 2)

    def score(i: int) -> tuple[float, float]:
        others = np.sort([distances[i, j] for j in among if j != i])
        return float(others[:nearest].sum()), float(distances[i, i])

    return sorted(among, key=score)


def _squared(one: Change, other: Change | None) -> float:
    """The squared distance of a change from another, or from none."""
    return sum(
        float(np.square(one[name].astype(np.float64) - (other[name] if other is not None else 0.0)).sum()) for name in sorted(one)
    )
