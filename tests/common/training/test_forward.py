"""Every way of asking a trained model, on a machine with a GPU that is none: nothing of it is left on the CPU."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from client.privacy.audit import share_check
from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.evaluation.explanation.attribution import place_evidence
from common.evaluation.ood.features import features
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.forward import embed, forward_batches
from common.training.predict import frozen_features, predict
from common.training.private_probing import embed_patients
from common.training.probing import _embed
from tests.two_devices import THERE, TwoDevices

PRIVATE = {
    "objective": {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "local_crops": 0},
    "privacy": {"enabled": True, "max_grad_norm": 0.1},
}


def config_of(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
        "training": {"precision": "fp32", "head_rounds": 1, "head_steps": 2},
        "federation": {"rounds": 2},
        "evaluation": {"batch_size": 2},
    }
    return config_from_table(base | sections)


def site_of(patients: int = 5) -> SiteData:
    generator = np.random.default_rng(0)
    present = generator.random((patients, 4)) < 0.7
    present[:, 3] = True
    images = generator.random((patients, 2, 4, 32, 32)) * present[:, None, :, None, None]
    return SiteData("s", tuple(map(str, range(patients))), images.astype(np.float16), present, np.arange(patients) % 3, "key")


def trained_of(config: RunConfig) -> TrainedModel:
    model, generator = build_model(config), np.random.default_rng(1)
    moved = {name: a + generator.normal(0, 0.02, a.shape).astype(np.float32) for name, a in get_arrays(model).items()}
    return TrainedModel(model, moved, config)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoDevices]:
    """This machine with a GPU, as far as our code can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with TwoDevices() as mode:
        yield mode


def head_round(trained: TrainedModel, site: SiteData) -> np.ndarray:
    """Up to the optimizer, which asks for a real GPU's stream."""
    return _embed(trained, site, torch.Generator().manual_seed(3))[0].cpu().numpy()


WAYS: dict[str, Callable[[TrainedModel, SiteData], Any]] = {
    "predict": predict,
    "features": features,
    "frozen features": lambda trained, site: frozen_features(trained.model, site, trained.config),
    "evidence by place": lambda trained, site: place_evidence(trained, site)[1],
    "features of private head rounds": lambda trained, site: embed_patients(trained, site).embeddings.cpu().numpy(),
    "features of head rounds": head_round,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_asking_mixes_devices_and_all_give_what_the_cpu_gives(
    way: str, two_devices: TwoDevices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.training.private_probing._kept", {})
    found = WAYS[way](trained_of(config_of()), site_of())
    assert two_devices.calls > 100
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("common.training.private_probing._kept", {})
    before = two_devices.calls
    np.testing.assert_array_equal(found, WAYS[way](trained_of(config_of()), site_of()))
    assert two_devices.calls == before


def test_the_audit_of_a_run_with_head_rounds_mixes_no_devices(two_devices: TwoDevices) -> None:
    """It asks for features on the GPU, and takes both kinds of steps on the CPU."""
    config = config_of(**PRIVATE)
    assert share_check(build_model(config), site_of(3), config).passed
    assert two_devices.calls > 100


def test_the_made_up_gpu_refuses_what_a_gpu_refuses(two_devices: TwoDevices) -> None:
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    with pytest.raises(RuntimeError, match="same device"):
        layer(x.to(THERE))
    layer.to(THERE)
    with pytest.raises(RuntimeError, match="same device"):
        layer(x)
    said = layer(x.to(THERE))
    assert said.device == THERE
    with pytest.raises(TypeError, match="numpy"):
        said.detach().numpy()
    assert said.detach().cpu().numpy().shape == (1, 2)
    assert layer.to("cpu")(x).device == torch.device("cpu")


def test_rows_are_asked_in_their_order_in_batches_with_their_own_modalities() -> None:
    """Against one patient at a time."""
    trained, site = trained_of(config_of()), site_of()
    rows = np.array([4, 0, 0, 2, 1])
    present = site.present[rows]
    present[1] = [False, False, False, True]
    batches = list(forward_batches(trained, site, embed, rows=rows, present=present))
    assert [len(found) for found in batches] == [2, 2, 1]
    one = [
        next(forward_batches(trained, site, embed, rows=rows[i : i + 1], present=present[i : i + 1])) for i in range(len(rows))
    ]
    torch.testing.assert_close(torch.cat(batches), torch.cat(one))
    assert not trained.model.training
    assert not any(found.requires_grad for found in batches)
