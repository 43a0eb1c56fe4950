"""The coordinate-wise median (Yin et al., ICML 2018, definition 1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.aggregation.aggregator import Arrays, Change, State, moved
from common.aggregation.votes import stacked, votes


@dataclass(frozen=True)
class Median:
    """Each value moves by the median of its votes: less than half of the sites may send anything. They do not weigh (`votes`)."""

    name: ClassVar[str] = "median"
    from_sum: ClassVar[bool] = False
    least_sites: ClassVar[int] = 3  # of two, the median is the mean

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        sites = votes(self.name, self.least_sites, changes)
        return moved(current, {name: np.asarray(np.median(stacked(sites, name), axis=0)) for name in current}), state
