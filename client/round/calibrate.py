"""A site's part in calibrating the trained model: sums over held-back patients, and of features of all patients.

Runs without Flower's runtime: a request's content goes in, a reply's content comes out. N patients, C classes.
"""

from dataclasses import replace
from datetime import datetime

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.policy.asking import require_calibrating, require_hours
from client.round.site_context import SiteContext
from client.round.train import agreed_model, own_arrays, prepared_patients, require_pinned
from common.data.cases import Site
from common.data.dataset import SiteData
from common.errors import FederationError
from common.evaluation.calibration.calibration import Scaling, score_histogram
from common.evaluation.calibration.offsets import why_no_offsets
from common.evaluation.ood import score as ood
from common.evaluation.ood.features import features
from common.evaluation.stages.choice import confusion, held_back_sums
from common.messages.calibration import (
    CHOOSE,
    CONFUSION,
    COUNT,
    FIT,
    NLL,
    OFFSETS,
    OOD_SCORES,
    OWN,
    SCORES,
    read_asked,
    read_candidates,
    read_reference,
    together,
    write_sums,
)
from common.messages.round import SiteReply, Task
from common.models.arrays import Arrays
from common.models.trained_model import TrainedModel
from common.training.predict import predict

NO_OWN = "the site holds no arrays of its own of this run"


def calibrate_site(content: RecordDict, task: Task, context: SiteContext) -> tuple[RecordDict, Site]:
    """Answer one of the requests of `common.messages.calibration`.

    Returns:
        The reply with all that the site knows (`client.policy` takes out what the hospital keeps), and the site.

    Raises:
        PolicyError: the hospital does not share such sums, or not of so few patients.
        FederationError, WeightsError, DataError, ConfigError: as `client.round.train.train_site`.
    """
    model, config, arrays = agreed_model(content, task, context)
    asked = read_asked(content, config)
    site, training, held = prepared_patients(context, config, task.run)
    require_hours(site.config.policy, datetime.now().astimezone())
    require_pinned(site.config.policy, {"backbone_sha256": model.backbone_sha256})
    private = config.privacy.enabled or bool(site.config.privacy.epsilon)
    groups = [len(training), len(held), *([len(held.labelled)] if len(held.labelled) else [])]
    require_calibrating(site.config.policy, private=private, cohort=min(groups))
    least, trained = site.config.policy.min_patients, TrainedModel(model, arrays, config)
    if asked.stage == CHOOSE:
        candidates = read_candidates(content, asked, arrays)
        sums = together([choice_sums(replace(trained, arrays=candidate), held) for candidate in candidates])
    elif asked.stage == OWN:
        own = own_arrays(context, task.run, config, arrays, task.round)
        if not own:
            raise FederationError(f"This site holds no arrays of its own of run {task.run!r}.", public=NO_OWN)
        sums = own_sums(trained, replace(trained, arrays=arrays | own), held)
    elif asked.stage == FIT:
        sums = fit_sums(trained, training, held, least)
    else:
        reference = read_reference(content, config)
        sums = score_sums(trained, training, held, least, asked.scaling, reference)
    told = SiteReply(context.name, task.round, patients=len(training), labelled=len(training.labelled), counts_shared=True)
    return write_sums(told, sums), site


def choice_sums(trained: TrainedModel, held: SiteData) -> Arrays:
    """Summed loss of the held-back labelled patients under one candidate, as `fit_sums`, and the patients by class and answer."""
    labels, probabilities = _answers(trained, held)
    found = held_back_sums(labels, probabilities, trained.config)
    sums = {NLL: found.nll, COUNT: np.array([len(labels)]), CONFUSION: found.confusion}
    sums |= {} if found.offsets is None else {OFFSETS: found.offsets}
    return {name: array.astype(np.float32) for name, array in sums.items()}


def own_sums(trained: TrainedModel, own: TrainedModel, held: SiteData) -> Arrays:
    """Of the global model and of the site's own: the held-back labelled patients' summed losses, and their classes by answer."""
    both = [choice_sums(model, held) for model in (trained, own)]
    return together([{name: sums[name] for name in (NLL, COUNT, CONFUSION)} for sums in both])


def fit_sums(trained: TrainedModel, training: SiteData, held: SiteData, least: int) -> Arrays:
    """Summed loss of the held-back labelled patients at each temperature, their number, moments of all patients.

    Where class offsets are fitted, also the loss at each point of their grid, and the patients by class and answer.

    Args:
        trained: the federation's final model.
        training: the patients that were trained on.
        held: those held back.
        least: a row of the moments that fewer patients stand behind is left out.
    """
    sums = choice_sums(trained, held)
    if why_no_offsets(trained.config):
        del sums[CONFUSION]
    seen, unseen = (features(trained, patients) for patients in (training, held))
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
        sums[CONFUSION] = confusion(labels, calibrated).astype(np.float32)
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
