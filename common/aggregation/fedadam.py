"""FedAdam: Adam at the server (Reddi et al., ICLR 2021, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.adaptive import Adaptive, Values


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """v forgets at one rate, whatever comes: after large changes its steps soon grow again."""

    name: ClassVar[str] = "fedadam"

    def second_moment(self, before: Values, squared: Values) -> Values:
        """v <- beta2 * v + (1 - beta2) * D^2."""
        return self.beta2 * before + (1 - self.beta2) * squared
