"""Private head rounds: per-patient gradients of the head against a naive loop, one patient's bounded share, what stays still."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.privacy.charge import Charge
from common.training import private
from common.training.private import private_round
from common.training.private_probing import embed_patients, head_gradients
from common.training.round import Point, first_point

PRIVATE_TERMS = {
    name: {"weight": weight}
    for name, weight in {"classification": 1.0, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}.items()
}


def config_of(**privacy: Any) -> RunConfig:
    return config_from_table(
        {
            "data": {"size": 32, "slices": 2},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "head_hidden": 8, "head_bottleneck": 4},
            "objective": {"local_crops": 0, "terms": PRIVATE_TERMS},
            "training": {"precision": "fp32", "head_rounds": 2, "warmup_rounds": 0},
            "privacy": {"enabled": True, "steps": 3, "sample_rate": 1.0, **privacy},
            "federation": {"rounds": 4},
        }
    )


def site_of(patients: int = 7) -> SiteData:
    generator = np.random.default_rng(0)
    images = generator.random((patients, 2, 4, 32, 32)).astype(np.float16)
    present = np.ones((patients, 4), bool)
    present[1, :2] = False
    labels = np.array([0, 1, 2, -1, 0, 1, 2][:patients], np.int64)
    return SiteData("s", tuple(map(str, range(patients))), images, present, labels, "key")


def point_of(model: torch.nn.Module, config: RunConfig) -> Point:
    return first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))


def test_gradients_are_those_of_one_backward_pass_a_patient() -> None:
    config = config_of()
    model = build_model(config)
    features = embed_patients(TrainedModel(model, get_arrays(model), config), site_of())
    point = point_of(model, config)
    head = point.trained
    found = head_gradients(model, point, features, np.array([6, 1, 3]), config)
    for i, row in enumerate((6, 1, 3)):
        if features.labels[row] < 0:
            assert not any(value[i].any() for value in found.values())
            continue
        logits = functional_call(
            model.head, {name.removeprefix("head."): v for name, v in head.items()}, (features.embeddings[row],)
        )
        loss = torch.nn.functional.cross_entropy(
            logits[:, :3] / config.objective.student_temperature, features.labels[[row, row]], label_smoothing=0.1
        )
        for name, value in zip(head, torch.autograd.grad(loss, list(head.values())), strict=True):
            torch.testing.assert_close(found[name][i], value, atol=1e-6, rtol=1e-5)


def test_features_are_the_models_own_and_a_patients_do_not_depend_on_the_others() -> None:
    config = config_of()
    model = build_model(config).eval()
    site = site_of()
    whole = embed_patients(TrainedModel(model, get_arrays(model), config), site)
    x, present, *_ = site.take(range(len(site)))
    torch.testing.assert_close(whole.embeddings[:, 0], model(x, present).embedding.detach(), atol=1e-5, rtol=1e-5)
    fewer = embed_patients(TrainedModel(model, get_arrays(model), config), site.select([0, 1, 2]))
    torch.testing.assert_close(whole.embeddings[:3], fewer.embeddings, atol=1e-5, rtol=1e-5)


def test_a_head_round_moves_the_heads_patient_arrays_alone_and_charges_as_any_round() -> None:
    config, charges = config_of(), list[Charge]()
    model = build_model(config)
    start = get_arrays(model)
    for number, head_alone in ((1, True), (2, True), (3, False)):
        update = private_round(model, start, site_of(), config, round_number=number, site_seed=0, charge=charges.append)
        moved = {name for name in start if update.arrays[name].tobytes() != start[name].tobytes()}
        assert all(name.startswith("head.") for name in moved) == head_alone
        assert not any(name.startswith("head.patch") for name in moved)
        assert {"head.patient.weight", "head.prototypes"} <= moved
    assert charges == [Charge(1.0, 1.0, 3)] * 3


@pytest.mark.parametrize("gone", range(7))
def test_one_patient_moves_the_sum_by_at_most_the_clip(gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the optimizer that trains, without noise, with sums instead of means (expected_patients and rate of 1)."""
    config = config_of(noise_multiplier=0.0, max_grad_norm=0.01, steps=1)
    model = build_model(config)
    sums = []
    for rows in (list(range(7)), [row for row in range(7) if row != gone]):
        monkeypatch.setattr(private, "system_sample", lambda *_, rows=rows: np.array(rows))
        monkeypatch.setattr(private, "make_optimizer", lambda student, _: torch.optim.SGD(student.values(), lr=7.0))
        monkeypatch.setattr(private, "set_rates", lambda *_: None)
        start = get_arrays(model)
        arrays = private_round(model, start, site_of(), config, round_number=1, site_seed=0, charge=lambda _: None).arrays
        sums.append({name: arrays[name].astype(np.float64) - start[name] for name in start})
    moved = np.sqrt(sum(((sums[0][name] - sums[1][name]) ** 2).sum() for name in sums[0]))
    assert moved <= 0.01 * (1 + 1e-3)  # float32 weights round
    if site_of().labels[gone] < 0:
        assert moved == 0
    else:
        assert moved > 0.005


def test_features_are_kept_for_equal_adapters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    model = build_model(config)
    start = get_arrays(model)
    first = embed_patients(TrainedModel(model, start, config), site_of())
    other_head = {name: array + 1 if name.startswith("head.") else array for name, array in start.items()}
    assert embed_patients(TrainedModel(model, other_head, config), site_of()).embeddings is first.embeddings
    other_adapter = {name: array + np.float32(name == "vit.norm.bias") for name, array in start.items()}
    assert not torch.allclose(embed_patients(TrainedModel(model, other_adapter, config), site_of()).embeddings, first.embeddings)
