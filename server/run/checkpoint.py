"""What a run leaves on disk after each round: a checkpoint, a line in `rounds.jsonl`, TensorBoard events.

RUN/checkpoints/round-0001.safetensors   the global arrays after round 1; its metadata say of which run and round
RUN/checkpoints/round-0001.state.safetensors   what the aggregator remembers after it (momentum); FedAvg remembers nothing
RUN/checkpoints/latest.json              {"round": 1, "file": "round-0001.safetensors"}
RUN/rounds.jsonl                         one line a round, on disk before the next round begins; read by `round_lines`
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from common.aggregation.aggregator import State
from common.errors import WeightsError
from common.files import naming, write_atomic
from common.models.arrays import Arrays, check_arrays, load_arrays, save_arrays
from common.run_folder import CHECKPOINTS
from server.events.rounds import RoundRecord, as_line
from server.run.round_lines import ROUNDS

LATEST = "latest.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run continues after `round`."""

    round: int
    arrays: Arrays
    metadata: dict[str, str]
    state: State = field(default_factory=dict)  # the aggregator's


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write the round's arrays, then point `latest.json` at them; a crash between leaves the earlier one in charge."""
    folder = run / CHECKPOINTS
    name = _file_name(checkpoint.round)
    if checkpoint.state:  # first: arrays that are there have their state
        save_arrays(folder / _state_name(checkpoint.round), checkpoint.state, {"round": str(checkpoint.round)})
    save_arrays(folder / name, checkpoint.arrays, checkpoint.metadata | {"round": str(checkpoint.round)})
    write_atomic(folder / LATEST, json.dumps({"round": checkpoint.round, "file": name}).encode())


def latest_round(run: Path) -> int | None:
    """The round of the latest checkpoint; None where there is none, or where what names it is damaged."""
    try:
        number = json.loads((run / CHECKPOINTS / LATEST).read_text(encoding="utf-8"))["round"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if type(number) is int else None


def load_round(run: Path, number: int) -> Arrays:
    """The global arrays after one round.

    Raises:
        WeightsError: its checkpoint is damaged, gone, or of another round.
    """
    return _of_round(run / CHECKPOINTS / _file_name(number), number)


def load_like(run: Path, template: Arrays, number: int) -> Arrays:
    """`load_round`, of this model.

    Raises:
        WeightsError: as `load_round`.
        FederationError: it is another model's.
    """
    arrays = load_round(run, number)
    check_arrays(arrays, template)
    return arrays


def load_state(run: Path, number: int, template: State) -> State:
    """The aggregator's state after one round.

    Args:
        run: the run folder.
        number: of the round.
        template: what it looks like; where it is empty, nothing is read.

    Raises:
        WeightsError: its file is damaged, gone, or of another round.
        FederationError: it is another aggregator's, or another model's.
    """
    if not template:
        return {}
    state = _of_round(run / CHECKPOINTS / _state_name(number), number)
    check_arrays(state, template)
    return state


def _of_round(path: Path, number: int) -> Arrays:
    arrays, metadata = load_arrays(path)
    if metadata.get("round") != str(number):
        raise WeightsError(f"Checkpoint {path}: expected round {number}, it is of round {str(metadata.get('round'))[:20]}.")
    return arrays


def _file_name(number: int) -> str:
    return f"round-{number:04d}.safetensors"


def _state_name(number: int) -> str:
    return f"round-{number:04d}.state.safetensors"


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
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(as_line(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in _scalars(record).items():
            self._board.add_scalar(name, value, record.round)
        self._board.flush()


def _scalars(record: RoundRecord) -> Mapping[str, float]:
    """The round's numbers under TensorBoard names."""
    numbers = {"round/seconds": record.seconds, "round/sites": len(record.sites), "round/failures": len(record.failures)}
    return (
        numbers
        | {f"train/{name}": value for name, value in record.train.items()}
        | {f"external/{name}": value for name, value in record.external.items()}
        | {f"low_rank/{name}": value for name, value in record.low_rank.items()}
    )
