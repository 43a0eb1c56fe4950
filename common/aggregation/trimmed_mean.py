"""The coordinate-wise trimmed mean (Yin et al., ICML 2018, definition 2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.aggregator import Arrays, Change, State, moved
from common.aggregation.votes import in_order, votes
from common.schema import ranged


@dataclass(frozen=True)
class TrimmedMean:
    """Each value moves by the mean of its votes without the lowest and the highest `byzantine` ones.

    The paper trims a share beta of n; here it is a number, f = beta n, so that a small federation never rounds it to none. Sites
    do not weigh (`votes`).
    """

    name: ClassVar[str] = "trimmed-mean"
    from_sum: ClassVar[bool] = False
    byzantine: int = ranged(1, 1, 1000)  # f: so many sites may send anything

    @property
    def least_sites(self) -> int:
        """2f + 1: something must be left between the trimmed ends."""
        return 2 * self.byzantine + 1

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        sites = votes(self.name, self.least_sites, changes)
        kept = slice(self.byzantine, len(sites) - self.byzantine)
        return moved(current, {name: in_order(sites, name)[kept].mean(0) for name in current}), state
