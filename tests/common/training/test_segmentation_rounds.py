"""Rounds that train a decoder: what moves, who teaches, and that what can be learned is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, config_from_table
from common.data.augmentation import apply_crops, apply_geometry, sample_crops
from common.data.dataset import WHOLE, SiteData
from common.data.whole import Whole
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.segment import as_network, segment
from common.training.trainable import trained_names
from common.training.views import global_views, some_slices


def config_of(**changes: object) -> RunConfig:
    table: dict[str, object] = {
        "data": {"size": 32, "slices": 2, "modalities": ["t1", "flair"], "through": "brain", "shift": 4.0},
        "task": {"name": "segmentation", "decoder": {"name": "unet", "width": 8}},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "head": "linear", "head_hidden": 0, "prototypes": 8},
        "objective": {
            "local_crops": 0,
            "terms": {"segmentation": {"weight": 1.0}, "classification": {"weight": 0.0}, "dino": {"weight": 0.1}},
        },
        "training": {"batch_size": 4, "precision": "fp32", "warmup_rounds": 0},
        "federation": {"rounds": 2},
        "evaluation": {"every": 0},
    }
    return config_from_table(
        {name: {**table.get(name, {}), **changes.get(name, {})} for name in table.keys() | changes.keys()}  # type: ignore[dict-item]
    )


def site_of(patients: int = 4, *, drawn: bool = True, seed: int = 0) -> SiteData:
    """Bright discs on dark noise; the disc is the tumour."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    middle = generator.integers(8, 24, (patients, 2, 2))
    discs = ((y - middle[..., :1, None]) ** 2 + (x - middle[..., 1:, None]) ** 2 < 36)[:, :, None]
    images = generator.random((patients, 2, 2, 32, 32)) * 0.2 + 0.6 * discs
    lesions = discs[:, :, 0] * np.uint8(WHOLE) if drawn else np.zeros((patients, 2, 32, 32), np.uint8)
    labels = np.full(patients, 0 if drawn else -1, np.int64)
    present = np.ones((patients, 2), bool)
    present[0, 1] = False
    images[0, :, 1] = 0
    ids = tuple(f"sub-{n}" for n in range(patients))
    return SiteData("site", ids, images.astype(np.float16), present, labels, "key", lesions=lesions.astype(np.uint8))


def changed(start: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in start if not np.array_equal(start[name], after[name])}


def test_a_round_is_a_pure_function_and_moves_decoder_and_adapters() -> None:
    config, site = config_of(), site_of()
    model = build_model(config)
    start = get_arrays(model)
    first, second = (train_round(model, start, site, config, round_number=1, site_seed=3) for _ in range(2))
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in start)
    moved = changed(start, first.arrays)
    assert {name for name in start if name.startswith("decoder.")} <= moved
    assert any("lora" in name for name in moved)
    assert first.labelled == 4
    assert first.metrics["segmentation"] > 0


def test_patients_without_a_mask_teach_by_the_other_terms_alone() -> None:
    config, site = config_of(), site_of(drawn=False)
    model = build_model(config)
    start = get_arrays(model)
    update = train_round(model, start, site, config, round_number=1, site_seed=3)
    assert update.labelled == 0
    assert update.metrics["segmentation"] == 0
    assert update.metrics["dino"] > 0
    decay = {name for name in changed(start, update.arrays) if name.startswith("decoder.")}
    for name in decay:  # weight decay alone: no gradient gave them a direction
        ratio = update.arrays[name][start[name] != 0] / start[name][start[name] != 0]
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)
    assert any("lora" in name for name in changed(start, update.arrays))


def test_a_frozen_backbone_stays_as_it_is() -> None:
    config = config_of(model={"adapter": "head", "train_tokens": False}, objective={"local_crops": 0, "terms": TERMS})
    model = build_model(config)
    start = get_arrays(model)
    moved = changed(start, train_round(model, start, site_of(), config, round_number=1, site_seed=3).arrays)
    assert {name.partition(".")[0] for name in moved} == {"decoder"}


TERMS = {
    "segmentation": {"weight": 1.0},
    "classification": {"weight": 0.0},
    **{n: {"weight": 0.0} for n in ("dino", "ibot", "koleo")},
}


def test_self_supervised_rounds_leave_the_decoder() -> None:
    config = config_of(training={"ssl_rounds": 1}, model={"head": "prototypes", "head_hidden": 8})
    names = sorted(get_arrays(build_model(config)))
    assert not [name for name in trained_names(names, config, 1) if name.startswith("decoder.")]
    assert [name for name in trained_names(names, config, 2) if name.startswith("decoder.")]


@pytest.mark.parametrize("joint", [0, 2])
def test_tokens_of_several_blocks_are_those_of_a_backbone_cut_short(joint: int) -> None:
    """Reading tokens on the way changes neither the last ones nor the answer for a patient."""
    config = config_of(model={"joint_blocks": joint})
    model, x = build_model(config).eval(), torch.rand(2, 2, 2, 32, 32)
    present = torch.tensor([[True, True], [True, False]])
    with torch.no_grad():
        plain, dense = model(x, present), model(x, present, dense=True)
        torch.testing.assert_close(plain.embedding, dense.embedding)
        assert plain.dense is None
        assert dense.dense.shape == (2, 2, 32, 32)
        _, levels = model.levels(model.alone(x, present, None, (1, 4, 5)), present, (1, 4, 5))
        prefix, tokens, rope = model.tokens(x, None)
        z = torch.cat([prefix.expand(2, -1, -1), tokens[1, :, 0]], dim=1)  # the patient with one modality: nothing to meet
        for depth in (1, 4, 5):
            expected = model.backbone.encode(z, 0, depth, rope)[:, prefix.shape[1] :]
            torch.testing.assert_close(levels[depth][1, :, 0], expected, atol=1e-5, rtol=1e-4)
            assert not levels[depth][1, :, 1].any()


def test_masks_follow_their_images_through_every_crop() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 2, 16, 16, generator=generator) < 0.5).float()
    crops = sample_crops(3, 1, (0.5, 1.0), generator)
    plain = replace(crops, gamma=torch.ones(3, 1), gain=torch.ones(3, 1), ramp=torch.zeros(3, 2))
    torch.testing.assert_close(apply_geometry(masks, crops, 16), apply_crops(masks.unsqueeze(2), plain, 16)[:, :, 0])


def test_what_can_be_learned_is_learned_and_windows_make_a_whole() -> None:
    """Discs brighter than noise: after a short training the model finds unseen ones, in slices larger than its windows."""
    config = config_of(
        model={"adapter": "head", "train_tokens": False},
        objective={"local_crops": 0, "terms": TERMS},
        training={"batch_size": 4, "local_epochs": 12, "head_learning_rate": 5e-3, "slices_per_step": 2, "precision": "fp32"},
        federation={"rounds": 1},
    )
    model = build_model(config)
    arrays = train_round(model, get_arrays(model), site_of(12), config, round_number=1, site_seed=0).arrays
    y, x = np.mgrid[:48, :48]
    truth = ((y - 14) ** 2 + (x - 30) ** 2 < 40)[None]
    images = (np.random.default_rng(5).random((1, 2, 48, 48)) * 0.2 + 0.6 * truth[:, None]).astype(np.float32)
    whole = Whole(images, np.ones(2, bool), (23.5, 23.5), 1.0, (48, 48, 1), (1.0, 1.0, 1.0))
    found = segment(as_network(TrainedModel(model, arrays, config)), whole, 32)[..., 0] > 0.5
    there = truth[0].T[::-1, ::-1]  # columns run against X, rows against Y
    assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.8


def test_masks_are_those_of_the_slices_and_of_each_view() -> None:
    """Images that are the masks themselves: after drawing slices and views both still mark the same."""
    site = site_of(6)
    assert site.lesions is not None
    images = np.repeat((site.lesions > 0)[:, :, None], 2, axis=2).astype(np.float16)
    config = config_of(objective={"local_crops": 0, "modality_dropout": 0.0, "terms": TERMS})
    generator = torch.Generator().manual_seed(4)
    batch = some_slices(replace(site, images=images).take(range(6), lesions=True), 1, generator)
    assert batch.lesions is not None
    torch.testing.assert_close(batch.x[:, :, 0], batch.lesions)
    views = global_views(batch, 2, config.objective, 8, generator)
    assert views.lesions is not None
    seen, marked = views.x[:, :, 0] > 0.5, views.lesions > 0.5
    assert views.lesions.shape == (12, 1, 32, 32)
    assert 2 * float((seen & marked).sum()) / float(seen.sum() + marked.sum()) > 0.9
    assert not torch.equal(views.lesions[:6], views.lesions[6:])  # two views are two crops
