"""The external hospital, with a stub for the model: subsets, skipped patients, missing labels."""

import numpy as np
import pytest

from common.config import config_from_table
from common.data.dataset import SiteData
from server import external
from server.external import measure_final, measure_round, modality_subsets

CONFIG = config_from_table(
    {"data": {"modalities": ["t1", "flair"], "classes": ["a", "b"]}, "evaluation": {"bootstrap": 20, "modality_subsets": True}}
)


def hospital(labels, present) -> SiteData:
    n = len(labels)
    images = np.zeros((n, 1, 2, 4, 4), np.float16)
    images[:, 0, 0, 0, 0] = labels  # the truth, for the stub to see
    ids = tuple(f"sub-{i}" for i in range(n))
    return SiteData("ext", ids, images, np.array(present, bool), np.array(labels, np.int64), "key")


@pytest.fixture
def asked(monkeypatch):
    """A model that is right where it sees t1 and says class a elsewhere; records what it was shown."""
    shown = []

    def predict(model, arrays, patients, config, *, present=None):
        use = patients.present if present is None else present
        shown.append((patients.ids, use.tolist()))
        truth = np.maximum(patients.images[:, 0, 0, 0, 0].astype(int), 0)
        return np.eye(2)[np.where(use[:, 0], truth, 0)]

    monkeypatch.setattr(external, "predict", predict)
    return shown


def test_a_perfect_model_has_mcc_one(asked):
    patients = hospital([0, 1, 0, 1], [[1, 1]] * 4)
    assert measure_round(None, {}, patients, CONFIG) == {"mcc": pytest.approx(1.0)}
    final = measure_final(None, {}, patients, CONFIG)
    assert final.external["mcc"]["value"] == pytest.approx(1.0)
    assert final.external["n"] == 4
    told = {"id": "sub-1", "label": "b", "probabilities": [0.0, 1.0], "modalities": ["t1", "flair"]}
    assert final.patients[1] == {**told, "prediction_set": None, "ood": None}
    assert (final.calibration, final.strangeness) == (None, None)


def test_each_subset_shows_those_modalities_alone(asked):
    results = modality_subsets(None, {}, hospital([0, 1, 0, 1], [[1, 1], [1, 1], [1, 0], [0, 1]]), CONFIG)
    assert list(results) == ["t1", "flair", "t1+flair"]
    assert asked[0] == (("sub-0", "sub-1", "sub-2"), [[True, False]] * 3)  # sub-3 has no t1
    assert asked[1] == (("sub-0", "sub-1", "sub-3"), [[False, True]] * 3)
    assert asked[2][1] == [[True, True], [True, True], [True, False], [False, True]]
    assert results["t1"]["mcc"]["value"] == pytest.approx(1.0)
    assert results["flair"]["confusion"] == [[1, 0], [2, 0]]


def test_without_labels_the_patients_are_predicted_and_nothing_is_measured(asked):
    patients = hospital([-1, -1], [[1, 1]] * 2)
    assert measure_round(None, {}, patients, CONFIG) == {}
    final = measure_final(None, {}, patients, CONFIG)
    assert final.external["n"] == 0
    assert final.external["mcc"]["value"] is None
    assert final.modality_subsets == {}
    assert [p["label"] for p in final.patients] == [None, None]
    assert final.patients[0]["probabilities"] == [1.0, 0.0]


def test_one_class_alone_has_no_mcc(asked):
    assert measure_round(None, {}, hospital([1, 1], [[1, 1]] * 2), CONFIG) == {}
