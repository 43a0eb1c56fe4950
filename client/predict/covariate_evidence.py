"""Evidence by clinical covariate: what a prediction would be if one of them were not known.

Exact, and without another pass of the model: a covariate adds to the class logits (`common.models.covariates`), so hiding it
subtracts what it added. N patients, Q covariates, C classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import UNSCALED, Scaling
from common.models.trained_model import TrainedModel

Floats = NDArray[np.float64]
WEIGHT = "head.covariates.weight"


def covariate_evidence(
    trained: TrainedModel, patients: SiteData, probabilities: Floats, *, scaling: Scaling = UNSCALED
) -> Floats:
    """How far the predicted class's probability falls when one covariate is hidden.

    Args:
        trained: a model and its arrays.
        patients: N, with their covariates.
        probabilities: [N, C], calibrated, with all that is known.
        scaling: of the calibration, that made them.

    Returns:
        [N, Q]: positive where the covariate speaks for the predicted class; NaN where it is missing. [N, 0] where the model
        takes none.
    """
    part, known = trained.model.head.covariates, ~np.isnan(patients.covariates)
    if part is None or not known.size:
        return np.empty((len(patients), 0))
    weight = torch.as_tensor(trained.arrays[WEIGHT]) if WEIGHT in trained.arrays else part.weight.detach().cpu()
    evidence, rows, winning = np.full(known.shape, np.nan), np.arange(len(patients)), probabilities.argmax(1)
    for q in range(known.shape[1]):
        alone = np.where(np.arange(known.shape[1]) == q, patients.covariates, np.float32(np.nan))
        added = part.added(torch.from_numpy(alone), weight).double().numpy() / (
            trained.config.objective.student_temperature * scaling.temperature
        )
        without = torch.from_numpy(np.log(np.clip(probabilities, 1e-300, None)) - added).softmax(-1).numpy()
        evidence[:, q] = probabilities[rows, winning] - without[rows, winning]
    return np.where(known, evidence, np.nan)
