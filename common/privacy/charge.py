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

        A step's sum with k cases is at most as telling as k sums with one case each, of which the noises add up to that of the
        one: whoever has the k sums can add them. So it costs no more than k times the steps with noise / sqrt(k).
        """
        if cases <= 1:
            return self
        return Charge(self.noise_multiplier / math.sqrt(cases), self.sample_rate, self.steps * cases)
