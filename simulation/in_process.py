"""A federation in this program, without Flower: the very functions that its clients call, and the server's aggregation.

For measurements that run many small federations side by side. What guards a real one (policies, time limits, masks) has no part.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from client.round.train import site_seed
from common.aggregation.scaffold import Scaffold
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.messages.wire import FLOAT32, WIRES, with_feedback
from common.models.arrays import Arrays, get_arrays, trained_at_sites
from common.models.multimodal import MultiModalViT
from common.training.local import train_round
from common.training.scaffold import LastRound, drift
from common.training.trainable import idle_without_labels
from common.training.update import LocalUpdate
from server.strategy.aggregation import aggregate, round_plan

Replies = dict[str, SiteReply]


def federate(
    model: MultiModalViT,
    sites: Mapping[str, SiteData],
    config: RunConfig,
    received: Callable[[Replies], Replies] = lambda replies: replies,
) -> Arrays:
    """All rounds; the arrays after the last. Args as `rounds`."""
    arrays = get_arrays(model)
    for arrays in rounds(model, sites, config, received):  # noqa: B007  the last one is wanted
        pass
    return arrays


def rounds(
    model: MultiModalViT,
    sites: Mapping[str, SiteData],
    config: RunConfig,
    received: Callable[[Replies], Replies] = lambda replies: replies,
) -> Iterator[Arrays]:
    """The global arrays after each round.

    Args:
        model: fresh from `build_model`.
        sites: the patients who train, by site.
        config: of the run; neither `secure` nor `site_level` is read.
        received: makes of a round's honest replies those that the server aggregates.

    Raises:
        ConfigError: sites that have something of their own; what they keep has no place here.
    """
    if config.personal.on:
        raise ConfigError("[personal] cannot run in this program without Flower. Use fedmri-sim run.")
    arrays, before, left = get_arrays(model), dict[str, LastRound](), dict[str, Arrays]()
    state = config.federation.aggregator.init(arrays)
    for number in range(1, config.federation.rounds + 1):
        replies = {}
        spared = number > 1 and idle_without_labels(config, number)  # the server knows by then who has no label
        for name, patients in sites.items():
            if spared and not len(patients.labelled):
                replies[name] = _nothing(arrays, patients, name, number)
                continue
            replies[name] = _reply(model, arrays, patients, config, name, number, before.get(name))
            if (wire := WIRES[config.federation.wire]) is not FLOAT32:
                sent, left[name] = with_feedback(replies[name].update.change, left.get(name, {}), wire)
                replies[name] = replace(replies[name], update=Update(sent))
            if isinstance(config.federation.strategy, Scaffold):
                before[name] = LastRound(arrays, replies[name].update.change)
        arrays, state, _ = aggregate(round_plan(config.federation, config, number), state, arrays, received(replies))
        yield arrays


def _nothing(arrays: Arrays, patients: SiteData, name: str, number: int) -> SiteReply:
    still = Update({array: np.zeros_like(value) for array, value in trained_at_sites(arrays).items()})
    return SiteReply(name, number, update=still, patients=len(patients), labelled=0, counts_shared=True)


def _reply(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    name: str,
    number: int,
    before: LastRound | None,
) -> SiteReply:
    """What the site sends; `before` is what it remembers of the last round, if it does."""
    seed = site_seed(config.seed, name, number)
    if config.privacy.enabled:
        update = _private(model, arrays, patients, config, number, seed)
    else:
        correction = drift(before, arrays, config, number) if before else None
        update = train_round(model, arrays, patients, config, round_number=number, site_seed=seed, drift=correction)
    change = Update.between(update.arrays, arrays)
    return SiteReply(name, number, update=change, patients=update.patients, labelled=update.labelled, counts_shared=True)


def _private(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig, number: int, seed: int) -> LocalUpdate:
    from common.training.private import private_round  # noqa: PLC0415  Opacus is a third of a process' start

    return private_round(model, arrays, patients, config, round_number=number, site_seed=seed, charge=lambda _: None)
