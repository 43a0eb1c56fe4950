"""Whether a model file is of a run that has not finished, told from what lies beside it. Needs no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.run_folder import CHECKPOINTS, MODEL_NAME, REPORT_NAME, STATUS_NAME
from common.text import printable


def unfinished(file: Path, metadata: Mapping[str, str], rounds: int) -> str:
    """One sentence on how far the run was that left the model; "" where nothing says that it has not finished.

    A file that was taken out of its run's folder is believed, but for a checkpoint, whose metadata name its round.

    Args:
        file: the model's.
        metadata: its entries.
        rounds: that the run's configuration asks for.
    """
    if "round" in metadata:
        return _of_checkpoint(file, printable(metadata["round"], 20), rounds)
    folder = file.parent
    status = {} if "format" in metadata or (folder / REPORT_NAME).exists() else _status(folder)
    state = status.get("state")
    if not isinstance(state, str) or state == "finished":
        return ""
    at = f"round {printable(str(status.get('round')), 20)} of {printable(str(status.get('rounds')), 20)}"
    return (
        f"The run of {file} has not finished: it is at {at}, its {STATUS_NAME} says {printable(state, 40)!r}, and it has no "
        f"{REPORT_NAME}. Wait for its end, or go on with it by --resume."
    )


def _of_checkpoint(file: Path, number: str, rounds: int) -> str:
    final = file.parent.parent / MODEL_NAME
    whole = file.parent.name == CHECKPOINTS and final.is_file()
    do = f"The run's model is {final}." if whole else "Take the model of the finished run."
    return f"{file} is a checkpoint, of round {number} of {rounds}: no run ended in it, and it has no calibration. {do}"


def _status(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATUS_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
