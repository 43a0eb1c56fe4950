"""A round and a forward pass on several devices are those of one. Here the CPU stands for each of the devices."""

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training import forward, local
from common.training.device import and_its_like
from common.training.forward import embed, forward_batches
from common.training.local import train_round
from common.training.replicas import Replicas, at_once, moved

CPU = torch.device("cpu")


def config_of(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
        "objective": {"local_crops": 2},
        "training": {"batch_size": 4, "precision": "fp32", "warmup_rounds": 0},
        "evaluation": {"batch_size": 2},
        "federation": {"rounds": 2},
    }
    return config_from_table({name: base.get(name, {}) | sections.get(name, {}) for name in base | sections})


def site_of(patients: int) -> SiteData:
    generator = np.random.default_rng(0)
    present = generator.random((patients, 4)) < 0.7
    present[:, 3] = True
    labels = np.arange(patients) % 3
    images = generator.random((patients, 2, 4, 32, 32)) * 0.3 + labels.reshape(-1, 1, 1, 1, 1) * 0.2
    lesions = (generator.random((patients, 2, 32, 32)) < 0.2).astype(np.uint8)
    ids = tuple(map(str, range(patients)))
    return SiteData("site", ids, images.astype(np.float16), present, labels.astype(np.int64), "key", lesions=lesions)


def moved_arrays(model: torch.nn.Module) -> Arrays:
    """So that student and untouched backbone differ, and no gradient is zero."""
    generator = np.random.default_rng(1)
    return {name: a + generator.normal(0, 0.02, a.shape).astype(np.float32) for name, a in get_arrays(model).items()}


@pytest.fixture
def on_devices(monkeypatch: pytest.MonkeyPatch):
    """Makes our code see so many devices."""

    def see(number: int) -> None:
        for module in (forward, local):
            monkeypatch.setattr(module, "and_its_like", lambda device: (device,) * number)

    return see


OFF = {name: {"weight": 0.0} for name in ("classification", "dino", "ibot", "koleo")}
SEGMENTATION: dict[str, dict[str, Any]] = {
    "task": {"name": "segmentation", "decoder": {"name": "unet", "width": 16}},
    "data": {"through": "brain"},
    "evaluation": {"every": 0},
    "model": {"head": "linear", "head_hidden": 0, "train_tokens": False},
    "objective": {
        "local_crops": 0,
        "masked_modalities": "none",
        "block_mask_share": 0.0,
        "terms": {**OFF, "segmentation": {"weight": 1.0}},
    },
}
ROUNDS = {
    "all terms, the last batch of one patient": ({}, 5),
    "near the global model": ({"objective": {"local_crops": 0, "terms": {"fedprox": {"weight": 10.0}}}}, 5),
    "segmentation": (SEGMENTATION, 5),
    "head": ({"training": {"head_rounds": 1, "head_steps": 3}}, 5),
}


@pytest.mark.parametrize("what", ROUNDS)
def test_a_round_on_several_devices_is_that_of_one(what: str, on_devices) -> None:
    settings, patients = ROUNDS[what]
    config, site = config_of(**settings), site_of(patients)
    model = build_model(config)
    start, threads, found = moved_arrays(model), threading.active_count(), []
    for number in (1, 2, 3):
        on_devices(number)
        found.append(train_round(model, start, site, config, round_number=1, site_seed=5))
    assert any(not np.array_equal(found[0].arrays[name], start[name]) for name in start)
    for other in found[1:]:
        for name, array in found[0].arrays.items():
            away = np.abs(other.arrays[name] - array)
            # AdamW's steps have one size whatever the gradient: where that is next to rounding, so is the step's direction.
            assert (away > 1e-5).mean() <= 1e-4, name
            assert away.max(initial=0.0) <= 1e-4, name
        for name in found[0].metrics.keys() - {"seconds"}:
            assert other.metrics[name] == pytest.approx(found[0].metrics[name], abs=1e-5)
    assert threading.active_count() == threads
    assert multiprocessing.active_children() == []


def test_several_devices_give_the_same_bytes_each_time(on_devices) -> None:
    config, site = config_of(), site_of(4)
    model = build_model(config)
    on_devices(3)
    first, second = (train_round(model, moved_arrays(model), site, config, round_number=1, site_seed=5) for _ in range(2))
    assert all(first.arrays[name].tobytes() == second.arrays[name].tobytes() for name in first.arrays)


@pytest.mark.parametrize("patients", [1, 7])
def test_patients_are_asked_on_all_devices_in_their_order(patients: int, on_devices) -> None:
    config, site = config_of(), site_of(patients)
    model = build_model(config)
    trained = TrainedModel(model, moved_arrays(model), config)
    threads = set()

    def function(model: MultiModalViT, x: torch.Tensor, present: torch.Tensor, _: torch.Tensor, rows: list[int]) -> Any:
        threads.add(threading.get_ident())
        assert not torch.is_grad_enabled()
        return rows, embed(model, x, present)

    alone = list(forward_batches(trained, site, function, asked=True))
    assert threads == {threading.get_ident()}
    on_devices(3)
    together = list(forward_batches(trained, site, function, asked=True))
    assert (
        [rows for rows, _ in together]
        == [rows for rows, _ in alone]
        == [list(range(patients))[i : i + 2] for i in range(0, patients, 2)]
    )
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_outputs_and_gradients_are_those_of_the_model() -> None:
    config, site = config_of(), site_of(5)
    model = build_model(config)
    arrays = moved_arrays(model)
    batch = site.take(np.arange(5))
    read = torch.rand(5, 2, 4, (32 // model.patch_size) ** 2, generator=torch.Generator().manual_seed(0)) < 0.3
    found = []
    for number in (1, 2, 4, 8):
        replicas = Replicas(model, [CPU] * number)
        values = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
        output = replicas(replicas.lend(values), (batch.x, batch.present, read, read, None))
        (output.logits.square().sum() + output.patch_logits.square().sum()).backward()
        found.append((output, {name: value.grad for name, value in values.items()}))
    first, gradients = found[0]
    for output, others in found[1:]:
        for one, other in zip(first[:3], output[:3], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        for name, gradient in gradients.items():
            assert (gradient is None) == (others[name] is None), name
            if gradient is not None:
                torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-4, msg=name)


def test_threads_have_the_precision_and_gradients_of_who_asks() -> None:
    a = torch.rand(4, 4, requires_grad=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for product in at_once([lambda: a @ a] * 2, [CPU] * 2):
            assert (product.dtype, product.requires_grad) == (torch.bfloat16, False)
    for product in at_once([lambda: a @ a] * 2, [CPU] * 2):
        assert (product.dtype, product.requires_grad) == (torch.float32, True)


def test_an_error_on_one_device_is_raised() -> None:
    def fail() -> int:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        at_once([lambda: 1, fail], [CPU] * 2)


def test_tensors_in_tuples_and_lists_are_moved() -> None:
    meta = torch.device("meta")
    number, [one], none = moved((3, [torch.zeros(2)], None), meta)
    assert (number, one.device, none) == (3, meta, None)


def test_every_gpu_of_one_model_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert and_its_like(CPU) == (CPU,)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "for a screen" if number == 2 else "for training")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert and_its_like(CPU) == (CPU,)
    chosen = torch.device("cuda")
    assert and_its_like(chosen) == (chosen, torch.device("cuda", 0), torch.device("cuda", 3))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert and_its_like(chosen) == (chosen,)
