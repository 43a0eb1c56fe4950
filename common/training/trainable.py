"""Which arrays a round trains; all others come back unchanged, byte for byte. An adapter may keep some of its own fixed.

Beside these the first round fits the pooling, where it is one that masks teach (`common.training.guide`); self-supervised rounds
are not counted.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.adapters.adapter import RESIDUAL
from common.config.run import RunConfig
from common.decoders.decoder import DECODER
from common.pooling.pooling import POOL

HEAD = "head."
CENTRE, PROJECTION = "feature_centre", "projection"
TOKENS = ("modality_embedding", "mask_token")
PATCH_HEAD = "head.patch."  # serves iBOT alone: in a private round noise would be all that it learns
IDLE_WEIGHT = 0.01  # not 0: a site without a label could then not stand in a masked sum
# What self-supervised rounds leave of the head. Its projections learn: else DINO would ask the adapters for random directions.
# The prototypes, of which the first are the classes, would take a meaning that no class has, and ages would give views away.
CLASSES = ("head.prototypes", "head.covariates.", DECODER)


def trained_names(names: Iterable[str], config: RunConfig, round_number: int) -> list[str]:
    """The names, in the order given, of the arrays that a round trains.

    Every site must come to the same answer, so it depends on nothing that is a site's own.

    Args:
        names: of all arrays that travel.
        config: `model`, `privacy.enabled`, `training.ssl_rounds` and `training.head_rounds` are read.
        round_number: from 1.
    """
    if is_centre_round(config, round_number):
        return [name for name in names if name == CENTRE]
    if is_head_round(config, round_number):
        return [name for name in names if name.startswith(HEAD) and not (config.privacy.enabled and name.startswith(PATCH_HEAD))]
    ssl = is_ssl_round(config, round_number)
    still = (*config.model.adapter.still(round_number if ssl else round_number - rounds_before_tuning(config)), *RESIDUAL)
    tokens = () if config.model.train_tokens else TOKENS
    pool = () if config.model.pooling.trains else (POOL,)
    fixed = (*tokens, *pool, CENTRE, PROJECTION, *(CLASSES if ssl else ()))
    chosen = [name for name in names if name.rpartition(".")[2] not in still and not name.startswith(fixed)]
    return [name for name in chosen if not (config.privacy.enabled and name.startswith(PATCH_HEAD))]


def most_trained(arrays: Mapping[str, NDArray[np.float32]], config: RunConfig) -> int:
    """Values that the run's largest round trains."""
    ssl, before = config.training.ssl_rounds, rounds_before_tuning(config)
    numbers = {1, 2, ssl + 1, ssl + 2, ssl + 3, before + 1, before + 2}
    rounds = [number for number in numbers if number <= config.federation.rounds]
    return max(sum(arrays[name].size for name in trained_names(sorted(arrays), config, number)) for number in rounds)


def is_centre_round(config: RunConfig, round_number: int) -> bool:
    """Whether the round measures the mean features (`common.training.centring`), where the model takes them off.

    The first that is not self-supervised; or the second, where the first fits the pooling that makes them.
    """
    first = config.training.ssl_rounds + 1
    return config.model.centre_features and round_number == (first + 1 if config.model.pooling.fits else first)


def fits_pooling(config: RunConfig, round_number: int) -> bool:
    """Whether the round is the one that fits the pooling, where masks teach it."""
    return round_number == config.training.ssl_rounds + 1


def head_waits(config: RunConfig, round_number: int) -> bool:
    """Whether a head round leaves the head as it is: it fits the pooling, and the next takes off the mean of what is then pooled.

    What the head learned of the plain mean, and of the mean features in it, would be wrong two rounds later.
    """
    return config.model.pooling.fits and config.model.centre_features and fits_pooling(config, round_number)


def is_ssl_round(config: RunConfig, round_number: int) -> bool:
    """Whether the round is self-supervised: adapters, tokens and projections, by the terms that need no label."""
    return round_number <= config.training.ssl_rounds


def is_head_round(config: RunConfig, round_number: int) -> bool:
    """Whether the round fits the head alone (`common.training.probing`)."""
    return config.training.ssl_rounds < round_number <= rounds_before_tuning(config)


def idle_without_labels(config: RunConfig, round_number: int) -> bool:
    """Whether a site without a labelled patient has nothing to give to the round: it changes nothing, or sends noise alone."""
    fits = config.model.pooling.fits and fits_pooling(config, round_number)
    return is_head_round(config, round_number) and not (is_centre_round(config, round_number) or fits)


def head_rounds_until(config: RunConfig, round_number: int) -> int:
    """How many rounds, this one included, have fitted the head; not those that measured the mean features, or waited for it."""
    heads = [number for number in range(1, round_number + 1) if is_head_round(config, number)]
    return sum(not is_centre_round(config, number) and not head_waits(config, number) for number in heads)


def is_undecided(config: RunConfig, round_number: int) -> bool:
    """Whether no round up to this one has fitted the head, so that its answers say nothing yet."""
    return round_number <= rounds_before_tuning(config) and not head_rounds_until(config, round_number)


def rounds_before_tuning(config: RunConfig) -> int:
    """Self-supervised rounds and head rounds."""
    return config.training.ssl_rounds + config.training.head_rounds


def unlabelled_weight(config: RunConfig, round_number: int) -> float:
    """Weight of an unlabelled patient in the round's average: where no term reads a label, that of a labelled one.

    Where they change nothing next to nothing: else the head would be the slower the fewer labels there are.
    """
    if is_ssl_round(config, round_number):
        return 1.0
    usual = config.federation.unlabelled_weight
    return min(usual, IDLE_WEIGHT) if idle_without_labels(config, round_number) else usual


def needs_labels(config: RunConfig) -> bool:
    """Whether a run is for nothing where no patient has a label: it trains classes, and does not say that this is meant."""
    trains = any(term.name == config.task.term for term in config.objective.running())
    return trains and not config.federation.unlabelled


def no_label(config: RunConfig) -> str:
    """What to say of a federation without one label."""
    if config.task.decoder:
        return (
            "No patient of any training site has a tumour mask: nothing can be learned of where tumours are. `fedmri-site check` "
            "says at each site which masks it finds; go on without by --unlabelled."
        )
    columns, what = ", ".join(config.task.columns), "classes" if config.task.exclusive else "findings"
    return (
        f"No patient of any training site has a label (column {columns} of participants.tsv): nothing can be learned of the "
        f"{what}. `fedmri-site check` says at each site why; go on without labels by --unlabelled."
    )
