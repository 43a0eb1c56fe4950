"""ROC curves against scikit-learn's and torchmetrics' own."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from common.metrics.roc import POINTS, roc_curves
from tests.common.evaluation.made_up import hospital

CLASSES = ("a", "b", "c")


def test_every_point_lies_on_both_other_curves():
    labels, p = hospital(np.random.default_rng(0), 90)
    found = roc_curves(labels, p, CLASSES)
    assert list(found) == list(CLASSES)
    for c, curve in enumerate(found.values()):
        fpr, tpr, _ = sk.roc_curve(labels == c, p[:, c], drop_intermediate=False)
        other = tm.binary_roc(torch.from_numpy(p[:, c]), torch.from_numpy((labels == c).astype(int)))
        for all_points in (np.stack([fpr, tpr], 1), torch.stack(other[:2], 1).numpy()):
            for point in zip(curve["fpr"], curve["tpr"], strict=True):
                assert np.abs(all_points - point).max(1).min() < 1e-6
        assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
        assert sk.auc(curve["fpr"], curve["tpr"]) == pytest.approx(sk.roc_auc_score(labels == c, p[:, c]), abs=1e-9)


def test_a_long_curve_is_thinned_and_keeps_its_area():
    labels, p = hospital(np.random.default_rng(1), 4000)
    for c, curve in enumerate(roc_curves(labels, p, CLASSES).values()):
        assert len(curve["fpr"]) == len(curve["tpr"]) == POINTS
        assert sk.auc(curve["fpr"], curve["tpr"]) == pytest.approx(sk.roc_auc_score(labels == c, p[:, c]), abs=2e-3)
        assert curve["fpr"] == sorted(curve["fpr"])


def test_a_class_without_patients_has_no_curve_and_unlabelled_patients_count_for_nothing():
    labels, p = hospital(np.random.default_rng(2), 30)
    labels = np.where(labels == 2, -1, labels)
    found = roc_curves(labels, p, CLASSES)
    assert list(found) == ["a", "b"]
    assert found == roc_curves(labels[labels >= 0], p[labels >= 0], CLASSES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert roc_curves(np.zeros(4, int), p[:4], CLASSES) == {}
    assert roc_curves(np.zeros(0, int), p[:0], CLASSES) == {}
