"""The held-out external hospital: opened once, measured after rounds for information, and at the end with intervals.

N patients, M modalities, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.data.lesions import with_lesions
from common.evaluation.calibration.calibration import UNSCALED, Calibration, prediction_sets
from common.evaluation.calibration.decision import report_decision
from common.evaluation.calibration.offsets import why_no_offsets
from common.evaluation.calibration.reliability import report_calibration
from common.evaluation.comparison import detectable, measure, with_and_without
from common.evaluation.ood import score as ood
from common.evaluation.ood.features import features
from common.evaluation.subgroups.acquisition import Acquisition, read_acquisitions
from common.evaluation.subgroups.subgroups import measure_subgroups
from common.evaluation.subsets import modality_subsets
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from server.run.calibrate import Calibrated


@dataclass(frozen=True)
class FinalResult:
    """The results on the external patients, as report.json has them."""

    external: dict[str, Any]  # what the task's `evaluate` and `curves` return
    patients: list[dict[str, Any]]
    modality_subsets: dict[str, Any]
    subgroups: dict[str, Any]
    detectable: dict[str, Any] | None
    calibration: dict[str, Any] | None = None  # None: the run holds no patients back
    ood_summary: dict[str, Any] | None = None  # `ood` of the report; None: nobody could be scored
    covariates: dict[str, Any] = field(default_factory=dict)  # with and without them; {}: the run takes none
    decision: dict[str, Any] = field(default_factory=dict)


def open_external(folder: Path, names: Sequence[str], config: RunConfig, cache: Path, *, masks: bool = False) -> SiteData:
    """The patients of one or several sites under `folder` as one; ids of several become `site/id`.

    Args:
        folder: of site folders.
        names: of the sites.
        config: of the run.
        cache: of slices.
        masks: with their tumours where the run's sites read them, as if they trained; who is only asked needs none.

    Raises:
        DataError: a site that cannot be used.
    """
    found = [read_site(folder / name, config, simulated=True) for name in names]
    sites = [open_site(site, config.data, cache) for site in found]
    if masks and config.reads_masks:
        sites = [with_lesions(patients, site, config.data, cache) for patients, site in zip(sites, found, strict=True)]
    return sites[0] if len(sites) == 1 else SiteData.pool(sites, "+".join(names))


def read_external(folder: Path, names: Sequence[str], config: RunConfig, patients: SiteData) -> dict[str, Acquisition]:
    """How each of the patients of `open_external` was imaged, by the same ids. Files of who stays out there are not opened again.

    Raises:
        DataError: a site that cannot be used, or a file that could be read before.
    """
    sites = [read_site(folder / name, config, simulated=True) for name in names]
    if len(sites) == 1:
        return read_acquisitions([sites[0].only(patients.ids)])
    apart = [identity.partition("/")[::2] for identity in patients.ids]  # no site's name holds a slash
    return read_acquisitions([site.only(one for name, one in apart if name == site.name) for site in sites])


def measure_round(trained: TrainedModel, patients: SiteData) -> dict[str, float]:
    """MCC of the global model after a round, without an interval; nothing where it is not defined (no labels)."""
    if not len(patients.labelled):
        return {}
    probabilities, config = predict(trained, patients), trained.config
    generator = np.random.default_rng(config.seed)
    value = config.task.evaluate(patients.labels, probabilities, bootstrap=0, generator=generator)["mcc"]["value"]
    return {} if value is None else {"mcc": float(value)}


def measure_final(
    trained: TrainedModel,
    patients: SiteData,
    calibrated: Calibrated | None = None,
    acquisitions: Mapping[str, Acquisition] | None = None,
) -> FinalResult:
    """All measures with their intervals, each patient's probabilities, and the modality subsets where they are asked for.

    Args:
        trained: a model and its arrays.
        patients: external; those without a label are predicted, not measured.
        calibrated: by the sites' held-back patients; None: the run holds none back.
        acquisitions: of `read_external`, for the subgroups; None: no subgroups.
    """
    raw, config = predict(trained, patients), trained.config
    scaling = calibrated.calibration.scaling if calibrated else UNSCALED
    probabilities = scaling.apply(raw)
    entries = _patients(patients, probabilities, config)
    report, ood_summary = None, None
    if calibrated:
        report = {**report_calibration(patients.labels, raw, calibrated.calibration), "failures": dict(calibrated.failures)}
        if calibrated.calibration.sites:
            entries = _with_sets(entries, probabilities, calibrated.calibration, config)
        if calibrated.scorable:
            scores = ood.Reference.fit(calibrated.moments).score(features(trained, patients))
            entries, ood_summary = _with_ood_scores(entries, scores, calibrated.calibration)
    labels, subsets, covariates = patients.labels, {}, {}
    if config.data.covariates:
        without = scaling.apply(predict(trained, patients.without_covariates()))
        names, here = [row.name for row in config.data.covariates], ~np.isnan(patients.covariates)
        covariates = with_and_without(labels, probabilities, without, dict(zip(names, here.T, strict=True)), config)
        entries = _with_covariates(entries, without, here, names)
    if config.evaluation.modality_subsets:
        subsets = modality_subsets(trained, patients, full=probabilities, scaling=scaling)
    return FinalResult(
        measure(labels, probabilities, config) | config.task.curves(labels, probabilities),
        entries,
        subsets,
        measure_subgroups(patients.ids, labels, probabilities, acquisitions or {}, config),
        detectable(labels, probabilities, [], config),
        report,
        ood_summary,
        covariates,
        _decision(labels, raw, probabilities, calibrated, config),
    )


def _with_covariates(
    entries: list[dict[str, Any]], without: NDArray[np.float64], here: NDArray[np.bool_], names: Sequence[str]
) -> list[dict[str, Any]]:
    """What is known of each patient by name, never by value (age and sex may tell who it is), and the answer without it."""
    told = [[name for name, known in zip(names, row, strict=True) if known] for row in here]
    return [
        {**entry, "covariates": known, "probabilities_without_covariates": row.tolist()}
        for entry, known, row in zip(entries, told, without, strict=True)
    ]


def _decision(
    labels: NDArray[np.int64],
    raw: NDArray[np.float64],
    after: NDArray[np.float64],
    calibrated: Calibrated | None,
    config: RunConfig,
) -> dict[str, Any]:
    """`decision` of the report; a run that holds nobody back says why there are no offsets."""
    known = calibrated or Calibrated(Calibration(), no_offsets=why_no_offsets(config))
    offsets = known.calibration.offsets
    return report_decision(labels, raw, after, config, offsets, known.no_offsets, known.confusion)


def _with_sets(
    entries: list[dict[str, Any]], probabilities: NDArray[np.float64], calibration: Calibration, config: RunConfig
) -> list[dict[str, Any]]:
    """Each patient's prediction set, by the classes' names."""
    sets = prediction_sets(probabilities, calibration.set_threshold)
    names = [[name for name, inside in zip(config.task.classes, row, strict=True) if inside] for row in sets]
    return [{**entry, "prediction_set": chosen} for entry, chosen in zip(entries, names, strict=True)]


def _with_ood_scores(
    entries: list[dict[str, Any]], scores: NDArray[np.float64], calibration: Calibration
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each patient's score (None for one without a modality that the sites know), and how many are flagged.

    Without a threshold nobody can be flagged; then `flagged` is None, for that is not the same as to be unsuspicious. Nor is a
    score below a threshold that few held-back patients stand for.
    """
    limit = calibration.ood_threshold if np.isfinite(calibration.ood_threshold) else None

    def flag(score: float) -> bool | None:
        return None if limit is None or not (score > limit or calibration.vouches) else bool(score > limit)

    told = [{"score": float(score), "flagged": flag(score)} if np.isfinite(score) else None for score in scores]
    flagged = None if limit is None else sum(one["flagged"] is True for one in told if one)
    few = {} if limit is None or calibration.vouches else {"held_back": calibration.patients}
    summary = few | {
        "rate": calibration.ood_rate,
        "threshold": limit,
        "flagged": flagged,
        "of": sum(one is not None for one in told),
    }
    return [{**entry, "ood": one} for entry, one in zip(entries, told, strict=True)], summary


def _patients(patients: SiteData, probabilities: NDArray[np.float64], config: RunConfig) -> list[dict[str, Any]]:
    """One entry a patient: id, label or None, probabilities in the order of the classes, present modalities."""
    classes, modalities = config.task.classes, config.data.modalities
    return [
        {
            "id": patient,
            "label": classes[label] if label >= 0 else None,
            "probabilities": [float(p) for p in row],
            "modalities": [name for name, here in zip(modalities, present, strict=True) if here],
            "prediction_set": None,
            "ood": None,
        }
        for patient, label, row, present in zip(patients.ids, patients.labels, probabilities, patients.present, strict=True)
    ]
