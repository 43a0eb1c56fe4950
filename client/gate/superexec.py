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


def main() -> None:
    """Flower's `flower-superexec`, with its own arguments."""
    from flwr.supercore.cli.flower_superexec import flower_superexec  # noqa: PLC0415

    hold_to_launchers(Path(os.environ.get(LAUNCHERS_VARIABLE, "")))
    sys.argv[0] = "flower-superexec"
    flower_superexec()


if __name__ == "__main__":
    main()
