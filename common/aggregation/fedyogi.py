"""FedYogi: Yogi at the server (Reddi et al., ICLR 2021, algorithm 2)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.aggregation.adaptive import Adaptive, Values


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """v moves by a share of D^2 at most, up or down: after large changes its steps grow again slowly."""

    name: ClassVar[str] = "fedyogi"

    def second_moment(self, before: Values, squared: Values) -> Values:
        """v <- v - (1 - beta2) * D^2 * sign(v - D^2)."""
        return before - (1 - self.beta2) * squared * np.sign(before - squared)
