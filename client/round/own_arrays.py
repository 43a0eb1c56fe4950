"""What of a run's model is the site's own (`[personal]`): arrays that never travel, on the site's own disk.

HOME/personal/RUN/round-0003.safetensors   the site's own arrays after round 3

A few rounds are kept, since the coordinator may play the last one again: it then begins with what it began with. Whoever deletes
the folder loses the site's personal model; the next round begins one anew from the global arrays.
"""

import logging
from pathlib import Path

from common.errors import FedMRIError
from common.models.arrays import Arrays, check_arrays, load_arrays, save_arrays

KEPT = 5  # rounds

logger = logging.getLogger("fedmri.client")


def keep_own(folder: Path, number: int, own: Arrays) -> None:
    """Keep the site's own arrays after round `number`, whole or not at all, and forget what is long past."""
    save_arrays(_path(folder, number), own, {"round": str(number)})
    for old in _rounds(folder)[:-KEPT]:
        _path(folder, old).unlink(missing_ok=True)


def own_after(folder: Path, number: int, template: Arrays) -> Arrays:
    """The site's own arrays after round `number`, or after the last before it that the site was in; {} where there are none.

    Args:
        folder: of the run.
        number: of the round.
        template: the model's arrays, which each that was kept must resemble.
    """
    for found in [each for each in reversed(_rounds(folder)) if each <= number]:
        try:
            own, _ = load_arrays(_path(folder, found))
            check_arrays(own, {name: array for name, array in template.items() if name in own})
            return own
        except FedMRIError as error:
            logger.warning("The site's own arrays after round %d are damaged, earlier ones are used. %s", found, error)
    return {}


def _rounds(folder: Path) -> list[int]:
    """Numbers of the rounds whose arrays are there, ascending."""
    return sorted(int(path.stem.removeprefix("round-")) for path in folder.glob("round-[0-9]*.safetensors"))


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:04d}.safetensors"
