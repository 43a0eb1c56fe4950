"""FedAvg: the weighted mean (McMahan et al., AISTATS 2017, algorithm 1, server line)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.aggregator import Arrays, Change, State, mean_change, moved


@dataclass(frozen=True)
class FedAvg:
    """The global arrays move by the mean of the sites' changes. It remembers nothing."""

    name: ClassVar[str] = "fedavg"
    from_sum: ClassVar[bool] = True
    least_sites: ClassVar[int] = 1

    def init(self, template: Arrays) -> State:
        """No state."""
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        return moved(current, mean_change(current, changes)), state
