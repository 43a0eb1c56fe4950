"""What virtual sites run in. Both engines run the very ServerApp and ClientApp, and give the same bytes."""

from collections.abc import Mapping
from pathlib import Path

from common.errors import ConfigError
from server.run.round_lines import OnRound
from simulation.cluster import Cluster

RAY = "ray"
ENGINES = ("pool", RAY)
DEFAULT_ENGINE = "pool"
WORDS = "a pool of worker processes, or Ray through `flwr run`"


def run_federation(
    engine: str,
    app: Path,
    run_config: Mapping[str, str | int],
    sites: int,
    out: Path,
    *,
    on_round: OnRound | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run one federation in simulation and leave the run folder at `out`.

    Args:
        engine: one of `ENGINES`.
        app: folder of the Flower app: the checkout, with its pyproject.toml.
        run_config: keys of `[tool.flwr.app.config]`; `out` and `code` are filled in. Paths in it must be absolute.
        sites: how many training sites there are.
        out: the run folder; RUN/logs takes the logs.
        on_round: called with each line of rounds.jsonl as it comes.
        cluster: where Ray finds its machines; None: this machine alone.

    Raises:
        FederationError: the run did not end well; says why. Whatever happens, no process is left running.
    """
    if engine == RAY:
        from simulation import flower  # noqa: PLC0415  what is not used is not imported

        flower.run_federation(app, run_config, sites, out, on_round=on_round, cluster=cluster)
        return
    from simulation.pool.engine import run_federation as run  # noqa: PLC0415

    run(app, run_config, sites, out, on_round=on_round)


def cluster_for(engine: str, address: str | None) -> Cluster | None:
    """The cluster that was asked for, if one was.

    Raises:
        ConfigError: for another engine than Ray, or an address of another form.
    """
    if address is None:
        return None
    if engine != RAY:
        raise ConfigError(f"--address names a Ray cluster, and --engine {engine} uses none: add --engine {RAY}, or leave it out.")
    return Cluster(address)
