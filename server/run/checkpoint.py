"""What a run leaves on disk after each round: a checkpoint, a line in `rounds.jsonl`, TensorBoard events.

RUN/checkpoints/round-0001.safetensors   the global arrays after round 1; its metadata say of which run and round
RUN/checkpoints/latest.json              {"round": 1, "file": "round-0001.safetensors"}
RUN/rounds.jsonl                         one line a round, on disk before the next round begins; read by `round_lines`
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from common.errors import FederationError, WeightsError
from common.files import write_atomic
from common.models.arrays import Arrays, load_arrays, save_arrays
from server.run.round_lines import ROUNDS
from server.strategy.round_state import RoundRecord

LATEST = "latest.json"


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on after `round`: averaging keeps no other state at the server."""

    round: int
    arrays: Arrays
    metadata: dict[str, str]


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write the round's arrays, then point `latest.json` at them; a crash between leaves the earlier one in charge."""
    folder = run / "checkpoints"
    name = _file_name(checkpoint.round)
    save_arrays(folder / name, checkpoint.arrays, checkpoint.metadata | {"round": str(checkpoint.round)})
    write_atomic(folder / LATEST, json.dumps({"round": checkpoint.round, "file": name}).encode())


def load_checkpoint(run: Path) -> Checkpoint | None:
    """The latest checkpoint of a run folder, or None where no round was finished.

    Raises:
        FederationError: `latest.json` is damaged.
        WeightsError: the file that it names is damaged or gone.
    """
    pointer = run / "checkpoints" / LATEST
    if not pointer.is_file():
        return None
    number, name = _read_pointer(pointer)
    arrays, metadata = load_arrays(pointer.parent / name)
    return Checkpoint(number, arrays, metadata)


def latest_round(run: Path) -> int | None:
    """The round of the latest checkpoint; None where there is none, or where what names it is damaged."""
    pointer = run / "checkpoints" / LATEST
    try:
        return _read_pointer(pointer)[0] if pointer.is_file() else None
    except FederationError:
        return None


def load_round(run: Path, number: int) -> Arrays:
    """The global arrays after one round.

    Raises:
        WeightsError: its checkpoint is damaged, gone, or of another round.
    """
    path = run / "checkpoints" / _file_name(number)
    arrays, metadata = load_arrays(path)
    if metadata.get("round") != str(number):
        raise WeightsError(f"Checkpoint {path}: expected round {number}, it is of round {str(metadata.get('round'))[:20]}.")
    return arrays


def _file_name(number: int) -> str:
    return f"round-{number:04d}.safetensors"


def _read_pointer(pointer: Path) -> tuple[int, str]:
    """Round and file name that `latest.json` holds."""
    try:
        latest = json.loads(pointer.read_text(encoding="utf-8"))
        number, name = latest["round"], latest["file"]
        if type(number) is not int or type(name) is not str or not Path(name).name:
            raise TypeError("not a round and a file")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FederationError(f"Checkpoint {pointer}: not readable. Remove it to start the run anew.") from error
    return number, Path(name).name


class RunLog:
    """Writes each finished round to `rounds.jsonl` and to TensorBoard. Use as a context manager.

    Args:
        run: the run folder.
        first_round: that will be written; curves of an earlier attempt at it, and of later ones, are taken off the board.
    """

    def __init__(self, run: Path, first_round: int = 1) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / ROUNDS
        self._board = SummaryWriter(log_dir=str(run), purge_step=first_round if first_round > 1 else None)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._board.close()

    def write(self, record: RoundRecord) -> None:
        """Append one round; it is on the disk when this returns."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(as_line(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in _scalars(record).items():
            self._board.add_scalar(name, value, record.round)
        self._board.flush()


def as_line(record: RoundRecord) -> dict[str, Any]:
    """A round as `rounds.jsonl` and `report.json` hold it."""
    line = dataclasses.asdict(record)
    line["sites"] = list(record.sites)
    line["failures"] = [{"site": site, "reason": reason} for site, reason in record.failures.items()]
    line["external_mcc"] = line.pop("external").get("mcc")
    line["paused"] = list(record.paused)
    for name in ("epsilon", "paused", "redone"):  # most rounds have none
        if not line[name]:
            del line[name]
    return line


def _scalars(record: RoundRecord) -> Mapping[str, float]:
    """The round's numbers under TensorBoard names."""
    numbers = {"round/seconds": record.seconds, "round/sites": len(record.sites), "round/failures": len(record.failures)}
    return (
        numbers
        | {f"train/{name}": value for name, value in record.train.items()}
        | {f"external/{name}": value for name, value in record.external.items()}
    )
