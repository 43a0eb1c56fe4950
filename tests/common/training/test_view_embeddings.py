"""Views of head rounds: masked crops of some slices, each drawn once, from the patient's own randomness."""

from collections import OrderedDict
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training import kept, probing, view_embeddings
from common.training.local import train_round
from common.training.view_embeddings import embed_views


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_memory", OrderedDict())


def config_of(seed: int = 0, **objective: Any) -> RunConfig:
    return config_from_table(
        {
            "seed": seed,
            "data": {"size": 32, "slices": 3},
            "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2, "centre_features": True},
            "training": {"head_views": 6, "head_rounds": 2},
            "evaluation": {"batch_size": 4},
            "objective": {"modality_dropout": 0.5, **objective},
        }
    )


def site_of(patients: int = 6) -> SiteData:
    images = np.random.default_rng(0).random((patients, 3, 4, 32, 32)).astype(np.float16)
    ids = tuple(map(str, range(patients)))
    return SiteData("a", ids, images, np.ones((patients, 4), bool), np.arange(patients) % 3, "key")


class Showing(torch.nn.Module):
    """A model that hands on what it was shown."""

    patch_size, thickness, width, backbone_sha256 = 8, 1, 1, ""

    def alone(
        self, x: torch.Tensor, present: torch.Tensor, masks: torch.Tensor, *, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert masks.transpose(1, 2)[hidden].all()
        return x, masks


def tell(_: Any, shown: tuple[torch.Tensor, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
    """[B, 7]: modalities, number of slices, share of hidden patches, mean intensity."""
    x, masks = shown
    rest = [torch.full((len(x),), float(x.shape[1])), masks.float().mean((1, 2, 3)), x.mean((1, 2, 3, 4))]
    return torch.cat([present.float(), torch.stack(rest, 1)], 1)


def test_they_are_masked_crops_of_one_to_all_slices_and_lack_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_embeddings, "embed_alone", tell)
    trained = TrainedModel(cast(MultiModalViT, Showing()), {}, config_of())
    shown = embed_views(trained, site_of(), range(6)).numpy()
    assert shown.shape == (6, 6, 7)
    assert shown[:, 0, 4].tolist() == [1, 2, 3, 1, 2, 3]
    assert (shown[..., 5] > 0).any()
    assert (shown[..., :4].sum(-1) >= 1).all()
    assert (shown[..., :4] == 0).any()
    assert len({view.tobytes() for view in shown}) == 6
    assert len(set(shown[0, :, 6].tolist())) == 6


def test_a_view_is_the_same_whoever_else_is_there_and_whenever_it_is_asked_for() -> None:
    config = config_of()
    model, site = build_model(config), site_of()
    arrays = get_arrays(model)
    arrays["feature_centre"] = np.full_like(arrays["feature_centre"], 0.1)
    trained = TrainedModel(model, arrays, config)
    every = embed_views(trained, site, range(4)).numpy()
    kept.forget()
    alone = embed_views(trained, site.select([5, 2]), [3]).numpy()
    assert alone.tobytes() == every[3][[5, 2]].tobytes()
    parts = every.reshape(4, 6, 5, -1)
    absent = (parts == 0).all(-1)
    assert absent.any()  # an absent modality stays zero, and so it is told from one that is there
    assert not absent[:, :, 0].any()
    np.testing.assert_allclose(parts[~absent].mean(-1), -0.1 * model.width**0.5, atol=1e-5)


@pytest.mark.parametrize(("centred", "views"), [(False, [0, 6, 12]), (True, [0, 6])])
def test_every_head_round_that_trains_has_its_own(monkeypatch: pytest.MonkeyPatch, centred: bool, views: list[int]) -> None:
    """A round that measures the mean features is none of them."""
    asked = list[int]()

    def counted(trained: TrainedModel, patients: SiteData, numbers: range) -> torch.Tensor:
        assert len(numbers) == 6
        asked.append(numbers[0])
        return torch.zeros(len(numbers), len(patients), 5 * trained.model.width)

    monkeypatch.setattr(probing, "embed_views", counted)
    config = replace(config_of(), training=replace(config_of().training, head_rounds=3, head_steps=1))
    config = replace(config, model=replace(config.model, centre_features=centred))
    model = build_model(config)
    for number in (1, 2, 3):
        train_round(model, get_arrays(model), site_of(2), config, round_number=number, site_seed=1)
    assert asked == views


@pytest.mark.parametrize("other", [{"seed": 1}, {"block_mask_share": 1.0}])
def test_another_seed_or_way_of_drawing_gives_other_views(other: dict[str, Any]) -> None:
    model, site = build_model(config_of()), site_of(2)
    one, two = (
        embed_views(TrainedModel(model, get_arrays(model), config), site, [0]) for config in (config_of(), config_of(**other))
    )
    assert not torch.equal(one, two)
