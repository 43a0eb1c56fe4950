"""What a run leaves on disk after each round: a checkpoint, a line in `rounds.jsonl`, TensorBoard events.

RUN/checkpoints/round-0001.safetensors   the global arrays after round 1; its metadata say of which run and round
RUN/checkpoints/latest.json              {"round": 1, "file": "round-0001.safetensors"}
RUN/rounds.jsonl                         one line a round, on disk before the next round begins
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

from common.errors import FederationError
from common.files import write_atomic
from common.models.arrays import Arrays, load_arrays, save_arrays
from server.rounds import RoundRecord

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
    name = f"round-{checkpoint.round:04d}.safetensors"
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
    try:
        latest = json.loads(pointer.read_text(encoding="utf-8"))
        name, number = Path(str(latest["file"])).name, int(latest["round"])
    except (ValueError, KeyError, TypeError) as error:
        raise FederationError(f"Checkpoint {pointer}: not readable. Remove it to start the run anew.") from error
    arrays, metadata = load_arrays(pointer.parent / name)
    return Checkpoint(number, arrays, metadata)


class RunLog:
    """Writes each finished round to `rounds.jsonl` and to TensorBoard. Use as a context manager.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / "rounds.jsonl"
        self._board = SummaryWriter(log_dir=str(run))

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


def read_rounds(run: Path) -> list[dict[str, Any]]:
    """The finished rounds of a run folder; a last line that was cut off by a crash is left out."""
    path = run / "rounds.jsonl"
    if not path.is_file():
        return []
    rounds = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rounds.append(json.loads(line))
        except ValueError:
            break
    return rounds


def as_line(record: RoundRecord) -> dict[str, Any]:
    """A round as `rounds.jsonl` and `report.json` hold it."""
    line = dataclasses.asdict(record)
    line["sites"] = list(record.sites)
    line["failures"] = [{"site": site, "reason": reason} for site, reason in record.failures.items()]
    line["external_mcc"] = line.pop("external").get("mcc")
    if not line["epsilon"]:
        del line["epsilon"]
    return line


def _scalars(record: RoundRecord) -> Mapping[str, float]:
    """The round's numbers under TensorBoard names."""
    numbers = {"round/seconds": record.seconds, "round/sites": len(record.sites), "round/failures": len(record.failures)}
    return (
        numbers
        | {f"train/{name}": value for name, value in record.train.items()}
        | {f"external/{name}": value for name, value in record.external.items()}
    )
