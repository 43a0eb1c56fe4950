"""`rounds.jsonl`: one line a finished round, read here alone, and by nothing that waits for torch."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import FederationError
from common.files import write_atomic

ROUNDS = "rounds.jsonl"

Line = dict[str, Any]
OnRound = Callable[[Line], None]


class RoundFollower:
    """Passes on each line of rounds.jsonl once, as it comes.

    Args:
        out: the run folder.
        told: lines that are known already, of a run that is resumed.
    """

    def __init__(self, out: Path, on_round: OnRound | None, told: int = 0) -> None:
        self._out, self._told, self._on_round = out, told, on_round

    def follow(self) -> None:
        """Pass on the lines that are new."""
        if self._on_round is None:
            return
        lines = read_rounds(self._out)
        self._told = min(self._told, len(lines))  # a resume may begin by taking lines out
        for line in lines[self._told :]:
            self._on_round(line)
        self._told = len(lines)


def read_rounds(run: Path) -> list[Line]:
    """The finished rounds of a run folder; what a crash cut off, or what follows a damaged line, is left out."""
    rounds: list[Line] = []
    for text in _texts(run):
        line = _parsed(text)
        if line is None:
            break
        rounds.append(line)
    return rounds


def read_lines(run: Path) -> list[Line]:
    """The finished rounds, held to their numbers 1, 2, ...; only what a crash can do to the last line is forgiven.

    Raises:
        FederationError: an earlier line is damaged: what sites spent in that round cannot be told.
    """
    texts = _texts(run)
    lines: list[Line] = []
    for number, text in enumerate(texts, start=1):
        line = _parsed(text)
        if line is None or not _is_round(line, number):
            if number == len(texts):
                break
            raise FederationError(f"{run / ROUNDS}, line {number}: expected round {number}; it is damaged. Start a new run.")
        lines.append(line)
    return lines


def write_lines(run: Path, lines: Sequence[Line]) -> None:
    """Keep these rounds and no other."""
    write_atomic(run / ROUNDS, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())


def _texts(run: Path) -> list[str]:
    """The lines of rounds.jsonl as text."""
    path = run / ROUNDS
    try:
        return path.read_bytes().decode("utf-8", errors="replace").split("\n") if path.is_file() else []
    except OSError as error:
        raise FederationError(f"{path}: cannot be read ({error.strerror}).") from error


def _parsed(text: str) -> Line | None:
    """One line as a table, if it is one."""
    try:
        line = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _is_round(line: Line, number: int) -> bool:
    """Whether a line has the fields that resuming a run reads."""
    sites, failures, trained = line.get("sites"), line.get("failures"), line.get("trained", {})
    if type(line.get("round")) is not int or line["round"] != number or not isinstance(trained, dict):
        return False
    names = [*sites, *line.get("paused", ())] if isinstance(sites, list) and isinstance(line.get("paused", []), list) else [None]
    if not isinstance(failures, list) or not all(isinstance(failure, dict) for failure in failures):
        return False
    names += [text for failure in failures for text in (failure.get("site"), failure.get("reason"))]
    counts = [*trained.values(), line.get("redone", 0), line.get("attempts")]
    return all(isinstance(name, str) for name in names) and all(type(count) is int and count >= 0 for count in counts)
