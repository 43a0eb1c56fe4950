"""Schedules over a whole run; every function takes `progress`, the part of the run that is done (0 to 1).

Self-supervised rounds (`training.ssl_rounds`) are a run of their own in this: all others go as they would without them.
"""

import math
from typing import NamedTuple

from common.config.run import RunConfig


class Place(NamedTuple):
    """Where a round stands in its schedule.

    Attributes:
        number: of the round, from 1.
        rounds: how many the schedule has.
    """

    number: int
    rounds: int


def place_of(config: RunConfig, round_number: int) -> Place:
    """Among the self-supervised rounds, or among the others."""
    first = config.training.ssl_rounds
    if round_number <= first:
        return Place(round_number, first)
    return Place(round_number - first, config.federation.rounds - first)


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end` (Loshchilov and Hutter, ICLR 2017, eq. 5)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def learning_rate(base: float, progress: float, warmup: float) -> float:
    """Linear over the first `warmup` of the run, then a cosine to a hundredth of `base`."""
    if progress < warmup:
        return base * (progress / warmup)
    return cosine(base, base / 100, (progress - warmup) / max(1 - warmup, 1e-9))


def teacher_temperature(start: float, end: float, progress: float) -> float:
    """Linear over the first 30% of the run, then constant (MM-DINOv2: 30 epochs; DINO: 30 of 100)."""
    return start + (end - start) * min(progress / 0.3, 1.0)
