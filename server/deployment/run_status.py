"""The status of a run, read from what the ServerApp writes into its folder, without importing torch."""

import json
from pathlib import Path
from typing import Any

from common.errors import FederationError
from server.deployment.home import Home
from server.run.round_lines import read_rounds

LAST_NAME = "run.json"  # in state/: the run that was submitted last
STATUS_NAME = "status.json"


def newest_run(home: Home) -> Path | None:
    """Folder of the run that was submitted last, or else of the newest one in `runs` that tells its status."""
    out = _read(home.state / LAST_NAME).get("out")
    if isinstance(out, str) and Path(out).is_dir():
        return Path(out)
    files = sorted(home.runs.glob(f"*/{STATUS_NAME}"), key=lambda file: file.stat().st_mtime)
    return files[-1].parent if files else None


def read_run_status(out: Path) -> dict[str, Any]:
    """RUN/status.json; empty where there is none yet."""
    return _read(out / STATUS_NAME)


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
