"""Make a plain `flwr run .` work in this environment, offline: `make setup` runs this once.

By itself Flower looks for its own programs on PATH only, where they are not unless the environment is activated, and would
install the app's dependencies anew at run time. Neither can be said in pyproject.toml or in FLWR_HOME: `flwr.cli.local_superlink`
(flwr 1.41) starts `flower-superlink` by name, with the variables that it has. So the `flwr` command of this environment begins by
setting both for itself and for what it starts; what the user has set stays, and no other Python is touched.
"""

import os
import sysconfig
from collections.abc import MutableMapping
from pathlib import Path

from common.errors import ConfigError
from common.files import write_atomic

DEFAULTS = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
BEFORE = "from flwr.cli.app import app\n"  # the line of pip's script that ours must precede: Flower reads some when imported
OURS = "from simulation.environment import set_for_flower; set_for_flower()  # FedMRI: a plain `flwr run .` works\n"
EARLIER = "fedmri_flower.pth"  # in site-packages: did the same at the start of every Python


def prepare_environment() -> Path:
    """Put our line into this environment's `flwr` command; doing it twice does no harm.

    Raises:
        ConfigError: the command is not there, or is not as pip writes it.
    """
    (Path(sysconfig.get_path("purelib")) / EARLIER).unlink(missing_ok=True)
    command = Path(sysconfig.get_path("scripts")) / "flwr"
    text = command.read_text(encoding="utf-8") if command.is_file() else ""
    if BEFORE not in text:
        raise ConfigError(f"{command}: expected Flower's command, as pip installs it. Run: pip install --force-reinstall flwr")
    if OURS not in text:
        mode = command.stat().st_mode
        write_atomic(command, text.replace(BEFORE, OURS + BEFORE).encode())
        command.chmod(mode)
    return command


def set_for_flower(environment: MutableMapping[str, str] = os.environ) -> None:
    """What Flower and Ray read, and a PATH on which the programs beside this Python are found."""
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    scripts, path = sysconfig.get_path("scripts"), environment.get("PATH", os.defpath).split(os.pathsep)
    if scripts not in path:
        environment["PATH"] = os.pathsep.join([scripts, *path])


if __name__ == "__main__":
    try:
        prepare_environment()
    except ConfigError as error:
        raise SystemExit(str(error)) from None
