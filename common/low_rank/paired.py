"""An aggregator of two: the pairs by a rule of this room, all other arrays by the strategy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.aggregator import Aggregator, Arrays, Change, State
from common.low_rank.pair_rule import PairRule
from common.low_rank.pairs import has_moved, maps, pair_arrays, read_pair, read_sites, write_pair


@dataclass(frozen=True)
class Paired:
    """What `federation.strategy` and `federation.low_rank` are together.

    Of each site the pairs alone are kept until all are there, and the rest is passed on one site at a time.
    """

    name: ClassVar[str] = "paired"
    from_sum: ClassVar[bool] = False
    strategy: Aggregator
    rule: PairRule

    @property
    def least_sites(self) -> int:
        """The strategy's."""
        return self.strategy.least_sites

    def init(self, template: Arrays) -> State:
        """The strategy's; rules remember nothing but what is in the arrays."""
        own = pair_arrays(template)
        return self.strategy.init({name: array for name, array in template.items() if name not in own})

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        """One round; see `Aggregator.apply`. A pair that no site has moved keeps its bits."""
        own, kept = pair_arrays(current), list[tuple[Change, float]]()

        def others() -> Iterator[tuple[Change, float]]:
            for change, weight in changes:
                kept.append(({name: value for name, value in change.items() if name in own}, weight))
                yield {name: value for name, value in change.items() if name not in own}, weight

        rest = {name: array for name, array in current.items() if name not in own}
        arrays, state = self.strategy.apply(state, rest, others())
        arrays |= {name: current[name] for name in own}
        for map_ in maps(own):
            if has_moved(map_, kept):
                pair = self.rule.apply(read_pair(map_, current), read_sites(map_, current, kept))
                arrays |= write_pair(map_, pair, current)
        return {name: arrays[name] for name in current}, state
