"""The privacy cost of a round, as the ledger records it and the accountant takes it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Charge:
    """Steps of DP-SGD that were, or will be, taken.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm.
        sample_rate: chance of each patient to be in a step, independently of the others (Poisson).
        steps: how many.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        noise, rate = self.noise_multiplier, self.sample_rate
        if not (math.isfinite(noise) and noise >= 0 and 0 <= rate <= 1 and self.steps >= 0):
            raise ValueError(f"Expected noise_multiplier >= 0, 0 <= sample_rate <= 1 and steps >= 0; got {self}.")

    def of_group(self, cases: int) -> "Charge":
        """What the steps cost a person whose data stand in so many of a site's patients, each sampled by itself.

        Such a person is in a step where any of the cases is, and moves it by as many clipping norms as they have cases: that
        bounds the true mixture, which one gets from it by choosing how many are in, and shrinking and noising the step.
        """
        if cases <= 1:
            return self
        return Charge(self.noise_multiplier / cases, 1.0 - (1.0 - self.sample_rate) ** cases, self.steps)
