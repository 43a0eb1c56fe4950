"""The status of a run, read from what the ServerApp writes into its folder, without importing torch.

What the folder says is held against the folder's lock, which a living ServerApp holds, and against Flower's own word for the run:
a ServerApp that was killed leaves its last word behind for ever.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import FederationError
from common.files import held
from common.run_folder import STATUS_NAME
from common.text import printable
from server.deployment.home import Home
from server.run.round_lines import read_rounds

LAST_NAME = "run.json"  # in state/: the run that was submitted last
ERROR_NAME = "error.json"  # as `server.run.ending` writes it
LOCK_NAME = ".lock"  # in the run folder; as `server.run.resume` holds it
FAILED = "failed"
ENDED = ("finished", FAILED)  # what the ServerApp says at the end
DEAD = "dead"


@dataclass(frozen=True)
class LastRun:
    """The run that was submitted last."""

    id: str  # Flower's number
    out: Path


def newest_run(home: Home) -> Path | None:
    """Folder of the run that was submitted last, or else of the newest one in `runs` that tells its status."""
    out = _read(home.state / LAST_NAME).get("out")
    if isinstance(out, str) and Path(out).is_dir():
        return Path(out)
    files = sorted(home.runs.glob(f"*/{STATUS_NAME}"), key=lambda file: file.stat().st_mtime)
    return files[-1].parent if files else None


def last_run(home: Home) -> LastRun | None:
    """From state/run.json; None where nothing was submitted, or its folder is gone."""
    told = _read(home.state / LAST_NAME)
    number, out = told.get("id"), told.get("out")
    if not isinstance(number, str) or not number.isdigit() or not isinstance(out, str) or not Path(out).is_dir():
        return None
    return LastRun(number, Path(out))


def judged(out: Path, flower: str | None) -> dict[str, Any]:
    """RUN/status.json; where the run that it tells of is on no more, `state` is "dead", and `dead_since` and `why` say more.

    Where it was handed over again and has not said a word yet, `state` is "waiting": what stands there is of the attempt before.

    Args:
        out: the run folder.
        flower: Flower's word for the run; "": it knows of none; None: it could not be asked.
    """
    status = read_run_status(out)
    state = status.get("state")
    on = bool(flower) and not str(flower).startswith("finished")
    if on and state == FAILED and not (out / ERROR_NAME).is_file():  # whoever hands a run over again takes the file away
        return status | {"state": "waiting"}
    if not state or state in ENDED or (out / "report.json").is_file() or on:
        return status
    if flower is None and is_held(out):
        return status  # the SuperLink may be on its way back
    word = "the SuperLink does not answer" if flower is None else f"Flower calls it {flower or 'unknown'}"
    process = "its process is there still" if is_held(out) else "its process is gone"
    why = f"{word}, and {process}; it said '{state}' last"
    return status | {"state": DEAD, "dead_since": status.get("updated") or _written(out), "why": why}


def is_held(out: Path) -> bool:
    """Whether a ServerApp is at work in the run folder."""
    return held(out / LOCK_NAME)


def _written(out: Path) -> str:
    return datetime.fromtimestamp((out / STATUS_NAME).stat().st_mtime, UTC).isoformat(timespec="seconds")


def read_run_status(out: Path) -> dict[str, Any]:
    """RUN/status.json; empty where there is none yet."""
    return _read(out / STATUS_NAME)


def failure(out: Path) -> str:
    """Why the run failed, as the ServerApp left it; empty where it left nothing."""
    return printable(str(_read(out / ERROR_NAME).get("error", "")), 1000)


def last_round(out: Path) -> dict[str, Any]:
    """The last whole line of RUN/rounds.jsonl; empty where no round is finished."""
    try:
        return read_rounds(out)[-1]
    except (FederationError, IndexError):
        return {}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
