"""A site's part in calibrating the trained model: sums over held-back patients, and of features of all patients.

Runs without Flower's runtime: a request's content goes in, a reply's content comes out. N patients, C classes.
"""

from datetime import datetime

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.policy import require_calibrating, require_hours
from client.round.train import SiteContext, agreed_model, prepared_patients, require_pinned
from common.data.cases import Site
from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import Scaling, nll_sums, score_histogram
from common.evaluation.calibration.offsets import offset_sums, why_no_offsets
from common.evaluation.ood import score as ood
from common.evaluation.ood.features import features
from common.messages.calibration import (
    CONFUSION,
    COUNT,
    FIT,
    NLL,
    OFFSETS,
    OOD_SCORES,
    SCORES,
    read_asked,
    read_reference,
    write_sums,
)
from common.messages.round import SiteReply, Task
from common.models.arrays import Arrays
from common.models.trained_model import TrainedModel
from common.training.predict import predict


def calibrate_site(content: RecordDict, task: Task, context: SiteContext) -> tuple[RecordDict, Site]:
    """Answer one of the two requests of `common.messages.calibration`.

    Returns:
        The reply with all that the site knows (`client.policy` takes out what the hospital keeps), and the site.

    Raises:
        PolicyError: the hospital does not share such sums, or not of so few patients.
        FederationError, WeightsError, DataError, ConfigError: as `client.round.train.train_site`.
    """
    model, config, arrays = agreed_model(content, task, context)
    asked = read_asked(content, config)
    site, training, held = prepared_patients(context, config)
    require_hours(site.config.policy, datetime.now().astimezone())
    require_pinned(site.config.policy, {"backbone_sha256": model.backbone_sha256})
    private = config.privacy.enabled or bool(site.config.privacy.epsilon)
    groups = [len(training), len(held), *([len(held.labelled)] if len(held.labelled) else [])]
    require_calibrating(site.config.policy, private=private, cohort=min(groups))
    least, trained = site.config.policy.min_patients, TrainedModel(model, arrays, config)
    if asked.stage == FIT:
        sums = fit_sums(trained, training, held, least)
    else:
        reference = read_reference(content, config)
        sums = score_sums(trained, training, held, least, asked.scaling, reference)
    told = SiteReply(context.name, task.round, patients=len(training), labelled=len(training.labelled), counts_shared=True)
    return write_sums(told, sums), site


def fit_sums(trained: TrainedModel, training: SiteData, held: SiteData, least: int) -> Arrays:
    """Summed loss of the held-back labelled patients at each temperature, their number, moments of all patients.

    Where class offsets are fitted, also the loss at each point of their grid, and the patients by class and answer.

    Args:
        trained: the federation's final model.
        training: the patients that were trained on.
        held: those held back.
        least: a row of the moments that fewer patients stand behind is left out.
    """
    labels, probabilities = _answers(trained, held)
    seen, unseen = (features(trained, patients) for patients in (training, held))
    sums = {NLL: nll_sums(labels, probabilities).astype(np.float32), COUNT: np.array([len(labels)], np.float32)}
    if not why_no_offsets(trained.config):
        sums |= {OFFSETS: offset_sums(labels, probabilities).astype(np.float32), CONFUSION: _confusion(labels, probabilities)}
    return sums | ood.moments(seen, unseen, least)


def score_sums(
    trained: TrainedModel,
    training: SiteData,
    held: SiteData,
    least: int,
    scaling: Scaling,
    reference: Arrays | None,
) -> Arrays:
    """Histograms: the held-back patients' conformal scores, and all patients' out-of-distribution scores against the other sites.

    Held-back patients alone are too few for a threshold at a rate of 5%, so those that trained stand with them. Image, frozen
    features and agreement have not seen them. The adapted features have: it is an assumption that they lie as far from held-back
    patients of other sites as a new patient's do, and what comes of it is measured (docs/results.md).

    Args:
        trained: the federation's final model.
        training: the patients that were trained on.
        held: those held back.
        least: for fewer patients with an out-of-distribution score, no score is given; and as in `fit_sums`.
        scaling: fitted to the sums that `fit_sums` gave at all sites.
        reference: the moments of all sites; the site's own are subtracted, so that its patients are as unknown to the reference
            as those of a hospital that took no part. None: no out-of-distribution scores.
    """
    labels, probabilities = _answers(trained, held)
    calibrated = scaling.apply(probabilities)
    sums = {SCORES: score_histogram(labels, calibrated)}
    if not why_no_offsets(trained.config):
        sums[CONFUSION] = _confusion(labels, calibrated)
    if reference is None:
        return sums
    seen, unseen = (features(trained, patients) for patients in (training, held))
    others = ood.Reference.fit(ood.subtract(reference, ood.moments(seen, unseen, least)))
    ood_counts = ood.histogram(others.score(np.concatenate([seen, unseen])))
    return sums | {OOD_SCORES: ood_counts if ood_counts.sum() >= least else np.zeros_like(ood_counts)}


def _answers(trained: TrainedModel, held: SiteData) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels [N] and uncalibrated probabilities [N, C] of the labelled ones."""
    known = held.select(held.labelled)
    if not len(known):
        return known.labels, np.empty((0, len(trained.config.task.classes)))
    return known.labels, predict(trained, known)


def _confusion(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float32]:
    """Patients by class and most likely class [C, C]; rows are the truth."""
    classes = probabilities.shape[1]
    cells = np.bincount(labels * classes + probabilities.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.float32)
