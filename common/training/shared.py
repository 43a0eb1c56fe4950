"""Which rounds are personal, and which arrays a site then keeps to itself: they neither leave nor are overwritten.

A run begins with what is common to all: self-supervised rounds and head rounds. So a site's own arrays start as good ones, the
global model has a trained head, and what the server holds of the kept arrays is what the last common round made of them.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.config.personal import named_by_kinds
from common.config.run import RunConfig
from common.models.arrays import Arrays
from common.training.trainable import rounds_before_tuning

Kind = TypeVar("Kind", np.float32, np.float64)


def first_personal_round(config: RunConfig) -> int:
    """The first round in which sites have something of their own.

    With `keep` the first tuning round. Ditto's copy can be trained in head rounds, too, once those are over that measure what all
    sites must agree on: the pooling's fit and the mean features.
    """
    if config.personal.keep:
        return rounds_before_tuning(config) + 1
    return config.training.ssl_rounds + int(config.model.pooling.fits) + int(config.model.centre_features) + 1


def is_personal_round(config: RunConfig, round_number: int) -> bool:
    """Whether sites train something of their own in the round."""
    return config.personal.on and round_number >= first_personal_round(config)


def kept_names(names: Iterable[str], config: RunConfig, round_number: int) -> list[str]:
    """The names, in the order given, of the arrays that stay at each site in a round.

    Every site must come to the same answer, so it depends on nothing that is a site's own.
    """
    return named_by_kinds(names, config.personal.keep) if is_personal_round(config, round_number) else []


def shared(arrays: Arrays, config: RunConfig, round_number: int) -> Arrays:
    """The arrays whose change leaves the sites in a round: all but those that they keep."""
    kept = set(kept_names(arrays, config, round_number))
    return {name: array for name, array in arrays.items() if name not in kept}


def unmoved(change: Mapping[str, NDArray[Kind]], template: Arrays) -> dict[str, NDArray[Kind]]:
    """A change, not empty, with zeros for the arrays that it lacks: at the server these stay what they are."""
    kind = next(iter(change.values())).dtype
    return {name: change[name] if name in change else np.zeros(template[name].shape, kind) for name in sorted(template)}
