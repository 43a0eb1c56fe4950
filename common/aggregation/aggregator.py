"""The interface of an aggregator, and the sums that all of them share.

An aggregator is a frozen dataclass: its settings are its fields, its mechanism two functions without a memory. What it must
remember from round to round (momentum) goes in as `State`, comes out as `State`, and is kept in the checkpoint, so that a run
that is cut off goes on as if it never was.

    state = aggregator.init(arrays)
    for each round:
        arrays, state = aggregator.apply(state, arrays, changes)
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import FederationError

Arrays = dict[str, NDArray[np.float32]]
State = dict[str, NDArray[np.float32]]  # float32, because a checkpoint holds it: what is kept is what is used
Change = Mapping[str, NDArray[np.floating[Any]]]  # trained arrays - global arrays, by name
Step = dict[str, NDArray[np.float64]]


class Aggregator(Protocol):
    """The server's step from one round's changes to the next global arrays.

    Attributes:
        name: what `federation.strategy` calls it.
        from_sum: whether the weighted mean of the changes is all that it needs. Then it works where the server sees no single
            change: in secure aggregation, and under site-level noise.
        least_sites: whose changes it needs in a round; a configuration whose `federation.min_sites` is lower is refused.
    """

    name: ClassVar[str]
    from_sum: ClassVar[bool]

    @property
    def least_sites(self) -> int:
        """See above."""
        ...

    def init(self, template: Arrays) -> State:
        """The state before the first round; empty where none is kept.

        Args:
            template: arrays with the names and shapes of the model's.
        """
        ...

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round.

        Args:
            state: as `init` or the last round left it; not changed.
            current: the global arrays that the sites were sent; not changed.
            changes: each site's change and weight, in the order of the sites' names. To be read one at a time, so that memory
                does not grow with the sites. With `from_sum` it may be a single one: the weighted mean and the total weight.

        Raises:
            FederationError: the weights do not add up to more than zero.
        """
        ...


def mean_change(current: Arrays, changes: Iterable[tuple[Change, float]]) -> Step:
    """The weighted mean, summed in float64 and in the order given, so that equal changes give equal bytes.

    Raises:
        FederationError: no change, or weights that do not add up to more than zero.
    """
    total, sums = 0.0, {name: np.zeros(array.shape) for name, array in current.items()}
    for change, weight in changes:
        total += weight
        for name in sums:
            sums[name] += change[name].astype(np.float64) * weight
    if not total > 0:
        raise FederationError(f"Nothing to average: the sites' changes have a total weight of {total:g}.")
    return {name: sum_ / total for name, sum_ in sums.items()}


def moved(current: Arrays, step: Step) -> Arrays:
    """`current + step`. A value whose step is zero keeps its bits: what no site has trained stays what it was."""
    return {name: np.where(step[name] == 0, array, (array + step[name]).astype(np.float32)) for name, array in current.items()}
