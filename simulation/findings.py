"""A run of findings: its baselines on the same patients, and the folds of a cross-site run as one report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.config.run import RunConfig
from common.errors import DataError
from common.evaluation.findings import Floats, baseline_entries, external_entry, labels_of


def with_baselines(report: Mapping[str, Any], found: Mapping[str, Floats], config: RunConfig) -> dict[str, Any]:
    """The report with its baselines; `found` are probabilities [N, F] by their names."""
    labels = labels_of(report["patients"], config)
    federated = np.array([one["probabilities"] for one in report["patients"]])
    return {**report, "baselines": baseline_entries(labels, federated, found, config)}


def pooled_folds(
    runs: Mapping[str, tuple[Path, dict[str, Any]]], config: RunConfig
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All folds' patients, and what of a report is measured on them.

    Args:
        runs: by fold, its folder and its report.
        config: of the runs.

    Raises:
        DataError: no finding is known of any external patient of any fold.
    """
    patients: list[dict[str, Any]] = []
    answers: dict[str, dict[str, list[float]]] = {}
    for fold, (run, report) in runs.items():
        patients += [one | {"id": f"{fold}/{one['id']}"} for one in report["patients"]]
        file = run / "baselines.json"
        tables = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for name, table in tables.items():
            answers.setdefault(name, {}).update({f"{fold}/{patient}": said for patient, said in table.items()})
    labels = labels_of(patients, config)
    if (labels < 0).all():
        raise DataError("No finding is known of any patient of any site: nothing can be measured.")
    nothing = [float("nan")] * len(config.task.classes)
    found = {name: np.array([table.get(one["id"], nothing) for one in patients]) for name, table in answers.items()}
    federated = np.array([one["probabilities"] for one in patients])
    external = external_entry(labels, federated, config)
    return patients, {"external": external, "baselines": baseline_entries(labels, federated, found, config)}
