"""`fedmri-site doctor`: checks everything that must be right before a hospital takes part, one by one.

Nothing is changed, and nothing leaves but one GET of the coordinator's /health.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from client.deployment.connectivity import PATIENCE
from client.deployment.home import SiteHome, open_home
from client.doctor.check_result import FAILED, NOTE, OK, Finding
from client.doctor.home import (
    check_audit_log,
    check_bundles,
    check_ca,
    check_disk,
    check_hours,
    check_key,
    check_ledger,
    check_policy,
)
from client.doctor.network import check_admitted, check_network
from common.config.run import RunConfig
from common.errors import ConfigError, FedMRIError

Check = Callable[[], Iterator[Finding]]


def examine(path: Path, config: RunConfig | None = None, *, quick: bool = False, patience: float = PATIENCE) -> Iterator[Finding]:
    """Run one check after the other; each result is yielded as soon as it is known.

    Args:
        path: the site's folder, or its site.toml.
        config: the planned run; None: what depends on it is left out, and said so.
        quick: leave out the patients' data and the training.
        patience: seconds for each step over the network.
    """
    try:
        home = open_home(path)
    except ConfigError as error:
        yield Finding("site.toml", FAILED, str(error))
        return
    yield Finding("site.toml", OK, f"{home.toml} reads; site {home.name}, coordinator {home.address}.")
    for name, check in _checks(home, config, quick, patience).items():
        yield from _guarded(name, check)


def _checks(home: SiteHome, config: RunConfig | None, quick: bool, patience: float) -> dict[str, Check]:
    """In the order in which a person would mend them."""
    return {
        "key": lambda: check_key(home),
        "ca.crt": lambda: check_ca(home),
        "network": lambda: check_network(home, patience),
        "admitted": lambda: check_admitted(home),
        "disk": lambda: check_disk(home),
        "bundles": lambda: check_bundles(home),
        "ledger": lambda: check_ledger(home),
        "policy": lambda: check_policy(home, config),
        "audit log": lambda: check_audit_log(home),
        "hours": lambda: check_hours(home),
        "training": lambda: _heavy(home, config, quick),
    }


def _heavy(home: SiteHome, config: RunConfig | None, quick: bool) -> Iterator[Finding]:
    """The checks that need torch."""
    from client.doctor.training import check_data, check_device, check_training, check_weights  # noqa: PLC0415

    yield from _guarded("GPU", check_device)
    sound = yield from check_weights(home, config)
    if quick:
        folder = home.folder / Path(home.config.data).expanduser()
        if folder.is_dir():
            yield Finding("data", NOTE, "Not looked at (--quick), nor was training tried.")
        else:
            advice = f"Bring it back, mount it, or say in {home.toml} (data) where it is now."
            yield Finding("data", FAILED, f"{folder}: the folder of the patients is not there.", advice)
        return
    sound = (yield from check_data(home, config)) and sound
    if config is None or not sound:
        why = "the run is not named" if config is None else "weights and data must be in order first"
        yield Finding("dry run", NOTE, f"Not tried: {why}.", "Name the planned run with --config." if config is None else "")
        return
    yield from _guarded("dry run", lambda: check_training(home, config))


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    """A check that raises becomes a failed row, and the others go on."""
    try:
        yield from check()
    except FedMRIError as error:
        yield Finding(name, FAILED, str(error))
    except Exception as error:  # whatever is wrong with the machine, it shall be said in a row
        yield Finding(name, FAILED, f"It could not be looked at: {type(error).__name__}: {error}")
