"""Both factors through `federation.strategy` like any other array (FedIT: Zhang et al., ICASSP 2024): the product is inexact."""

from dataclasses import dataclass
from typing import ClassVar

from common.low_rank.pair_rule import PairRule


@dataclass(frozen=True)
class Apart(PairRule):
    """No rule of its own."""

    name: ClassVar[str] = "apart"
    from_sum: ClassVar[bool] = True
    takes_pairs: ClassVar[bool] = False
