"""SCAFFOLD's rule at a site (Karimireddy et al., ICML 2020, algorithm 1, option II), for any optimizer.

The paper's step is y <- y - lr (g - c_i + c), and after K steps from x the site's control variate becomes
c_i <- c_i - c + (x - y) / (K lr). Written in the unit of a round's change, D_i = -K lr c_i and D = -K lr c, that is

    y <- y + (the optimizer's own step) + (D - D_i) / K        D_i <- (y - x) - (D - D_i)

With SGD, one rate and one K at all sites both are the same. In this form neither rate nor gradients appear, so it holds for AdamW
too: D_i is what the site's own gradients have done in the last round, D the mean of it over the sites.

Nothing more than in FedAvg travels. The site sends D_i in the place of y - x: the corrections of the sites that took part in the
last round add up to zero, so the mean is the same. And D, the server's control variate, is what the global arrays have moved by
in the last round, which the site tells from what it was sent then and now. A site that was not in the last round takes its steps
as they are: an older D_i would not fit the D of other sites, and corrections that do not add up to zero would stay in the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.run import RunConfig
from common.models.arrays import Arrays, difference
from common.objectives.term import States
from common.training.round import GradientRule, Losses, Parameters, Point, Step
from common.training.schedule import learning_rate, place_of
from common.training.trainable import is_head_round, is_ssl_round, trained_names


@dataclass(frozen=True)
class LastRound:
    """What a site remembers of its last round.

    Attributes:
        received: x, the global arrays that it began with.
        own: D_i, the change that it sent.
    """

    received: Arrays
    own: Arrays


def drift(last: LastRound, arrays: Arrays, config: RunConfig, round_number: int) -> Arrays:
    """D - D_i, for a whole round: of the arrays that both this round and the last one train.

    A round says nothing of one of another kind. Where the schedule moves the learning rate, a round's change is taken to move
    with it.

    Args:
        last: of the round before this.
        arrays: the global ones that this round begins with.
        config: schedule, head rounds and the adapter are read.
        round_number: of this round, from 1.
    """
    kinds = {(is_ssl_round(config, number), is_head_round(config, number)) for number in (round_number - 1, round_number)}
    if len(kinds) > 1:
        return {}
    before, now = (set(trained_names(arrays, config, number)) for number in (round_number - 1, round_number))
    of_all, scale = difference(arrays, last.received), _rate(config, round_number) / _rate(config, round_number - 1)
    both = sorted(before & now & last.own.keys())  # without what the site keeps to itself
    return {name: (scale * (of_all[name] - last.own[name])).astype("float32") for name in both}


def _rate(config: RunConfig, round_number: int) -> float:
    """The learning rate in the middle of a round, of the largest."""
    if is_head_round(config, round_number):
        return 1.0
    number, rounds = place_of(config, round_number)
    return learning_rate(1.0, (number - 0.5) / rounds, config.training.warmup_rounds / rounds)


@dataclass(frozen=True)
class Corrected:
    """A gradient rule whose steps are corrected; the last takes all corrections back, and leaves what the gradients have done.

    Attributes:
        rule: takes the optimizer's own steps.
        drift: D - D_i by name, as `drift` gives it.
    """

    rule: GradientRule
    drift: Mapping[str, Tensor]

    @property
    def steps(self) -> int:
        """Of the round."""
        return self.rule.steps

    def begin(self, trained: Parameters) -> Step:
        """See `GradientRule`."""
        own_step, steps = self.rule.begin(trained), self.steps

        def step(point: Point) -> tuple[Losses, States]:
            found = own_step(point)
            share = 1 / steps if point.step + 1 < steps else 1 / steps - 1
            with torch.no_grad():
                for name, value in self.drift.items():
                    point.trained[name].add_(value, alpha=share)
            return found

        return step

    def metrics(self, history: Sequence[Losses]) -> dict[str, float]:
        """See `GradientRule`."""
        return self.rule.metrics(history)
