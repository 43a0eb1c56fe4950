"""What a site remembers of a run from round to round: SCAFFOLD's control variate, on the site's own disk.

HOME/scaffold/RUN/round-0003.safetensors   what the site was sent in round 3, and the change that it made of it

Nothing of it travels: it is what the site received and what it sent. A few rounds are kept, since the coordinator may play the
last one again: it then ends in the same bytes. The folder may be deleted; the next round's steps are then not corrected.
"""

import hashlib
import logging
from pathlib import Path

from common.errors import FedMRIError
from common.models.arrays import Arrays, check_arrays, load_arrays, save_arrays
from common.training.scaffold import LastRound

KEPT = 5  # rounds
RECEIVED, OWN = "received.", "own."  # before an array's name

logger = logging.getLogger("fedmri.client")


def memory_folder(home: Path, run: str, kind: str = "scaffold") -> Path:
    """Of one run; what the coordinator calls it is no path."""
    return home / kind / hashlib.sha256(run.encode()).hexdigest()[:16]


def remember(folder: Path, number: int, last: LastRound) -> None:
    """Keep what round `number` was, whole or not at all, and forget what is long past."""
    kept = {RECEIVED + name: array for name, array in last.received.items()} | {OWN + n: a for n, a in last.own.items()}
    save_arrays(_path(folder, number), kept, {"round": str(number)})
    _path(folder, number - KEPT).unlink(missing_ok=True)


def recall(folder: Path, number: int, template: Arrays) -> LastRound | None:
    """What round `number` was; None where the site was not in it, or does not know any more.

    Args:
        folder: of the run.
        number: of the round.
        template: the model's arrays, which what was kept must resemble.
    """
    path = _path(folder, number)
    if not path.is_file():
        if number > 0:
            logger.warning("SCAFFOLD: this site has no record of round %d: the next round's steps are not corrected.", number)
        return None
    try:
        arrays, _ = load_arrays(path)
        received, own = (
            {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}
            for part in (RECEIVED, OWN)
        )
        for found in (received, own):
            check_arrays(found, template)
    except FedMRIError as error:
        logger.warning("SCAFFOLD: the record of round %d is damaged; the next round's steps are not corrected. %s", number, error)
        return None
    return LastRound(received, own)


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:04d}.safetensors"
