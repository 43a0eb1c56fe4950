"""Training with clinical covariates: hidden as often as said, bounded by patient, learnt where they alone tell the classes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.covariates import GAIN
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.masking import drop_covariates
from common.training.local import train_round
from common.training.predict import predict
from common.training.private_probing import embed_patients, head_gradients
from common.training.private_views import draw_example, patient_gradients
from common.training.round import first_point

NAN = float("nan")
WEIGHT = "head.covariates.weight"
TERMS = {"classification": {"weight": 1.0}, "dino": {"weight": 0.0}, "ibot": {"weight": 0.0}, "koleo": {"weight": 0.0}}


def config_of(covariates: list[Any], **sections: Any) -> RunConfig:
    table = {
        "data": {"size": 32, "slices": 1, "covariates": covariates},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "head_hidden": 0, "head_bottleneck": 4},
        "objective": {"local_crops": 0, "terms": TERMS, **sections.pop("objective", {})},
        "training": {"precision": "fp32", "head_rounds": 1, "head_steps": 40, "batch_size": 4, **sections.pop("training", {})},
        "federation": {"rounds": 2},
    }
    return config_from_table(table | sections)


def site_of(patients: int = 8) -> SiteData:
    """Equal images, and ages that tell the classes apart: of class 1 all are old."""
    labels = np.arange(patients) % 2
    images = np.full((patients, 1, 4, 32, 32), 0.5, np.float16)
    ages = np.where(labels == 1, 65.0, 35.0).astype(np.float32)
    ages[0] = NAN
    present = np.ones((patients, 4), bool)
    return SiteData("s", tuple(map(str, range(patients))), images, present, labels, "key", ages[:, None])


def trained(config: RunConfig, site: SiteData, number: int = 1) -> tuple[MultiModalViT, dict[str, Any]]:
    model = build_model(config)
    return model, train_round(model, get_arrays(model), site, config, round_number=number, site_seed=5).arrays


def test_they_are_hidden_as_often_as_said() -> None:
    known, generator = torch.zeros(40000, 3), torch.Generator().manual_seed(0)
    hidden = drop_covariates(known, 0.3, generator).isnan()
    assert hidden.all(1).float().mean().item() == pytest.approx(0.3 + 0.7 * 0.3**3, abs=0.01)
    assert hidden.float().mean().item() == pytest.approx(1 - 0.7**2, abs=0.01)  # together, or by itself
    assert drop_covariates(known[:, :1], 0.3, generator).isnan().float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert not known.isnan().any(), "what came is left as it is"
    assert not drop_covariates(known, 0.0, generator).isnan().any()
    assert drop_covariates(known, 1.0, generator).isnan().all()


def test_where_there_are_none_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(3)
    assert drop_covariates(torch.empty(5, 0), 0.3, generator).shape == (5, 0)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(3)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])  # a head round, and one on views
def test_a_round_learns_what_ages_tell(number: int) -> None:
    config = config_of(["age"], training={"head_learning_rate": 1e-2, "local_epochs": 8 * number})
    model, arrays = trained(config, site_of(), number)
    old_minus_young = arrays[WEIGHT][1, 0] - arrays[WEIGHT][0, 0]
    assert old_minus_young > 0.02
    asked = replace(site_of(), covariates=np.array([[65.0], [35.0]] * 4, np.float32))
    told = predict(TrainedModel(model, arrays, config), asked)
    assert told[0, 1] > told[0, 0]
    assert told[1, 0] > told[1, 1]
    untold = predict(TrainedModel(model, arrays, config), asked.without_covariates())
    np.testing.assert_allclose(untold - untold[0], 0, atol=1e-6)  # equal images, and nothing else is known


def test_hidden_beside_every_image_they_are_learnt_in_head_rounds_alone() -> None:
    never = config_of(["age"], objective={"covariate_dropout": 1.0})
    assert not trained(never, site_of(), 2)[1][WEIGHT].any()
    assert trained(never, site_of(), 1)[1][WEIGHT].any()


def test_ages_are_learnt_though_images_tell_the_training_patients_apart() -> None:
    """The images alone fit every patient that trains; what ages say must not be left unlearnt for it."""
    labels = np.arange(8) % 2
    images = np.zeros((8, 1, 4, 32, 32), np.float16)
    images[labels == 1, :, :, :16] = 1.0
    site = replace(site_of(), images=images)
    config = config_of(["age"], training={"head_learning_rate": 1e-2, "head_steps": 200})
    _, arrays = trained(config, site)
    weight = GAIN * (arrays[WEIGHT][1] - arrays[WEIGHT][0]) / config.objective.student_temperature
    assert weight[0] > 1.0, "fifteen years change the odds by e at least"


def private(**privacy: Any) -> RunConfig:
    return config_of(["age"], objective={"covariate_dropout": 0.5}, privacy={"enabled": True, "sample_rate": 1.0, **privacy})


def test_private_features_hide_by_each_patients_own_randomness() -> None:
    config, site = private(), site_of()
    model = build_model(config)
    all_of_them = embed_patients(TrainedModel(model, get_arrays(model), config), site).covariates
    assert all_of_them.shape == (8, 3, 1)
    np.testing.assert_array_equal(all_of_them[:, 0], site.covariates)  # the first copy is whole, and so is
    np.testing.assert_array_equal(all_of_them[:, 2], site.covariates)  # the last, which has no image
    others = embed_patients(TrainedModel(model, get_arrays(model), config), site.select([0, 1, 2])).covariates
    np.testing.assert_array_equal(all_of_them[:3], others)
    assert 0 < int(all_of_them[1:, 1].isnan().sum()) < 7


def test_private_head_gradients_are_those_of_one_backward_pass_a_patient() -> None:
    config, site = private(), site_of()
    model = build_model(config)
    features = embed_patients(TrainedModel(model, get_arrays(model), config), site)
    point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    found = head_gradients(model, point, features, np.array([3, 0]), config)[WEIGHT]
    for i, row in enumerate((3, 0)):
        scores = model.head(features.embeddings[row], features.covariates[row])[:, :3] / 0.1
        loss = torch.nn.functional.cross_entropy(scores, features.labels[[row] * 3], label_smoothing=0.1)
        (expected,) = torch.autograd.grad(loss, [model.head.covariates.weight])  # type: ignore[union-attr, list-item]
        torch.testing.assert_close(found[i], expected, atol=1e-6, rtol=1e-5)
    assert found[0].any()
    assert not found[1].any(), "of a patient of unknown age nothing is learnt about ages"


def test_private_views_give_the_same_by_loop_and_in_one_pass_and_know_no_other_patient() -> None:
    site = site_of(4)
    found = {}
    for method in ("loop", "batched"):
        config = private(gradients=method)
        model = build_model(config)
        point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 2, torch.device("cpu"))
        examples = [draw_example(model, site, row, config, (7, 0)) for row in range(4)]
        found[method] = patient_gradients(model, point, examples, config)[WEIGHT]
    torch.testing.assert_close(found["loop"], found["batched"], atol=1e-5, rtol=1e-4)
    assert found["loop"][1:].any(), "an age that is not hidden has a gradient"
    alone = draw_example(model, site.select([0, 1]), 1, config, (7, 0))
    np.testing.assert_array_equal(alone.covariates, examples[1].covariates)
    assert alone.known.tolist() == [[65.0]]
