"""A GPU gives what the CPU gives: the same functions on both, side by side."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.evaluation.explanation.attribution import place_evidence
from common.evaluation.ood.features import features
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import frozen_features, predict
from common.training.private import private_round
from common.training.private_views import draw_example, patient_gradients
from common.training.round import first_point

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu")]

PRIVATE_TERMS = {
    name: {"weight": weight}
    for name, weight in {"classification": 1.0, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}.items()
}


def config_of(precision: str = "fp32", **sections: dict[str, Any]) -> RunConfig:
    table: dict[str, dict[str, Any]] = {
        "data": {"size": 64, "slices": 3},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
        "objective": {"local_crops": 2},
        "training": {"precision": precision, "head_rounds": 1, "head_steps": 10, "warmup_rounds": 0},
        "federation": {"rounds": 2},
    }
    return config_from_table({name: table.get(name, {}) | sections.get(name, {}) for name in table.keys() | sections.keys()})


def site_of(patients: int = 8) -> SiteData:
    generator = np.random.default_rng(0)
    labels = np.arange(patients) % 3
    images = generator.random((patients, 3, 4, 64, 64)) * 0.5 + labels.reshape(-1, 1, 1, 1, 1) * 0.2
    present = generator.random((patients, 4)) < 0.7
    present[:, 3] = True
    images[~present[:, None].repeat(3, 1)] = 0
    return SiteData("site", tuple(map(str, range(patients))), images.astype(np.float16), present, labels, "key")


def moved(arrays: Arrays) -> Arrays:
    """So that student and untouched backbone differ."""
    generator = np.random.default_rng(1)
    return {name: array + generator.normal(0, 0.02, array.shape).astype(np.float32) for name, array in arrays.items()}


def on_both(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> tuple[Any, Any]:
    """What comes of it on the CPU and on the GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        cpu = work()
    return cpu, work()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 3e-2)])
def test_answers_and_features(monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float) -> None:
    config, site = config_of(precision), site_of()
    model = build_model(config)
    arrays = moved(get_arrays(model))
    cpu, gpu = on_both(monkeypatch, lambda: predict(TrainedModel(model, arrays, config), site))
    np.testing.assert_allclose(gpu, cpu, atol=tolerance)
    for work in (
        lambda: frozen_features(model, site, config),
        lambda: features(TrainedModel(model, arrays, config), site),
        lambda: place_evidence(TrainedModel(model, arrays, config), site)[1],
    ):
        cpu, gpu = on_both(monkeypatch, work)
        np.testing.assert_allclose(gpu, cpu, atol=tolerance * np.nanmax(np.abs(cpu)))


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_moves_the_arrays_the_same_way(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    config, site = config_of(), site_of()
    model = build_model(config)
    start = get_arrays(model)
    cpu, gpu = on_both(monkeypatch, lambda: train_round(model, start, site, config, round_number=number, site_seed=3))
    assert gpu.metrics["loss"] == pytest.approx(cpu.metrics["loss"], rel=1e-2)
    steps = [np.concatenate([(u.arrays[name] - start[name]).ravel() for name in sorted(start)]) for u in (cpu, gpu)]
    assert np.linalg.norm(steps[0]) > 0
    assert steps[0] @ steps[1] / np.linalg.norm(steps[0]) / np.linalg.norm(steps[1]) > 0.98


def test_a_model_that_has_predicted_can_still_be_trained() -> None:
    """What `predict` moved to the GPU in inference mode could not be trained afterwards."""
    config, site = config_of(), site_of()
    model = build_model(config)
    arrays = get_arrays(model)
    predict(TrainedModel(model, arrays, config), site)
    features(TrainedModel(model, arrays, config), site)
    update = train_round(model, arrays, site, config, round_number=2, site_seed=0)
    assert np.isfinite(update.metrics["loss"])


def private_config(gradients: str = "auto") -> RunConfig:
    return config_of(
        objective={"local_crops": 0, "terms": PRIVATE_TERMS},
        privacy={"enabled": True, "steps": 2, "sample_rate": 0.5, "gradients": gradients},
    )


def test_private_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of()

    def gradients(method: str) -> dict[str, np.ndarray]:
        config = private_config(method)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        model = build_model(config).to(device).eval()
        point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 2, torch.device(device))
        arrays = moved(get_arrays(model))
        trained = {name: torch.tensor(arrays[name], device=device, requires_grad=True) for name in point.trained}
        point = replace(point, trained=trained, done=0.5)
        examples = [draw_example(model, site, row, config, (7, 0)) for row in range(len(site))]
        found = patient_gradients(model, point, examples, config)
        return {name: value.detach().cpu().numpy() for name, value in found.items()}

    cpu, mapped = on_both(monkeypatch, lambda: gradients("batched"))
    looped = gradients("loop")
    scale = max(np.abs(value).max() for value in cpu.values())
    for name in cpu:
        np.testing.assert_allclose(mapped[name], cpu[name], atol=1e-2 * scale, err_msg=name)
        np.testing.assert_allclose(mapped[name], looped[name], atol=1e-2 * scale, err_msg=name)


@pytest.mark.parametrize("number", [1, 2])
def test_a_private_round(number: int) -> None:
    config, site = private_config(), site_of()
    model = build_model(config)
    update = private_round(model, get_arrays(model), site, config, round_number=number, site_seed=0, charge=lambda _: None)
    assert all(np.isfinite(array).all() for array in update.arrays.values())
