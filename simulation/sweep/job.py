"""One run of a sweep: train, answer the held-back patients of the training hospitals and the external ones.

Both are answered calibrated, as the model would be used. The external hospital gets temperature and class offsets that all
held-back patients fitted; each held-back patient those that the others fitted, so that nobody has a part in their own answer.
A stage (`evaluation.stage`) is chosen by the same held-back patients, from few candidates: that flatters such an arm a little.

N patients, C classes.
"""

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.run import RunConfig, config_from_json
from common.config.sections import FederationConfig
from common.data.dataset import SiteData
from common.data.holdout import split
from common.errors import FederationError, FedMRIError
from common.evaluation.stages.candidates import LAST
from common.models.arrays import Arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from server.strategy.aggregation import norm_outliers
from simulation.baselines import chosen, fitted_scaling, open_folders
from simulation.in_process import Replies, rounds
from simulation.sweep.plan import Job

HELD, EXTERNAL = "held_back", "external"
Result = dict[str, Any]


def run_job(job: Job) -> Result:
    """Do it here and now, with one thread.

    Returns:
        `held_back` and `external`, each `patients` (site/id) [N], `labels` [N] and `probabilities` [N][C] of the labelled ones;
        or `error`, one sentence, and `trace`.
    """
    torch.set_num_threads(1)
    try:
        return answers(job, config_from_json(job.config))
    except FedMRIError as error:
        return {"error": str(error), "trace": traceback.format_exc()}
    except Exception as error:  # an arm that fails must not end the others; what it was is told by name
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def answers(job: Job, config: RunConfig) -> Result:
    """See `run_job`.

    Raises:
        FedMRIError: patients that cannot be read, or training that diverged.
    """
    parts = {folder.name: split(_open(folder, config, job.cache), config.evaluation.holdout) for folder in job.sites}
    training = {name: patients for name, (patients, _) in parts.items()}
    held = _pooled({name: back for name, (_, back) in parts.items()})
    external = _pooled({folder.name: _open(folder, config, job.cache) for folder in job.external})
    trained = TrainedModel(build_model(config), train(training, held, config), config)
    own, said = (predict(trained, one) if len(one) else np.empty((0, len(config.task.classes))) for one in (held, external))
    if not np.isfinite([own.sum(), said.sum()]).all():
        raise FedMRIError("The model's predictions are not finite: training diverged. Lower the learning rate.")
    scaling = fitted_scaling(held.labels, own, config)
    return {
        HELD: _told(held, cross_fitted(held.labels, own, config)),
        EXTERNAL: _told(external, scaling.apply(said)),
    }


def train(training: dict[str, SiteData], held: SiteData, config: RunConfig) -> Arrays:
    """The arrays that a run of this configuration keeps."""
    kept = list[Arrays]()
    for arrays in rounds(build_model(config), training, config, lambda replies: within_norms(replies, config.federation)):
        kept = [*kept, arrays] if config.evaluation.stage != LAST else [arrays]
    return chosen(kept, held, config)


def within_norms(replies: Replies, plan: FederationConfig) -> Replies:
    """The replies, if the server would take all of them.

    Raises:
        FederationError: it would leave one out for the norm of its change, and the arm would train with fewer hospitals.
    """
    beyond = norm_outliers(replies, plan.max_update_ratio)
    for site, reply in replies.items():
        if plan.max_update_norm and reply.update.norm > plan.max_update_norm:
            beyond[site] = f"The update's norm {reply.update.norm:.4g} is beyond federation.max_update_norm."
    if beyond:
        said = "; ".join(f"{site}: {reason}" for site, reason in beyond.items())
        raise FederationError(f"A run would leave hospitals out, and a sweep compares arms with all of them. {said}")
    return replies


def cross_fitted(labels: NDArray[np.int64], probabilities: NDArray[np.float64], config: RunConfig) -> NDArray[np.float64]:
    """Each patient's answer [N, C], calibrated on all the others."""
    others = ~np.eye(len(labels), dtype=bool)
    rows = [
        fitted_scaling(labels[rest], probabilities[rest], config).apply(probabilities[[row]])[0]
        for row, rest in enumerate(others)
    ]
    return np.array(rows)


def _open(folder: Path, config: RunConfig, cache: Path) -> SiteData:
    return open_folders([folder], config, cache)


def _pooled(sites: dict[str, SiteData]) -> SiteData:
    """The labelled patients, by site/id."""
    known = [patients.select(patients.labelled) for patients in sites.values()]
    return SiteData.pool(known, "+".join(sites))


def _told(patients: SiteData, probabilities: NDArray[np.float64]) -> Result:
    return {"patients": list(patients.ids), "labels": patients.labels.tolist(), "probabilities": probabilities.tolist()}
