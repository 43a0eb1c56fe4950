"""The site's own SuperExec: Flower's, restricted to the hospital's launchers.

Flower starts `flwr-clientapp` by name, so whatever stands on PATH before the launchers would run in their place, and run any
bundle unseen. PATH is no place to trust: a .pth file of any package can change it at the start of every Python. Here each
name that Flower may start becomes the full path of its launcher, and a start without one is refused.
"""

import os
import sys
from pathlib import Path

from common.errors import ConfigError

LAUNCHERS_VARIABLE = "FEDMRI_LAUNCHERS"  # in the environment: folder of the launchers
PLACE = "get_executor"  # in Flower's module: how it chooses what starts its programs
PAUSE_VARIABLE, PAUSE = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.01"  # seconds: the executor itself waits between two looks


def hold_to_launchers(folder: Path) -> None:
    """Let Flower's executor of this process start the launchers in `folder`, and nothing else.

    Raises:
        ConfigError: a launcher is missing, or Flower starts its programs in another way than the one known here.
    """
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND  # noqa: PLC0415  (heavy)
    from flwr.supercore.superexec.executor import subprocess_executor  # noqa: PLC0415

    if getattr(subprocess_executor, "TASK_TYPE_TO_COMMAND", None) is not TASK_TYPE_TO_COMMAND:
        raise ConfigError(
            "This version of Flower starts its programs in another way than FedMRI knows. Install the agreed version."
        )
    for kind, name in TASK_TYPE_TO_COMMAND.items():
        launcher = folder / Path(name).name
        if not launcher.is_absolute() or not os.access(launcher, os.X_OK):
            raise ConfigError(f"{launcher}: no such launcher. Start the site by `fedmri-site start`.")
        TASK_TYPE_TO_COMMAND[kind] = str(launcher)
    os.environ["PATH"] = str(folder)


def fork_gates() -> bool:
    """Let Flower's SuperExec of this process have gates forked (`client.gate.executor`) and look for requests as often as is due.

    Returns:
        Whether it will; where Flower chooses its executor in another way than the one known here, each gate is started by itself.
    """
    from flwr.supercore.superexec import run_superexec  # noqa: PLC0415  (heavy)
    from flwr.supercore.superexec.executor import get_executor  # noqa: PLC0415

    from client.gate.executor import PreloadedExecutor  # noqa: PLC0415

    if getattr(run_superexec, PLACE, None) is not get_executor:
        return False
    setattr(run_superexec, PLACE, lambda *_, **__: PreloadedExecutor())
    os.environ[PAUSE_VARIABLE] = PAUSE
    return True


def main() -> None:
    """Flower's `flower-superexec`, with its own arguments."""
    from flwr.supercore.cli.flower_superexec import flower_superexec  # noqa: PLC0415

    hold_to_launchers(Path(os.environ.get(LAUNCHERS_VARIABLE, "")))
    if not fork_gates():
        print("This version of Flower starts programs in another way than is known here: no gate is forked.", flush=True)
    sys.argv[0] = "flower-superexec"
    flower_superexec()


if __name__ == "__main__":
    main()
