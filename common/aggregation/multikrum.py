"""Multi-Krum: the mean of the changes that lie closest to the others (Blanchard et al., NeurIPS 2017, section 4)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.aggregator import Arrays, Change, State, mean_change, moved
from common.aggregation.krum import by_score, squared_distances
from common.aggregation.votes import votes
from common.schema import ranged


@dataclass(frozen=True)
class MultiKrum:
    """The global arrays move by the mean of the `selected` changes with the lowest Krum scores. Sites do not weigh (`votes`)."""

    name: ClassVar[str] = "multikrum"
    from_sum: ClassVar[bool] = False
    byzantine: int = ranged(1, 1, 1000)  # f: so many sites may send anything
    selected: int = ranged(0, 0, 1000)  # 0: n - f - 2, the most that is proven (Damaskinos et al., MLSys 2019)

    @property
    def least_sites(self) -> int:
        """2f + 3, and `selected` + f + 2."""
        return max(2 * self.byzantine + 3, self.selected + self.byzantine + 2)

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        sites = votes(self.name, self.least_sites, changes)
        best = by_score(squared_distances(sites), range(len(sites)), self.byzantine)
        selected = best[: self.selected or len(sites) - self.byzantine - 2]
        return moved(current, mean_change(current, ((sites[i], 1.0) for i in selected))), state
