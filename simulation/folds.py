"""The folds of a cross-site run, read back as one: patients by `fold/id`, and what each baseline said of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Runs = Mapping[str, tuple[Path, dict[str, Any]]]
"""By fold, its folder and its report."""


def read_folds(runs: Runs) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """All folds' patients, and by baseline and patient what stands in the folds' baselines.json."""
    patients: list[dict[str, Any]] = []
    baselines: dict[str, dict[str, Any]] = {}
    for fold, (run, report) in runs.items():
        patients += [one | {"id": f"{fold}/{one['id']}"} for one in report["patients"]]
        file = run / "baselines.json"
        tables = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for name, table in tables.items():
            baselines.setdefault(name, {}).update({f"{fold}/{patient}": said for patient, said in table.items()})
    return patients, baselines
