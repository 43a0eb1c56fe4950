"""Patients' gradients in one pass against one backward pass each, against a closed form, and apart from each other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy.gradients import Parameters
from common.training import private_views
from common.training.private_views import Example, draw_example, patient_gradients
from common.training.round import Point, first_point

TERMS = {"classification": 1.0, "consistency": 0.3, "fedprox": 0.1, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"size": 32, "slices": 2, "covariates": ["age", "sex"]},
    "model": {"backbone": "fedmri_vit_mini", "weights": "random"},
    "objective": {"local_crops": 0, "terms": {name: {"weight": weight} for name, weight in TERMS.items()}},
    "training": {"slices_per_step": 2, "precision": "fp32"},
    "privacy": {"enabled": True},
}
VOLUMES: dict[str, dict[str, Any]] = {
    "data": {"size": 32, "slices": 32, "axes": ["volume"], "through": "brain", "intensity": "zscore", "covariates": []},
    "model": {"backbone": "fedmri_cube_mini", "weights": "random"},
    "training": {"slices_per_step": 32, "precision": "fp32"},
}
MODELS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"name": "lora", "targets": ["qkv", "proj", "fc1", "fc2"]}},
    "lora of one factor": {"adapter": {"name": "lora", "factor": "b"}, "joint_blocks": 2, "train_tokens": False},
    "lora in the last blocks": {"adapter": "lora", "blocks": 2, "joint_blocks": 2, "pooling": "attention"},
    "dora": {"adapter": "dora"},
    "bottleneck": {"adapter": "bottleneck", "joint_blocks": 2},
    "bitfit": {"adapter": "bitfit", "train_norms": False},
    "head": {"adapter": "head", "head": "linear", "head_hidden": 0},
    "dinov3": {"backbone": "vit_small_patch16_dinov3.lvd1689m", "blocks": 1},
    "cnn": {"backbone": "resnet10t", "adapter": "bottleneck", "train_norms": False, "blocks": 1},
}


def config_of(**sections: dict[str, Any]) -> RunConfig:
    return config_from_table({name: {**part, **sections.get(name, {})} for name, part in {**sections, **SETTINGS}.items()})


def sample_of(config: RunConfig, patients: int = 6) -> tuple[MultiModalViT, Point, list[Example]]:
    """Patients who lack some modalities, labels and covariates, in a round whose arrays have moved a little."""
    model, random = build_model(config).eval(), np.random.default_rng(0)
    present = random.random((patients, 4)).argsort(1) < np.arange(patients).reshape(-1, 1) % 4 + 1
    known = np.where(random.random((patients, 2)) < 0.3, np.nan, [[50.0, 1.0]] * patients).astype(np.float32)
    images = random.random((patients, config.data.slices, 4, 32, 32)).astype(np.float16)
    labels = np.arange(patients) % 4 - 1
    site = SiteData(
        "s", tuple(map(str, range(patients))), images, present, labels, "key", known[:, : len(config.data.covariates)]
    )
    point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    trained = {
        name: (value.detach() + 0.05 * torch.randn(value.shape, generator=generator)).requires_grad_()
        for name, value in point.trained.items()
    }
    return model, replace(point, trained=trained), [draw_example(model, site, row, config, (7, 0)) for row in range(patients)]


def by(method: str, config: RunConfig, sample: tuple[MultiModalViT, Point, list[Example]]) -> Parameters:
    model, point, examples = sample
    return patient_gradients(model, point, examples, replace(config, privacy=replace(config.privacy, gradients=method)))


def require_equal(found: Parameters, expected: Parameters) -> None:
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert value.abs().max() > 0, name
        assert float((found[name] - value).abs().max()) <= 1e-6 * max(scale, 1.0), name


def batched(config: RunConfig, sample: tuple[MultiModalViT, Point, list[Example]]) -> Parameters:
    """In one pass: the way back to the loop is closed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_views, "looped_gradients", lambda *_: pytest.fail("patients were taken one by one"))
        return by("batched", config, sample)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_they_are_those_of_the_loop(model: dict[str, Any]) -> None:
    config = config_of(model=model)
    sample = sample_of(config)
    require_equal(batched(config, sample), by("loop", config, sample))


def test_those_of_whole_volumes_are() -> None:
    config = config_of(**VOLUMES)
    sample = sample_of(config, 4)
    require_equal(batched(config, sample), by("loop", config, sample))


def test_they_are_the_same_in_pieces_of_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(model=MODELS["lora in the last blocks"])
    sample = sample_of(config)
    passes: list[int] = []
    honest = vars(private_views)["batched_gradients"]
    monkeypatch.setattr(private_views, "batched_gradients", lambda *given: passes.append(given[2]) or honest(*given))
    monkeypatch.setattr(private_views, "PIECE", {"cpu": 200 * sample[0].width})
    require_equal(batched(config, sample), by("loop", config, sample))
    assert 1 < len(passes) < 6
    assert sum(passes) == 6


def test_a_linear_heads_are_those_of_softmax_regression() -> None:
    """Of each view the difference of answer and truth times the embedding, over the temperature; nothing without a label."""
    terms = {name: {"weight": float(name == "classification"), "label_smoothing": 0.0} for name in ("classification",)}
    terms |= {name: {"weight": 0.0} for name in TERMS if name != "classification"}
    config = config_of(model=MODELS["head"], objective={"terms": terms})
    model, point, examples = sample_of(config)
    found = batched(config, (model, point, examples))
    model.load_state_dict({name: value.detach() for name, value in {**point.trained, **point.fixed}.items()}, strict=False)
    for i, example in enumerate(examples):
        with torch.no_grad():
            said = model(example.x, example.present, example.masks, None, example.covariates)
        truth = torch.zeros(3)
        truth[example.label] = 1.0
        off = (said.logits / 0.1).softmax(-1) - truth if example.label >= 0 else torch.zeros_like(said.logits)
        expected = off.T @ said.embedding / 0.1 / len(example.x)
        torch.testing.assert_close(found["head.patient.weight"][i], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["head.patient.bias"][i], off.sum(0) / 0.1 / len(example.x), rtol=1e-4, atol=1e-5)


def test_a_patient_is_the_same_whoever_else_is_in_the_sample_and_one_without_a_finite_gradient_counts_zero() -> None:
    config = config_of(model=MODELS["lora"])
    model, point, examples = sample_of(config)
    spoilt = examples[2]._replace(x=torch.full_like(examples[2].x, torch.inf))
    together = batched(config, (model, point, [*examples[:2], spoilt, *examples[3:]]))
    alone = batched(config, (model, point, examples[4:5]))
    for name, value in together.items():
        assert not value[2].any()
        assert value.isfinite().all()
        torch.testing.assert_close(value[4:5], alone[name], rtol=1e-4, atol=1e-5)
        assert value[4].abs().max() > 0


def test_arrays_without_a_rule_go_one_by_one() -> None:
    """Of a whole backbone even the kernel that makes patches is trained."""
    config = config_of(model={"adapter": "full"})
    sample = sample_of(config, 2)
    looped = by("loop", config, sample)
    for method in ("batched", "auto"):
        for name, value in by(method, config, sample).items():
            assert torch.equal(value, looped[name])


def test_an_earlier_name_of_the_way_still_opens() -> None:
    assert config_of(privacy={"enabled": True, "gradients": "vmap"}).privacy.gradients == "batched"
