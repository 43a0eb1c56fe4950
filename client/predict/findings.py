"""Predictions of a model of findings: a probability of each, and which are told. Nothing leaves the site."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from client.predict.prediction import RESEARCH, Answer, answer, answer_table
from common.config.findings import LEFT_OUT
from common.data.cases import Case
from common.data.slices import Sliced
from common.evaluation.findings import task_of
from common.model_files.opened_model import OpenedModel

UNGUIDED = "a model of findings takes no proposed one"
KEPT = ("patient", "calibrated", "modalities", "covariates", "slices", "unfinished")  # of what other models' answers have


def find(opened: OpenedModel, read: Sequence[tuple[Case, Sliced]]) -> list[Answer]:
    """The model's answers; `Answer.probabilities` [C] are of the findings."""
    return [replace(one, unguided=UNGUIDED) for one in answer(opened, read)]


def told(one: Answer) -> list[str]:
    """The findings whose probability is above the threshold."""
    task = task_of(one.config)
    return [name for name, p in zip(task.findings, one.probabilities, strict=True) if p > task.threshold]


def findings_table(one: Answer) -> dict[str, Any]:
    """What `--json` prints of a patient: `told` stands for a prediction; `findings` are of the files, as for others."""
    task, whole = task_of(one.config), answer_table(one)
    return {
        **{key: whole[key] for key in KEPT},
        "task": task.name,
        "probabilities": {name: float(p) for name, p in zip(task.findings, one.probabilities, strict=True)},
        "threshold": task.threshold,
        "told": told(one),
        "findings": [asdict(finding) for finding in one.sliced.findings],
        "left_out": list(LEFT_OUT),
        "note": RESEARCH,
    }
