"""A run's report.json, read."""

import json
from pathlib import Path
from typing import Any

from common.errors import FedMRIError
from server.report.results import JSON_NAME

KEYS = {
    "external": dict,
    "patients": list,
    "baselines": dict,
    "modality_subsets": dict,
    "rounds": list,
    "calibration": dict | None,
    "privacy": dict,
    "provenance": dict,
}


def read_report(run: Path) -> dict[str, Any]:
    """Read a run folder's report.json.

    Raises:
        FedMRIError: no file, no JSON, or a key that is missing or of another kind.
    """
    path = run / JSON_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FedMRIError(
            f"Run {run}: no {JSON_NAME} ({error.strerror}). Name the folder of a run that has finished; "
            "its logs say why one has not."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FedMRIError(f"{path}: not valid JSON ({error}). Run the federation again.") from error
    if not isinstance(report, dict):
        raise FedMRIError(f"{path}: expected a table with {', '.join(KEYS)}; got {type(report).__name__}.")
    wrong = [key for key, kind in KEYS.items() if key not in report or not isinstance(report[key], kind)]
    if wrong:
        raise FedMRIError(f"{path}: {', '.join(wrong)} missing or of another kind. It was written by another version of FedMRI?")
    return report
