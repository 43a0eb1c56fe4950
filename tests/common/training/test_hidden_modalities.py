"""Modalities that are hidden whole are computed once for all, and large passes in pieces: the numbers of the plain way."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import Batch, SiteData
from common.models import multimodal
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.training import step
from common.training.local import train_round
from common.training.replicas import Replicas
from common.training.views import Views, global_views

PATIENTS = 6


def config_of() -> RunConfig:
    return config_from_table(
        {
            "data": {"size": 32, "slices": 3},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2, "blocks": 2},
            "objective": {"local_crops": 0, "modality_dropout": 0.3},
            "training": {"batch_size": 4, "slices_per_step": 2, "local_epochs": 2},
            "federation": {"rounds": 4},
        }
    )


def images_of() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((PATIENTS, 3, 4, 32, 32)).astype(np.float16)


def views_of(config: RunConfig) -> Views:
    present = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]).bool()
    x = torch.from_numpy(images_of().astype(np.float32))
    batch = Batch(x, present, torch.zeros(PATIENTS, dtype=torch.int64), torch.empty(PATIENTS, 0))
    return global_views(batch, 2, config.objective, 8, torch.Generator().manual_seed(3))


def moved_model(config: RunConfig) -> MultiModalViT:
    """In which mask token and modality embeddings are no longer zero."""
    model = build_model(config).eval()
    generator = torch.Generator().manual_seed(2)
    for value in model.parameters():
        value.data += 0.02 * torch.randn(value.shape, generator=generator)
    return model


def test_what_is_called_hidden_is_hidden_whole() -> None:
    views = views_of(config_of())
    assert views.hidden is not None
    assert views.masks is not None
    assert views.hidden.sum() > 4  # else this test says nothing
    assert views.masks.transpose(1, 2)[views.hidden].all()
    assert (views.present | ~views.hidden).all()


def test_hidden_modalities_computed_once_give_outputs_and_gradients_of_each_by_itself() -> None:
    config = config_of()
    views, model = views_of(config), moved_model(config)
    said, gradients = [], []
    for hidden in (None, views.hidden):
        output = model(views.x, views.present, views.masks, views.masks, None, hidden=hidden)
        (output.logits.sin().sum() + output.patch_logits.sin().sum()).backward()
        said.append(output)
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None})
        model.zero_grad()
    torch.testing.assert_close(said[0].embedding, said[1].embedding, rtol=0, atol=0)
    torch.testing.assert_close(said[0].patch_logits, said[1].patch_logits, rtol=0, atol=0)
    assert {"modality_embedding", "mask_token"} <= gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        assert float((gradients[1][name] - value).norm()) <= 1e-6 * float(value.norm()), name


def test_no_more_than_one_series_a_slice_and_hidden_modality_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    views, model = views_of(config), moved_model(config)
    assert views.hidden is not None
    lengths = []
    plain = model.backbone.encode

    def counted(z: torch.Tensor, start: int, *others: Any) -> torch.Tensor:
        lengths.extend([len(z)] * (start == 0))
        return plain(z, start, *others)

    monkeypatch.setattr(MultiModalViT, "encode", lambda _, *arguments: counted(*arguments))
    model.alone(views.x, views.present, views.masks, hidden=views.hidden)
    seen = int((views.present & ~views.hidden).sum())
    assert lengths == [3 * (seen + int(views.hidden.any(0).sum()))]


def test_a_round_moves_the_arrays_as_without_knowing_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    model = build_model(config)
    site = SiteData(
        "s", tuple(map(str, range(PATIENTS))), images_of(), np.ones((PATIENTS, 4), bool), np.arange(PATIENTS) % 3, "k"
    )
    start = get_arrays(model)
    found = train_round(model, start, site, config, round_number=2, site_seed=1).arrays
    plain, knew = step.view_outputs, []

    def without(model: Replicas, point: Any, views: tuple[Views, None], *others: Any) -> Any:
        knew.append(views[0].hidden)
        return plain(model, point, (replace(views[0], hidden=None), None), *others)

    monkeypatch.setattr("common.training.local.view_outputs", without)
    expected = train_round(model, start, site, config, round_number=2, site_seed=1).arrays
    assert any(hidden.any() for hidden in knew)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6, err_msg=name)
    assert any((array != start[name]).any() for name, array in expected.items())


@torch.no_grad()
def test_pieces_give_the_bytes_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    views, model = views_of(config), moved_model(config)
    whole = model.features(views.x, views.present, views.masks)
    lengths, plain = [], model.backbone.encode

    def counted(z: torch.Tensor, *others: Any) -> torch.Tensor:
        lengths.append(len(z))
        return plain(z, *others)

    monkeypatch.setattr(type(model.backbone), "encode", lambda _, *arguments: counted(*arguments))
    monkeypatch.setattr(multimodal, "PIECE", 4 * 4 * 17 * 160 * 4)  # four series of one modality
    pieces = model.features(views.x, views.present, views.masks)
    assert max(lengths) == 4
    assert torch.equal(pieces.patches, whole.patches)
    assert torch.equal(pieces.cls, whole.cls)
