"""The baseline that any training must beat: logistic regression on frozen features.

Letters: N patients, M modalities, F features of a modality, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.errors import DataError

LOUD = 20.0


def linear_probe(
    train_features: NDArray[Any],
    train_labels: NDArray[Any],
    test_features: NDArray[Any],
    *,
    classes: int,
    covariates: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> NDArray[np.float64]:
    """Class probabilities by class-balanced logistic regression, C = 0.01, on standardised features.

    An absent modality takes the training mean. Nothing of the test patients is fitted.

    Args:
        train_features: [N, M, F], NaN where a modality is absent.
        train_labels: [N], below 0: unlabelled, left out.
        test_features: [N', M, F], NaN where a modality is absent.
        classes: C; a class that no training patient has gets probability 0.
        covariates: [N, F'] and [N', F'] of training and test patients as `common.models.covariates` has them, standardised, zero
            where missing; each is `LOUD` times an image feature, whose thousands would drown it. None: none.

    Returns:
        [N', C]; where training knows one class only, all on that class.

    Raises:
        DataError: no labelled training patient.
        ValueError: shapes that do not fit.
    """
    if train_features.ndim != 3 or train_features.shape[1:] != test_features.shape[1:]:
        raise ValueError(f"Expected features [N, M, F] twice; got {train_features.shape} and {test_features.shape}.")
    labelled = np.asarray(train_labels) >= 0
    x, y = _flat(train_features)[labelled], np.asarray(train_labels)[labelled]
    known = np.unique(y)
    if not len(known):
        raise DataError("Linear probe: no training patient has a label. Give it at least one site with labels.")
    probabilities = np.zeros((len(test_features), classes))
    if len(known) == 1 or not len(test_features):
        probabilities[:, known[0]] = 1
        return probabilities
    images = make_pipeline(
        SimpleImputer(keep_empty_features=True),  # a modality that no training patient has keeps its columns, as zeros
        StandardScaler(),
    ).fit(x)
    train, test = images.transform(x), images.transform(_flat(test_features))
    if covariates is not None:
        train = np.hstack([train, LOUD * covariates[0][labelled]])
        test = np.hstack([test, LOUD * covariates[1]])
    model = LogisticRegression(class_weight="balanced", C=0.01, max_iter=5000)
    probabilities[:, known] = model.fit(train, y).predict_proba(test)
    return probabilities


def _flat(features: NDArray[Any]) -> NDArray[np.float64]:
    """[N, M, F] to [N, M*F] in float64."""
    return np.asarray(features, np.float64).reshape(len(features), -1)
