"""FedAvgM: momentum at the server (Hsu et al., arXiv 1909.06335, section 4.3).

    v <- momentum * v + mean change        w <- w + server_learning_rate * v

Sites of different patients pull in different directions; momentum averages the directions over rounds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.aggregation.aggregator import Arrays, Change, State, mean_change, moved
from common.schema import ranged


@dataclass(frozen=True)
class FedAvgM:
    """FedAvg with a velocity v for each value; of the first round v is the mean change itself.

    An array that no site has changed is not of the round (head rounds, or the factor of LoRA that is held still): it stays
    what it is, and its velocity waits.
    """

    name: ClassVar[str] = "fedavgm"
    from_sum: ClassVar[bool] = True
    least_sites: ClassVar[int] = 1
    momentum: float = ranged(0.9, 0.0, 0.9999)
    server_learning_rate: float = ranged(1.0, 1e-6, 1000.0)

    def init(self, template: Arrays) -> State:
        """A velocity of zero."""
        return {name: np.zeros_like(array) for name, array in template.items()}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        mean = mean_change(current, changes)
        trained = [name for name, change in mean.items() if change.any()]
        velocity = state | {name: (self.momentum * state[name] + mean[name]).astype(np.float32) for name in trained}
        step = mean | {name: self.server_learning_rate * velocity[name].astype(np.float64) for name in trained}
        return moved(current, step), velocity
