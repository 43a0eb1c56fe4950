"""SCAFFOLD (Karimireddy et al., ICML 2020): sites correct their steps for the direction that their own patients pull in.

At the server nothing is added to FedAvg: the sites do it all (`common.training.scaffold`), and what they send is aggregated by
the weighted mean, with the paper's global step of 1. The server's control variate is the step that the last round took, which
every site can tell from the arrays that it was sent; so the checkpoint's arrays hold it already.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.aggregation.fedavg import FedAvg
from common.errors import ConfigError


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """FedAvg over sites that correct their steps."""

    name: ClassVar[str] = "scaffold"


def require_correctable(*, private: bool, site_level: bool, alternating: bool) -> None:
    """Refuse a run in which a site cannot correct its steps by what the last round did.

    Args:
        private: whether sites train with differential privacy.
        site_level: whether the server adds noise.
        alternating: whether an adapter's factors are trained in turns.

    Raises:
        ConfigError: any of them.
    """
    refused = {
        "privacy.enabled": (private, "private steps are not corrected"),
        "site_level.enabled": (site_level, "the last round's step, which corrects the next, would be mostly noise"),
        'model.adapter.factor = "alternate"': (alternating, "no factor is trained in two rounds in a row"),
    }
    for name, why in ((name, why) for name, (on, why) in refused.items() if on):
        raise ConfigError(
            f'federation.strategy = "scaffold" cannot run with {name}: {why}. Choose another, such as federation.strategy = '
            '"fedavg"; objective.terms.fedprox.weight is another means against the drift of sites.'
        )
