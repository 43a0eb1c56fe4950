"""Measures of a run of findings, as report.json has them: the federated model's, the baselines' beside it, those of subsets.

N patients, F findings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.findings import LEFT_OUT
from common.config.run import RunConfig
from common.evaluation.comparison import measure
from common.metrics.findings import difference
from common.tasks.findings import Findings
from common.ternary import NO, UNKNOWN, YES, encode

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]  # [N], of `common.ternary`


def task_of(config: RunConfig) -> Findings:
    """The run's task."""
    assert isinstance(config.task, Findings)
    return config.task


def external_entry(labels: Labels, probabilities: Floats, config: RunConfig) -> dict[str, Any]:
    """`external` of report.json: `findings` of `common.metrics.findings.evaluate`.

    Besides: `unknown`, patients of whom no finding is known, who were predicted and not measured; `left_out`, what other runs
    have and such a run has not, and why.
    """
    found = measure(labels, probabilities, config)["findings"]
    return {"findings": {**found, "unknown": int((labels < 0).sum()), "left_out": list(LEFT_OUT)}}


def beside(labels: Labels, first: Floats, other: Floats, config: RunConfig, key: str) -> dict[str, Any]:
    """What another model, or a subset of the modalities, did, and how far it is from the first on the same patients.

    Args:
        labels: of the patients who are measured.
        first: [N, F], of the federated model with all modalities.
        other: [N, F]; NaN for a patient who was not asked about, and is left out on both sides.
        config: the bootstrap and the seed are read.
        key: of the paired difference in mean AUROC, first minus other: `difference` or `drop`.
    """
    asked = np.isfinite(other).all(1)
    labels, first, other = labels[asked], first[asked], other[asked]
    generator = np.random.default_rng(config.seed)
    return {
        **measure(labels, other, config),
        key: difference(labels, first, other, bootstrap=config.evaluation.bootstrap, generator=generator),
    }


def subset_entries(labels: Labels, full: Floats, answers: Mapping[str, Floats], config: RunConfig) -> dict[str, Any]:
    """`modality_subsets` of report.json; a subset that nobody of whom anything is known has any of is not there."""
    there = {name: said for name, said in answers.items() if (np.isfinite(said).all(1) & (labels >= 0)).any()}
    return {name: beside(labels, full, said, config, "drop") for name, said in there.items()}


def baseline_entries(labels: Labels, federated: Floats, found: Mapping[str, Floats], config: RunConfig) -> dict[str, Any]:
    """`baselines` of report.json: pooled training, and each hospital alone."""
    told = {name: beside(labels, federated, said, config, "difference") for name, said in found.items()}
    pooled = {name: told.pop(name) for name in ("pooled",) if name in told}
    return pooled | {"local": told}


def answers_of(labels: Sequence[int], config: RunConfig) -> list[dict[str, bool | None]]:
    """By finding whether each patient has it; None: unknown."""
    return [task_of(config).answers(int(label)) for label in labels]


def labels_of(patients: Sequence[Mapping[str, Any]], config: RunConfig) -> Labels:
    """`patients` of report.json, back."""
    codes = {True: YES, False: NO, None: UNKNOWN}
    names = task_of(config).findings
    return np.array([encode([codes[one["findings"][name]] for name in names]) for one in patients], np.int64)
