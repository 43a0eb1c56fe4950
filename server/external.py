"""The held-out hospital: opened once, measured after rounds for looking, and at the end with intervals. It chooses nothing.

N patients, M modalities, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig, RunConfig
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.evaluation.metrics import evaluate
from common.models.arrays import Arrays
from common.models.multimodal import MultiModalViT
from common.training.predict import predict


@dataclass(frozen=True)
class FinalResult:
    """What `report.json` says of the external patients."""

    external: dict[str, Any]  # the shape of `common.evaluation.metrics.evaluate`
    patients: list[dict[str, Any]]
    modality_subsets: dict[str, Any]


def open_external(folder: Path, names: Sequence[str], data: DataConfig, cache: Path) -> SiteData:
    """The patients of one or several sites under `folder` as one; ids of several become `site/id`.

    Raises:
        DataError: a site that cannot be used.
    """
    sites = [open_site(read_site(folder / name, data, simulated=True), data, cache) for name in names]
    return sites[0] if len(sites) == 1 else SiteData.pool(sites, "+".join(names))


def measure_round(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> dict[str, float]:
    """MCC of the global model after a round, without an interval; nothing where it is not defined (no labels)."""
    if not len(patients.labelled):
        return {}
    probabilities = predict(model, arrays, patients, config)
    generator = np.random.default_rng(config.seed)
    value = evaluate(patients.labels, probabilities, config.data.classes, bootstrap=0, generator=generator)["mcc"]["value"]
    return {} if value is None else {"mcc": float(value)}


def measure_final(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> FinalResult:
    """All measures with their intervals, each patient's probabilities, and the modality subsets where they are asked for."""
    probabilities = predict(model, arrays, patients, config)
    subsets = modality_subsets(model, arrays, patients, config) if config.evaluation.modality_subsets else {}
    return FinalResult(_evaluate(patients.labels, probabilities, config), _patients(patients, probabilities, config), subsets)


def modality_subsets(model: MultiModalViT, arrays: Arrays, patients: SiteData, config: RunConfig) -> dict[str, Any]:
    """The measures when only some modalities are looked at: "t1", "t1+t1c", ... Patients left with none are skipped."""
    modalities = config.data.modalities
    results: dict[str, Any] = {}
    for size in range(1, len(modalities) + 1):
        for chosen in combinations(range(len(modalities)), size):
            present = patients.present & np.isin(np.arange(len(modalities)), chosen)
            rows = np.flatnonzero(present.any(1) & (patients.labels >= 0))
            if len(rows):
                some = patients.select(rows)
                probabilities = predict(model, arrays, some, config, present=present[rows])
                results["+".join(modalities[m] for m in chosen)] = _evaluate(some.labels, probabilities, config)
    return results


def _evaluate(labels: NDArray[np.int64], probabilities: NDArray[np.float64], config: RunConfig) -> dict[str, Any]:
    """The measures with the run's own resamples: the same ones for every model that is compared."""
    generator = np.random.default_rng(config.seed)
    return evaluate(labels, probabilities, config.data.classes, bootstrap=config.evaluation.bootstrap, generator=generator)


def _patients(patients: SiteData, probabilities: NDArray[np.float64], config: RunConfig) -> list[dict[str, Any]]:
    """One entry a patient: id, label or None, probabilities in the order of the classes, present modalities."""
    classes, modalities = config.data.classes, config.data.modalities
    return [
        {
            "id": patient,
            "label": classes[label] if label >= 0 else None,
            "probabilities": [float(p) for p in row],
            "modalities": [name for name, here in zip(modalities, present, strict=True) if here],
        }
        for patient, label, row, present in zip(patients.ids, patients.labels, probabilities, patients.present, strict=True)
    ]
