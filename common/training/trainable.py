"""Which arrays a round trains; all others come back unchanged, byte for byte. An adapter may keep some of its own fixed.

Beside these the first round fits the pooling, where it is one that masks teach (`common.training.guide`).
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.adapters.adapter import RESIDUAL
from common.config.run import RunConfig
from common.pooling.pooling import POOL

HEAD = "head."
CENTRE = "feature_centre"
TOKENS = ("modality_embedding", "mask_token")
PATCH_HEAD = "head.patch."  # serves iBOT alone: in a private round noise would be all that it learns


def trained_names(names: Iterable[str], config: RunConfig, round_number: int) -> list[str]:
    """The names, in the order given, of the arrays that a round trains.

    Every site must come to the same answer, so it depends on nothing that is a site's own.

    Args:
        names: of all arrays that travel.
        config: `model`, `privacy.enabled` and `training.head_rounds` are read.
        round_number: from 1.
    """
    if is_centre_round(config, round_number):
        return [name for name in names if name == CENTRE]
    if is_head_round(config, round_number):
        return [name for name in names if name.startswith(HEAD) and not (config.privacy.enabled and name.startswith(PATCH_HEAD))]
    still = (*config.model.adapter.still(round_number - config.training.head_rounds), *RESIDUAL)
    tokens = () if config.model.train_tokens else TOKENS
    pool = () if config.model.pooling.trains else (POOL,)
    chosen = [name for name in names if name.rpartition(".")[2] not in still and not name.startswith((*tokens, *pool, CENTRE))]
    return [name for name in chosen if not (config.privacy.enabled and name.startswith(PATCH_HEAD))]


def most_trained(arrays: Mapping[str, NDArray[np.float32]], config: RunConfig) -> int:
    """Values that the run's largest round trains."""
    numbers = {1, 2, 3, config.training.head_rounds + 1, config.training.head_rounds + 2}
    rounds = [number for number in numbers if number <= config.federation.rounds]
    return max(sum(arrays[name].size for name in trained_names(sorted(arrays), config, number)) for number in rounds)


def is_centre_round(config: RunConfig, round_number: int) -> bool:
    """Whether the round measures the mean features (`common.training.centring`), where the model takes them off.

    The first; or the second, where the first fits the pooling that makes them.
    """
    return config.model.centre_features and round_number == (2 if config.model.pooling.fits else 1)


def is_head_round(config: RunConfig, round_number: int) -> bool:
    """Whether the round fits the head alone (`common.training.probing`)."""
    return round_number <= config.training.head_rounds
