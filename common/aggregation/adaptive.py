"""Adaptive server optimisation: what FedAdam and FedYogi share (Reddi et al., ICLR 2021, algorithm 2).

    m <- beta1 * m + (1 - beta1) * D      v <- each optimizer's own line      w <- w + server_learning_rate * m / (sqrt(v) + tau)

D is the sites' mean change. As in the paper there is no bias correction, and v begins at tau^2, the least that its analysis
allows. A value that the sites seldom change takes as large steps as one that they often do; `server_learning_rate` is about the
largest step of one value in a round.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.aggregation.aggregator import Arrays, Change, State, mean_change, moved
from common.schema import ranged

Values = NDArray[np.floating[Any]]
FIRST, SECOND = "first_moment.", "second_moment."  # before an array's name, in the state


@dataclass(frozen=True)
class Adaptive(ABC):
    """A first and a second moment for each value.

    An array that no site has changed is not of the round (head rounds, or the factor of LoRA that is held still): it stays
    what it is, and its moments wait.
    """

    from_sum: ClassVar[bool] = True
    least_sites: ClassVar[int] = 1
    server_learning_rate: float = ranged(0.01, 1e-6, 1000.0)
    beta1: float = ranged(0.9, 0.0, 0.9999)
    beta2: float = ranged(0.99, 0.0, 0.99999)
    tau: float = ranged(1e-3, 1e-9, 1.0)  # the smaller, the more alike are the steps of all values

    @abstractmethod
    def second_moment(self, before: Values, squared: Values) -> Values:
        """The next v, from the last and from D squared."""

    def init(self, template: Arrays) -> State:
        """m of zero, v of tau squared."""
        first = {FIRST + name: np.zeros_like(array) for name, array in template.items()}
        return first | {SECOND + name: np.full_like(array, self.tau**2) for name, array in template.items()}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`."""
        step, after = mean_change(current, changes), dict(state)
        for name in [name for name, change in step.items() if change.any()]:
            first = (self.beta1 * state[FIRST + name] + (1 - self.beta1) * step[name]).astype(np.float32)
            second = self.second_moment(state[SECOND + name], np.square(step[name])).astype(np.float32)
            after |= {FIRST + name: first, SECOND + name: second}
            step[name] = self.server_learning_rate * first.astype(np.float64) / (np.sqrt(second.astype(np.float64)) + self.tau)
        return moved(current, step), after
