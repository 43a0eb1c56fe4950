"""From one round's replies to the next global arrays: each reply judged by itself, then the run's aggregator.

Plain functions over checked replies; Flower's part is in `server.strategy.round_loop`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from common.aggregation.aggregator import Aggregator, Change, State
from common.aggregation.fedavg import FedAvg
from common.config.run import RunConfig
from common.config.sections import FederationConfig, SiteLevelConfig
from common.errors import FederationError
from common.low_rank.figures import pair_figures
from common.messages.round import SiteReply, read_reply, read_status
from common.messages.update import Update
from common.messages.wire import WIRES
from common.models.arrays import Arrays, check_arrays, flat, shaped, trained_at_sites
from common.privacy.site_level import noised_mean
from common.training.plain import told_terms
from common.training.shared import unmoved
from common.training.trainable import fits_pooling, is_centre_round, unlabelled_weight
from server.events.kinds import AT_THE_SITE, AT_THE_SITE_FOR_GOOD, OTHER_ROUND, TOO_LARGE
from server.strategy.influence import Influence, drawn_in, influences

LARGEST_METRIC = 1e6  # a loss, or seconds: beyond it nothing that trained has ever been


class RefusedForGoodError(FederationError):
    """A site says that whoever asks it again in this run is refused again."""


def judge_reply(
    content: RecordDict, current: Arrays, round_number: int, plan: FederationConfig, template: Arrays | None = None
) -> SiteReply:
    """Read one reply and refuse it if it could harm the model.

    Args:
        content: what the site sent.
        current: the global arrays that it was sent.
        round_number: of the round that is on; a reply to another one is refused.
        plan: its `max_update_norm` bounds the norm of the change; 0 is no bound.
        template: of the global arrays those that sites do not keep to themselves, whose change must have come; None: all.

    Returns:
        The reply, whose change is zero where sites keep theirs.

    Raises:
        FederationError: the site reported an error, or its reply has wrong names, shapes or types, values that are not finite
            or lead to such, another round, or too large an update.
    """
    judge_status(content, round_number)
    reply = read_reply(content, current if template is None else template, WIRES[plan.wire])
    norm = reply.update.norm  # computed here: a norm that a site reports could be anything
    if plan.max_update_norm and norm > plan.max_update_norm:
        raise FederationError(
            f"The update's norm {norm:.4g} is beyond federation.max_update_norm = {plan.max_update_norm:g}.", rule=TOO_LARGE
        )
    with np.errstate(over="ignore"):
        whole = unmoved(reply.update.change, trained_at_sites(current))
        check_arrays({name: current[name] + change for name, change in whole.items()}, trained_at_sites(current))
    return replace(reply, update=Update(whole))


def judge_status(content: RecordDict, round_number: int) -> SiteReply:
    """Read a reply without its arrays.

    Raises:
        RefusedForGoodError: the site refused for the whole run.
        FederationError: the site reported another error, or it is a reply to another round.
    """
    reply = read_status(content)
    if reply.error:
        if reply.for_good:
            raise RefusedForGoodError(reply.error, rule=AT_THE_SITE_FOR_GOOD)
        raise FederationError(reply.error, rule=AT_THE_SITE)
    if reply.round != round_number:
        raise FederationError(f"The reply is to round {reply.round}, not {round_number}.", rule=OTHER_ROUND)
    return reply


def known_metrics(metrics: Mapping[str, float], config: RunConfig) -> tuple[dict[str, float], str]:
    """The run's own metrics within a sane range, and the names of what else came: a site must not write what it likes into
    records, charts and means.

    Args:
        metrics: by name, as a site told them.
        config: of the run.
    """
    names = {*told_terms(config.objective), "loss", "seconds"}
    kept = {name: value for name, value in metrics.items() if name in names and abs(value) <= LARGEST_METRIC}
    return kept, ", ".join(sorted(metrics.keys() - kept.keys()))


def norm_outliers(replies: Mapping[str, SiteReply], ratio: float) -> dict[str, str]:
    """Replies whose change has a norm far above the others', each with the reason.

    The measure is the median norm of the *other* changes of the round, so that a site cannot raise its own bound; sites that
    changed nothing (no labels in a head round) are not counted. Of two sites nobody can say which is the odd one.

    Args:
        replies: by site, those that are valid.
        ratio: the largest norm allowed, in medians of the others; 0: any.
    """
    norms = {site: norm for site, reply in sorted(replies.items()) if (norm := reply.update.norm) > 0}
    if not ratio or len(norms) < 3:
        return {}
    found = {}
    for site, norm in norms.items():
        usual = float(np.median([other for name, other in norms.items() if name != site]))
        if norm > ratio * usual:
            found[site] = (
                f"The update's norm {norm:.4g} is {norm / usual:.0f} times the other sites' ({usual:.4g}); "
                f"federation.max_update_ratio = {ratio:g}."
            )
    return found


def weigh(replies: Sequence[SiteReply], unlabelled_weight: float) -> list[float]:
    """The weight of each site: its labelled patients, and `unlabelled_weight` for each of the others.

    A site whose policy keeps its numbers weighs as much as the mean of those that share theirs; if none does, all weigh the same.

    Raises:
        FederationError: all weights are zero.
    """
    told = [r.weight(unlabelled_weight) for r in replies if r.counts_shared]
    fair = sum(told) / len(told) if told else 1.0
    own = iter(told)
    weights = [next(own) if r.counts_shared else fair for r in replies]
    if not sum(weights) > 0:
        raise FederationError(
            "No site of the round has a labelled patient and federation.unlabelled_weight is 0: there is nothing to average."
        )
    return weights


def influence_of(plan: FederationConfig, replies: Mapping[str, SiteReply]) -> dict[str, Influence]:
    """Each site's part in the round, in the order of the sites' names.

    Args:
        plan: `unlabelled_weight` and the bounds are read.
        replies: by site, those that are valid.
    """
    ordered = [replies[site] for site in sorted(replies)]
    weights = weigh(ordered, plan.unlabelled_weight)
    found = dict(zip(sorted(replies), influences([reply.update.norm for reply in ordered], weights, plan), strict=True))
    if not plan.distance_ratio:  # then nobody need read all changes at once
        return found
    return drawn_in(found, {site: reply.update.change for site, reply in replies.items()}, plan.distance_ratio)


@dataclass(frozen=True)
class WeightedChanges:
    """What the aggregator takes of each site: its change within the bounds, and its weight. Those on a shelf are read one by one.

    Attributes:
        replies: by site, those that are valid.
        influence: of each.
    """

    replies: Mapping[str, SiteReply]
    influence: Mapping[str, Influence]

    def __iter__(self) -> Iterator[tuple[Change, float]]:
        return ((one.taken(self.replies[site].update.change), one.weight) for site, one in self.influence.items())


def round_plan(plan: FederationConfig, config: RunConfig, round_number: int) -> FederationConfig:
    """The plan by which a round is aggregated: the run's, but that what is measured (mean features, a pooling) is averaged.

    A server's optimizer would take it for a gradient. An aggregator that distrusts single sites does so here as well. What
    an unlabelled patient weighs depends on what they change in the round (`common.training.trainable.unlabelled_weight`).
    """
    if (weight := unlabelled_weight(config, round_number)) != plan.unlabelled_weight:
        plan = replace(plan, unlabelled_weight=weight)
    measures = is_centre_round(config, round_number) or (config.model.pooling.fits and fits_pooling(config, round_number))
    if measures and plan.strategy.from_sum:
        return replace(plan, strategy=FedAvg())
    return plan


def aggregate(
    plan: FederationConfig, state: State, current: Arrays, replies: Mapping[str, SiteReply]
) -> tuple[Arrays, State, dict[str, float]]:
    """The aggregator's step, and the mean loss terms; in the order of the sites' names, so that equal replies give equal bytes.

    Args:
        plan: its `aggregator`.
        state: the aggregator's.
        current: the global arrays that the sites were sent.
        replies: by site, those that are valid.

    Returns:
        The new global arrays, the aggregator's new state, and each loss term averaged over the sites that report it.
    """
    influence = influence_of(plan, replies)
    ordered, weights = [replies[site] for site in influence], [one.weight for one in influence.values()]
    terms = _mean_terms(ordered, weights)
    if not plan.aggregator.from_sum and not any(reply.update.norm for reply in ordered):
        # Nothing to vote on, as where a round fits the pooling by masks and no hospital has any: that is not too few votes.
        return {name: array.copy() for name, array in current.items()}, state, terms
    return *step(plan.aggregator, state, current, iter(WeightedChanges(replies, influence))), terms


def low_rank_figures(plan: FederationConfig, current: Arrays, replies: Mapping[str, SiteReply], new: Arrays) -> dict[str, float]:
    """Of the round's record: how far the low-rank pairs are from the mean of the sites' products; empty where none has moved.

    Args:
        plan: its `low_rank` tells whether anything is made of the distance (`left`).
        current: the global arrays that the sites were sent.
        replies: by site, those that went into the mean.
        new: the global arrays that came of them.
    """
    found = pair_figures(current, WeightedChanges(replies, influence_of(plan, replies)), new)
    return found if plan.low_rank.takes_pairs else {name: value for name, value in found.items() if name != "left"}


def noised_sum(
    replies: Mapping[str, SiteReply], current: Arrays, trained: NDArray[np.bool_], site_level: SiteLevelConfig
) -> tuple[Change, float]:
    """Site-level privacy: the mean of clipped changes with noise, as the change of one site. No loss term comes with it.

    Args:
        replies: by site, those that are valid.
        current: the global arrays that the sites were sent.
        trained: [values], which of them the round trains.
        site_level: the clip and the noise multiplier.
    """
    changes = (flat(replies[site].update.change) for site in sorted(replies))
    return shaped(noised_mean(changes, trained, site_level), current), 1.0


def step(strategy: Aggregator, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
    """The aggregator's step, checked: no later round could mend values that are not finite.

    Raises:
        FederationError: it made such values.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        arrays, state = strategy.apply(state, current, changes)
    try:
        check_arrays(arrays, current)
    except FederationError as error:
        raise FederationError(
            f"The aggregation by {strategy.name!r} has diverged: {error} Choose smaller settings of federation.strategy."
        ) from error
    return arrays, state


def _mean_terms(replies: Sequence[SiteReply], weights: Sequence[float]) -> dict[str, float]:
    """Each term's weighted mean over the sites that sent it."""
    terms: dict[str, float] = {}
    for name in sorted({name for r in replies for name in r.metrics}):
        pairs = [(r.metrics[name], w) for r, w in zip(replies, weights, strict=True) if name in r.metrics]
        total = sum(w for _, w in pairs)
        if total > 0:
            terms[name] = sum(value * w for value, w in pairs) / total
    return terms
