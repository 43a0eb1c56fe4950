"""A run of findings: its baselines on the same patients, and the folds of a cross-site run as one report."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.config.run import RunConfig
from common.errors import DataError
from common.evaluation.findings import Floats, baseline_entries, external_entry, labels_of
from simulation.folds import Runs, read_folds


def with_baselines(report: Mapping[str, Any], found: Mapping[str, Floats], config: RunConfig) -> dict[str, Any]:
    """The report with its baselines; `found` are probabilities [N, F] by their names."""
    labels = labels_of(report["patients"], config)
    federated = np.array([one["probabilities"] for one in report["patients"]])
    return {**report, "baselines": baseline_entries(labels, federated, found, config)}


def pooled_folds(runs: Runs, config: RunConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All folds' patients, and what of a report is measured on them.

    Args:
        runs: of a cross-site run.
        config: of the runs.

    Raises:
        DataError: no finding is known of any external patient of any fold.
    """
    patients, answers = read_folds(runs)
    labels = labels_of(patients, config)
    if (labels < 0).all():
        raise DataError("No finding is known of any patient of any site: nothing can be measured.")
    nothing = [float("nan")] * len(config.task.classes)
    found = {name: np.array([table.get(one["id"], nothing) for one in patients]) for name, table in answers.items()}
    federated = np.array([one["probabilities"] for one in patients])
    external = external_entry(labels, federated, config)
    return patients, {"external": external, "baselines": baseline_entries(labels, federated, found, config)}
