"""What the hospitals call a run, in their audit logs and where `fedmri-site withdraw` tells which runs used a patient."""

import json
from pathlib import Path

from common.text import printable

SETTINGS = "run.json"  # of the run folder


def run_name(run: Path) -> str:
    """The name; empty where the folder does not say."""
    try:
        told = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return printable(str(told.get("run", "")), 64) if isinstance(told, dict) else ""
