"""One round's changes as votes, one a site: what the robust rules begin with.

A site's weight is its own claim, and so a way to lie: who claims ten thousand patients would be the mean. So robust rules do not
weigh, as in their papers. Nor does a site vote that has no say in the round: one of weight zero (no labelled patient, where
`federation.unlabelled_weight` is 0), or one that changed nothing (no labelled patient in a head round). Otherwise sites that
have nothing to say would outvote those that have.

All votes are needed at once: memory grows with the number of sites.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.aggregation.aggregator import Change
from common.errors import FederationError


def votes(strategy: str, least_sites: int, changes: Iterable[tuple[Change, float]]) -> list[Change]:
    """The changes of the sites that have a say, in the order given.

    Args:
        strategy: its name, for the error.
        least_sites: that must have a say.
        changes: as `Aggregator.apply` takes them.

    Raises:
        FederationError: they are fewer.
    """
    came = list(changes)
    found = [change for change, weight in came if weight > 0 and any(array.any() for array in change.values())]
    if len(found) < least_sites:
        raise FederationError(
            f'federation.strategy = "{strategy}" needs the changes of {least_sites} sites or more; in this round {len(came)} '
            f"sites answered, and {len(found)} of them changed anything. Let more sites take part that have labelled patients "
            "(in the round that fits a pooling by masks: patients with a mask), or begin a run with another strategy."
        )
    return found


def stacked(changes: Sequence[Change], name: str) -> NDArray[np.float64]:
    """[n, *shape]: one array of all n votes."""
    return np.stack([change[name] for change in changes]).astype(np.float64)


def in_order(changes: Sequence[Change], name: str) -> NDArray[np.float64]:
    """The same, each value by itself from the lowest vote to the highest: whoever sent it is forgotten."""
    return np.sort(stacked(changes, name), axis=0)
