"""Private training against what differential privacy asks of it: one patient moves a step by no more than the clipping norm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table, load_config
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.privacy.audit import the_optimizer
from common.privacy.charge import Charge
from common.privacy.gradients import Parameters
from common.training import private
from common.training.predict import predict
from common.training.private import private_round
from common.training.private_views import draw_example, patient_gradients
from common.training.round import Point, first_point

SEED = (7, 0)
PRIVATE_TERMS = {
    name: {"weight": weight}
    for name, weight in {"classification": 1.0, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}.items()
}


def config_of(slices: int = 2, **privacy: Any) -> RunConfig:
    return config_from_table(
        {
            "data": {"size": 32, "slices": slices},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
            "objective": {"local_crops": 0, "terms": PRIVATE_TERMS},
            "training": {"slices_per_step": slices, "precision": "fp32", "warmup_rounds": 0},
            "federation": {"rounds": 1},
            "privacy": {"enabled": True, "steps": 2, "sample_rate": 0.5, **privacy},
        }
    )


def site_of(patients: int, slices: int, modalities: int = 4, seed: int = 0) -> SiteData:
    """Patients with up to `modalities` modalities; a third has no label."""
    generator = np.random.default_rng(seed)
    labels = np.arange(patients) % 3
    images = generator.random((patients, slices, 4, 32, 32)) * 0.3 + labels.reshape(-1, 1, 1, 1, 1) * 0.33
    present = generator.random((patients, 4)).argsort(1) < modalities
    known = np.where(np.arange(patients) % 4 == 3, -1, labels)
    return SiteData("site", tuple(map(str, range(patients))), images.astype(np.float16), present, known.astype(np.int64), "key")


def point_of(model: MultiModalViT, config: RunConfig) -> Point:
    """A round half done: the trained arrays have moved a little, so that student and teacher differ."""
    generator = torch.Generator().manual_seed(1)
    point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    trained = {
        name: (value.detach() + 0.05 * torch.randn(value.shape, generator=generator)).requires_grad_()
        for name, value in point.trained.items()
    }
    return replace(point, trained=trained, done=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("slices", "modalities"), [(1, 4), (2, 1), (3, 2), (4, 3), (6, 4)])
def test_removing_one_patient_moves_the_clipped_sum_by_at_most_the_clip(slices: int, modalities: int) -> None:
    config = config_of(slices)
    model, site = build_model(config).eval(), site_of(3, slices, modalities)
    point = point_of(model, config)

    def total(rows: list[int]) -> Parameters:
        examples = [draw_example(model, site, row, config, SEED) for row in rows]
        gradients = patient_gradients(model, point, examples, config)
        still = {name: torch.zeros_like(value, requires_grad=True) for name, value in point.trained.items()}
        the_optimizer(torch.optim.SGD(still.values(), lr=1.0), 0.0, 0.01, 1.0).take(still, gradients)  # the one that trains
        return {name: -value.detach().double() for name, value in still.items()}

    everyone = total([0, 1, 2])
    for gone in range(3):
        rest = total([row for row in range(3) if row != gone])
        moved = sum(float((everyone[name] - rest[name]).square().sum()) for name in everyone) ** 0.5
        assert moved <= 0.01 * (1 + 1e-6)
        assert moved > 0.005  # a gradient of nothing would pass the bound and prove nothing


def test_loop_and_one_pass_give_the_same_gradients() -> None:
    model, site = build_model(config_of()).eval(), site_of(6, 2)
    site.present[:3] = True
    point = point_of(model, config_of())
    examples = [draw_example(model, site, row, config_of(), SEED) for row in range(6)]
    looped, mapped = (patient_gradients(model, point, examples, config_of(gradients=method)) for method in ("loop", "batched"))
    scale = max(float(value.abs().max()) for value in looped.values())
    for name in point.trained:
        assert float((looped[name] - mapped[name]).abs().max()) <= 1e-6 * max(scale, 1.0), name


def test_bf16_gives_finite_gradients_close_to_fp32() -> None:
    config = config_of()
    model, site = build_model(config).eval(), site_of(2, 2)
    point = point_of(model, config)
    examples = [draw_example(model, site, row, config, SEED) for row in range(2)]
    half = replace(config, training=replace(config.training, precision="bf16"))
    exact = patient_gradients(model, point, examples, config)
    rough = patient_gradients(model, point, examples, half)
    for i in range(2):
        a, b = (torch.cat([g[name][i].flatten() for name in sorted(point.trained)]) for g in (exact, rough))
        assert torch.cosine_similarity(a, b, dim=0) > 0.95


def test_the_round_is_charged_before_a_patient_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(noise_multiplier=1.3)
    model, site = build_model(config), site_of(4, 2)
    order: list[object] = []
    draw = vars(private)["draw_example"]
    monkeypatch.setattr(private, "system_sample", lambda count, rate: np.arange(count))
    monkeypatch.setattr(private, "draw_example", lambda *a: order.append("patient") or draw(*a))
    private_round(model, get_arrays(model), site, config, round_number=1, site_seed=0, charge=order.append)
    assert order == [Charge(1.3, 0.5, 2), *["patient"] * 8]


def test_a_refused_charge_touches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(charge: Charge) -> None:
        raise ConfigError("spent")

    config = config_of()
    model, site = build_model(config), site_of(4, 2)
    monkeypatch.setattr(private, "draw_example", lambda *a: pytest.fail("a patient was touched"))
    with pytest.raises(ConfigError, match="spent"):
        private_round(model, get_arrays(model), site, config, round_number=1, site_seed=0, charge=refuse)


def test_empty_samples_count_and_add_noise_alone() -> None:
    config = config_of(sample_rate=1e-6)
    model, site = build_model(config), site_of(4, 2)
    start = get_arrays(model)
    update = private_round(model, start, site, config, round_number=1, site_seed=0, charge=lambda c: None)
    assert not np.array_equal(update.arrays["head.prototypes"], start["head.prototypes"])
    assert all(np.isfinite(array).all() for array in update.arrays.values())
    for name in start:
        if name.startswith("head.patch."):
            np.testing.assert_array_equal(update.arrays[name], start[name])


def test_equal_seeds_do_not_give_equal_updates() -> None:
    config = config_of()
    model, site = build_model(config), site_of(4, 2)
    one, two = (
        private_round(model, get_arrays(model), site, config, round_number=1, site_seed=0, charge=lambda c: None)
        for _ in range(2)
    )
    assert not np.array_equal(one.arrays["head.prototypes"], two.arrays["head.prototypes"])


@pytest.mark.slow
def test_it_learns_without_noise() -> None:
    config = config_of(noise_multiplier=0.0, steps=80, sample_rate=0.3)
    config = replace(config, training=replace(config.training, head_learning_rate=5e-3))
    model = build_model(config)
    update = private_round(model, get_arrays(model), site_of(15, 2), config, round_number=1, site_seed=0, charge=lambda c: None)
    unseen = site_of(30, 2, seed=9)
    truth = np.arange(30) % 3
    assert (predict(TrainedModel(model, update.arrays, config), unseen).argmax(1) == truth).mean() > 0.7


@pytest.mark.parametrize(
    ("term", "key", "value", "why"),
    [
        ("koleo", "weight", 0.1, "nearest neighbour"),
        ("dino", "weight", 1.0, "centre comes from the batch; use objective.terms.consistency"),
        ("ibot", "weight", 0.5, "centre comes from the batch"),
        ("classification", "class_balance", "weights", "label counts"),
        ("classification", "class_balance", "prior", "label counts"),
    ],
)
def test_a_term_that_mixes_patients_is_refused_by_name_with_its_own_reason(term: str, key: str, value: object, why: str) -> None:
    terms = {**PRIVATE_TERMS, term: {**PRIVATE_TERMS[term], key: value}}
    table = {"objective": {"local_crops": 0, "terms": terms}, "privacy": {"enabled": True}}
    with pytest.raises(ConfigError, match=rf"objective\.terms\.{term}\.{key} = .* cannot run with privacy\.enabled: .*{why}"):
        config_from_table(table)
    table["privacy"] = {"enabled": False}
    config_from_table(table)


def test_local_crops_are_refused_by_name() -> None:
    table = {"objective": {"local_crops": 2, "terms": PRIVATE_TERMS}, "privacy": {"enabled": True}}
    with pytest.raises(ConfigError, match=r"objective\.local_crops = 2 cannot run with privacy\.enabled"):
        config_from_table(table)


def test_the_shipped_recipe_is_accepted() -> None:
    assert load_config(Path(__file__).parents[3] / "configs" / "private.toml").privacy.enabled
