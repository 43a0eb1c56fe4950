"""The external hospital in a run that segments: every slice of each patient, read from their files, by the drawn masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.evaluation.segmentation import Cases, Measured, external_entry, measure_patients, subset_entries
from common.models.trained_model import TrainedModel
from common.training.segment import as_network
from server.run.external import FinalResult


def external_cases(folder: Path, names: Sequence[str], config: RunConfig, patients: SiteData) -> Cases:
    """The files of the patients of `open_external`, by the same ids.

    Raises:
        DataError: a site that cannot be used.
    """
    sites = [read_site(folder / name, config, simulated=True) for name in names]
    several = len(sites) > 1
    found = {f"{site.name}/{case.id}" if several else case.id: case for site in sites for case in site.cases}
    return [(name, found[name]) for name in patients.ids]


def measure_segmented(trained: TrainedModel, cases: Cases) -> FinalResult:
    """All measures with their intervals, each patient's agreement, and the modality subsets where they are asked for."""
    config = trained.config
    measured = measure_patients(as_network(trained), cases, config, subsets=config.evaluation.modality_subsets)
    return FinalResult(
        external={"segmentation": external_entry(measured, config)},
        patients=entries(measured),
        modality_subsets=subset_entries(measured, config),
        subgroups={},
        detectable=None,
    )


def entries(measured: Measured) -> list[dict[str, Any]]:
    """`patients` of report.json: what other runs say of a class is there, and empty."""
    nothing: dict[str, Any] = {"label": None, "probabilities": [], "prediction_set": None, "ood": None}
    return [{"id": one["id"], **nothing, **one} for one in measured.patients]
