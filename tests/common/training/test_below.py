"""One computation below the meeting of the modalities for several questions: the numbers are those of separate passes."""

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.evaluation.explanation.attribution import modality_evidence, place_evidence
from common.evaluation.ood import features as ood
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.below import below, untouched_below
from common.training.predict import predict


def config(**model: object) -> RunConfig:
    base = {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2, "blocks": 2, "rank": 2, "head_hidden": 0}
    return config_from_table({"data": {"size": 32}, "model": base | model, "training": {"precision": "fp32"}})


def trained(config: RunConfig, embedding: float = 0.0) -> TrainedModel:
    """As training leaves it: everything that is trained has moved, the modality embedding where it is asked for."""
    model, rng = build_model(config), np.random.default_rng(1)
    arrays = {name: array + rng.normal(0, 0.05, array.shape).astype(np.float32) for name, array in get_arrays(model).items()}
    arrays["modality_embedding"] = np.full_like(arrays["modality_embedding"], embedding)
    return TrainedModel(model, arrays, config)


@pytest.fixture(scope="module")
def patients() -> SiteData:
    present = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
    images = np.random.default_rng(0).random((3, 6, 4, 32, 32)).astype(np.float16)
    return SiteData("some", ("a", "b", "c"), images, present, np.arange(3), "some")


WAYS = [({}, 0.0, True), ({}, 0.3, False), ({"blocks": 0}, 0.0, False)]  # settings, modality embedding, whether untouched below


@pytest.mark.parametrize(("settings", "embedding", "untouched"), WAYS)
def test_shared_blocks_change_no_number(settings, embedding, untouched, patients, monkeypatch):
    one = trained(config(**settings), embedding)
    assert untouched_below(one) is untouched
    alone = below(one, patients)
    shared: list[np.ndarray] = [predict(one, patients, alone=alone), *place_evidence(one, patients, alone=alone)]
    shared += [ood.features(one, patients), ood.features(one, patients, alone=alone)]
    monkeypatch.setattr(ood, "below", lambda *_: None)
    scored = ood.features(one, patients)
    plain: list[np.ndarray] = [predict(one, patients), *place_evidence(one, patients), scored, scored]
    for number, (found, wanted) in enumerate(zip(shared, plain, strict=True)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=str(number))


def test_one_pass_below_serves_answer_and_score(patients):
    one, passes = trained(config()), []
    one.model.backbone.blocks[0].register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    alone = below(one, patients)
    predict(one, patients, alone=alone)
    ood.features(one, patients, alone=alone)
    assert sum(passes) == patients.images.shape[1] * int(patients.present.sum())  # each slice of each modality once


def test_where_there_is_nothing_to_share_nothing_is_shared(patients):
    assert below(trained(config(joint_blocks=0)), patients) is None
    many = patients.select(np.zeros(100, np.int64))
    assert len(many) > config().evaluation.batch_size
    assert below(trained(config()), many) is None


def test_evidence_by_modality_is_the_difference_to_the_answer_without_it(patients):
    one = trained(config())
    whole = predict(one, patients)
    found = modality_evidence(one, patients, whole)
    for row, column in np.ndindex(found.shape):
        present = patients.present.copy()
        present[row, column] = False
        if not patients.present[row, column] or not present[row].any():
            assert np.isnan(found[row, column])
            continue
        without = predict(one, patients.select(np.array([row])), present=present[[row]])[0]
        assert found[row, column] == pytest.approx(whole[row].max() - without[whole[row].argmax()], abs=1e-6)
    assert torch.is_grad_enabled()
