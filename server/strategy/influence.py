"""How much one site may move the model in a round: bounds on its weight and on its part of the change, and what each site had.

A site's number of patients is its own claim, and so is the length of its change. Whoever claims ten million patients, or sends a
change of twenty times the usual length, would own the mean. Four bounds, each with its own reason:

1. patients: no more than were agreed with the hospital when it was let in (`fedmri-server admit --patients`); of hospitals with
   whom nothing was agreed, no more than the median of the others';
2. length: a change that is longer than `clip_ratio` times the median of the other sites' is shortened to that;
3. share: neither a site's weight nor its weight times the length of its change is more than `max_site_share` of the round's;
4. distance: a change that is farther from the middle of all than `distance_ratio` times the others usually are is drawn to it
   (`server.strategy.middle`), as it came: it may be of the usual length, and turned round.

Of two sites nobody can say which is the odd one, so 2 to 4 begin with three. A change within the bounds stays what it is, to the
last bit. n sites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.aggregation.aggregator import Change
from common.config.sections import FederationConfig
from common.messages.round import SiteReply
from server.strategy.middle import LEAST_SITES, Drawn, drawn_to_middle

HOSPITAL_SHARE, HOSPITAL_RATIO, HOSPITAL_DISTANCE = 0.5, 2.0, 1.0  # where a setting is 0 and the sites are hospitals


@dataclass(frozen=True)
class Influence:
    """One site's part in a round.

    Attributes:
        weight: in the mean, after the bounds.
        scale: what its change was multiplied by; 1: within the bounds.
        norm: of its change, before.
        drawn: what is taken of it in the place of that, drawn to the middle; None: it was near enough.
    """

    weight: float
    scale: float
    norm: float
    drawn: Drawn | None = None

    @property
    def moved(self) -> float:
        """Its weight times the length of what was taken of its change."""
        return self.weight * (self.drawn.length if self.drawn else self.scale * self.norm)

    def taken(self, change: Change) -> Change:
        """What is taken of its change."""
        if self.drawn:
            return self.drawn.change
        if self.scale == 1.0:
            return change
        return {name: (array * np.float32(self.scale)).astype(np.float32) for name, array in change.items()}


def at_hospitals(plan: FederationConfig) -> FederationConfig:
    """The plan with a bound for hospitals wherever a setting leaves it to the place. In simulation there is none by itself."""
    return replace(
        plan,
        max_site_share=plan.max_site_share or HOSPITAL_SHARE,
        clip_ratio=plan.clip_ratio or HOSPITAL_RATIO,
        distance_ratio=plan.distance_ratio or HOSPITAL_DISTANCE,
    )


def bounds_in_force(plan: FederationConfig, *, hospitals: bool) -> dict[str, float]:
    """What bounds one site's influence in plain rounds, as provenance has it; 0: nothing.

    Args:
        plan: whose settings leave some of it to the place.
        hospitals: the sites are hospitals, not folders of a simulation.
    """
    held = at_hospitals(plan) if hospitals else plan
    return {name: getattr(held, name) for name in ("max_update_ratio", "max_site_share", "clip_ratio", "distance_ratio")}


def as_agreed(replies: Mapping[str, SiteReply], agreed: Mapping[str, int]) -> dict[str, SiteReply]:
    """The replies with no more patients than were agreed; sites with whom nothing was agreed keep what they say.

    Args:
        replies: by site, those that are valid.
        agreed: patients by site.
    """
    return {site: _as_agreed(reply, agreed.get(site, 0)) for site, reply in replies.items()}


def levelled(replies: Mapping[str, SiteReply], agreed: Mapping[str, int]) -> dict[str, SiteReply]:
    """The replies in which a site with whom nothing was agreed counts no more patients than the median of the others.

    Of fewer than three that tell their numbers nobody can say which is the odd one: they keep them.

    Args:
        replies: by site, those that are valid, as agreed.
        agreed: patients by site.
    """
    told = {site: reply.patients for site, reply in replies.items() if reply.counts_shared}
    if len(told) < LEAST_SITES:
        return dict(replies)
    usual = {site: int(np.median([told[other] for other in told if other != site])) for site in told}
    return {
        site: reply if site in agreed or site not in told else _as_agreed(reply, usual[site]) for site, reply in replies.items()
    }


def _as_agreed(reply: SiteReply, most: int) -> SiteReply:
    if not most or reply.patients <= most:
        return reply
    return replace(reply, patients=most, labelled=min(reply.labelled, most))


def influences(norms: Sequence[float], weights: Sequence[float], plan: FederationConfig) -> list[Influence]:
    """Each site's part in the round, within the bounds.

    Args:
        norms: of the changes [n].
        weights: of the sites [n].
        plan: its `max_site_share` and `clip_ratio`; 0: no bound.
    """
    voters = sum(norm > 0 and weight > 0 for norm, weight in zip(norms, weights, strict=True))
    if voters < LEAST_SITES:
        return [Influence(weight, 1.0, norm) for norm, weight in zip(norms, weights, strict=True)]
    scales = _shortened(norms, plan.clip_ratio)
    if plan.max_site_share:
        weights = capped(weights, plan.max_site_share)
        moved = [weight * scale * norm for weight, scale, norm in zip(weights, scales, norms, strict=True)]
        scales = [
            scale * (most / own) if most < own else scale
            for scale, own, most in zip(scales, moved, capped(moved, plan.max_site_share), strict=True)
        ]
    return [Influence(weight, scale, norm) for weight, scale, norm in zip(weights, scales, norms, strict=True)]


def drawn_in(found: Mapping[str, Influence], changes: Mapping[str, Change], ratio: float) -> dict[str, Influence]:
    """The influences of sites whose changes lie far from the others', drawn to the middle.

    Args:
        found: by site, within the other bounds.
        changes: by site, as they came.
        ratio: `distance_ratio`; 0: no bound.
    """
    voters = {site: changes[site] for site, one in found.items() if one.weight > 0 and one.norm > 0}
    if not ratio or len(voters) < LEAST_SITES:
        return dict(found)
    drawn = drawn_to_middle(voters, ratio)
    far = {site: one for site, one in drawn.items() if one.part < 1.0}
    return {site: replace(one, drawn=far.get(site)) for site, one in found.items()}


def _shortened(norms: Sequence[float], ratio: float) -> list[float]:
    """What brings each change to `ratio` times the median of the others' norms; sites that changed nothing do not count."""
    if not ratio:
        return [1.0] * len(norms)
    found = []
    for place, norm in enumerate(norms):
        others = [other for i, other in enumerate(norms) if i != place and other > 0]
        most = ratio * float(np.median(others))
        found.append(most / norm if norm > most else 1.0)
    return found


def capped(values: Sequence[float], share: float) -> list[float]:
    """The values, the largest of them lowered to one level, so that none is more than `share` of their sum.

    Where fewer values are above 0 than it takes (two cannot both be at most a third), they become equal.

    Args:
        values: [n], 0 or more.
        share: above 0.
    """
    left = sorted((value for value in values if value > 0), reverse=True)
    for lowered in range(len(left)):
        room = 1.0 - lowered * share
        rest = sum(left[lowered:])
        level = share * rest / room if room > 1e-12 else left[-1]
        if left[lowered] <= level * (1 + 1e-12):
            return [min(value, level) for value in values] if lowered else list(values)
    return [min(value, left[-1]) if left else value for value in values]


def told(influence: Mapping[str, Influence]) -> dict[str, dict[str, float]]:
    """Of the round's record: each site's share of the weight and of the change, and what its change was multiplied by.

    `drawn`, of a change that was drawn to the middle: the part of its distance that is left.
    """
    weight, moved = sum(one.weight for one in influence.values()), sum(one.moved for one in influence.values())
    return {
        site: {
            "weight": one.weight / weight if weight else 0.0,
            "change": one.moved / moved if moved else 0.0,
            "scale": one.scale,
            **({"drawn": one.drawn.part} if one.drawn else {}),
        }
        for site, one in sorted(influence.items())
    }
