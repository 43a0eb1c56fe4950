"""The external hospital in a run of findings: a probability of each for every patient, measured by what is known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.evaluation.findings import answers_of, external_entry, subset_entries
from common.evaluation.subsets import answer_subsets
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from server.run.external import FinalResult


def measure_findings(trained: TrainedModel, patients: SiteData) -> FinalResult:
    """All measures with their intervals, each patient's probabilities, and the modality subsets where they are asked for.

    Args:
        trained: a model and its arrays.
        patients: external; those of whom nothing is known are predicted, not measured.
    """
    config, labels = trained.config, patients.labels
    probabilities = predict(trained, patients)
    wanted = config.evaluation.modality_subsets and len(patients.labelled)
    answers = answer_subsets(trained, patients, full=probabilities, scaling=None) if wanted else {}
    return FinalResult(
        external=external_entry(labels, probabilities, config),
        patients=entries(patients, probabilities, config),
        modality_subsets=subset_entries(labels, probabilities, answers, config),
        subgroups={},
        detectable=None,
    )


def entries(patients: SiteData, probabilities: NDArray[np.float64], config: RunConfig) -> list[dict[str, Any]]:
    """`patients` of report.json: what other runs say of a class is there, and empty."""
    nothing: dict[str, Any] = {"label": None, "prediction_set": None, "ood": None}
    answers = answers_of(patients.labels.tolist(), config)
    return [
        {
            "id": patient,
            **nothing,
            "findings": known,
            "probabilities": [float(p) for p in row],
            "modalities": [name for name, here in zip(config.data.modalities, present, strict=True) if here],
        }
        for patient, known, row, present in zip(patients.ids, answers, probabilities, patients.present, strict=True)
    ]
