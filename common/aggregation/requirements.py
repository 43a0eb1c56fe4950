"""What a run must have for its aggregator to work; the configuration is refused where it has not."""

from collections.abc import Mapping

from common.aggregation.aggregator import Aggregator
from common.errors import ConfigError


def require_seen(strategy: Aggregator, hidden: Mapping[str, bool]) -> None:
    """Refuse an aggregator that needs what the server does not see.

    Args:
        strategy: the aggregator.
        hidden: settings under which the server sees a sum only, and whether they are on.

    Raises:
        ConfigError: it needs single changes, and one is on.
    """
    for name in (name for name, on in hidden.items() if on and not strategy.from_sum):
        raise ConfigError(
            f'federation.strategy = "{strategy.name}" cannot run with {name}: it needs the change of each site by itself, '
            'and only their sum is used there. Choose another, such as federation.strategy = "fedavg".'
        )


def require_enough_sites(strategy: Aggregator, min_sites: int) -> None:
    """Refuse a run in which a round could have fewer sites than its aggregator needs.

    Raises:
        ConfigError: `federation.min_sites` is below `Aggregator.least_sites`.
    """
    if min_sites < strategy.least_sites:
        raise ConfigError(
            f'federation.strategy = "{strategy.name}" needs {strategy.least_sites} sites or more in every round, and '
            f"federation.min_sites = {min_sites} allows fewer. Set federation.min_sites = {strategy.least_sites}, where as many "
            'take part, or choose another, such as federation.strategy = "fedavg".'
        )
