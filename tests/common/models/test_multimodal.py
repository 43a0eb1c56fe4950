from typing import Any

import pytest
import timm
import torch

from common.config.run import RunConfig, config_from_table
from common.models.build import build_model
from common.models.multimodal import MultiModalViT


def model_of(backbone: str = "fedmri_vit_mini", size: int = 32, **model: Any) -> MultiModalViT:
    return build_model(config_of(backbone, size, **model)).eval()


def config_of(backbone: str, size: int, **model: Any) -> RunConfig:
    return config_from_table({"model": {"backbone": backbone, "weights": "random", **model}, "data": {"size": size}})


def patients(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(4, 2, 4, size, size, generator=torch.Generator().manual_seed(1))
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]]).bool()
    return x, present


BACKBONES = [
    ("fedmri_vit_mini", 32),
    ("vit_tiny_patch16_224", 32),
    ("vit_small_patch14_reg4_dinov2", 28),
    ("vit_small_patch16_dinov3", 32),
]


@pytest.mark.slow
@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize(("backbone", "size"), BACKBONES)
@torch.inference_mode()
def test_one_modality_without_embedding_is_the_plain_backbone(backbone: str, size: int, joint: int) -> None:
    """With one modality present and a zero embedding the tokens are exactly timm's own."""
    model = model_of(backbone, size, joint_blocks=joint)
    x, _ = patients(size)
    present = torch.tensor([[0, 0, 1, 0]]).bool().expand(4, -1)
    found = model.features(x, present)
    images = (x[:, 0, 2].unsqueeze(1) - model.pixel_mean) / model.pixel_std
    theirs = model.vit.forward_features(images)
    torch.testing.assert_close(found.cls[:, 0], theirs[:, 0])
    torch.testing.assert_close(found.patches[:, 0, 2], theirs[:, model.vit.num_prefix_tokens :])


@pytest.mark.parametrize(("backbone", "size"), BACKBONES)
@torch.inference_mode()
def test_absent_modalities_contribute_no_tokens(backbone: str, size: int) -> None:
    model = model_of(backbone, size)
    x, present = patients(size)
    garbage = torch.where(present.view(4, 1, 4, 1, 1), x, torch.full_like(x, 1e3))
    first, second = model(x, present), model(garbage, present)
    torch.testing.assert_close(first.logits, second.logits, rtol=0, atol=0)


@torch.inference_mode()
def test_a_batch_of_patterns_equals_one_patient_at_a_time() -> None:
    model = model_of()
    x, present = patients()
    together = model(x, present).logits
    alone = torch.cat([model(x[i : i + 1], present[i : i + 1]).logits for i in range(4)])
    torch.testing.assert_close(together, alone)


@torch.inference_mode()
def test_modalities_attend_to_each_other_as_one_sequence() -> None:
    """Against a hand-made sequence: CLS, then every present modality's patches, through timm's blocks."""
    model = model_of()
    model.modality_embedding.normal_(generator=torch.Generator().manual_seed(0))
    x, _ = patients()
    vit = model.vit
    sequence = [vit.cls_token + vit.pos_embed[:, :1]]
    for m in (0, 3):
        patches = vit.patch_embed.proj((x[:1, 0, m].expand(1, 3, 32, 32) - 0.5) / 0.5).flatten(2).transpose(1, 2)
        sequence.append(patches + vit.pos_embed[:, 1:] + model.modality_embedding[m])
    expected = vit.norm(vit.blocks(torch.cat(sequence, 1)))
    found = model.features(x[:1, :1], torch.tensor([[True, False, False, True]]))
    torch.testing.assert_close(found.cls[0, 0], expected[0, 0])
    torch.testing.assert_close(found.patches[0, 0, 3], expected[0, 17:])


@torch.inference_mode()
def test_modalities_may_meet_in_the_last_blocks_only() -> None:
    """Against timm's own blocks: each modality alone through the first three, then one sequence with the mean CLS."""
    model = model_of(joint_blocks=2)
    x, _ = patients()
    vit = model.vit
    apart = []
    for m in (1, 2):
        z = vit._pos_embed(vit.patch_embed((x[:1, 0, m].expand(1, 3, 32, 32) - 0.5) / 0.5))
        apart.append(vit.blocks[:3](z))
    joined = torch.cat([(apart[0][:, :1] + apart[1][:, :1]) / 2, apart[0][:, 1:], apart[1][:, 1:]], 1)
    expected = vit.norm(vit.blocks[3:](joined))
    found = model.features(x[:1, :1], torch.tensor([[False, True, True, False]]))
    torch.testing.assert_close(found.cls[0, 0], expected[0, 0])
    torch.testing.assert_close(found.patches[0, 0, 2], expected[0, 17:])


@torch.inference_mode()
def test_an_embedding_keeps_modalities_apart_and_is_zero_for_absent_ones() -> None:
    model = model_of()
    x, present = patients()
    parts = model(x, present).embedding.view(4, 5, -1)
    features = model.features(x, present)
    mean = features.patches[0, :, 2].mean((0, 1))
    torch.testing.assert_close(parts[0, 3], (mean - mean.mean()) / (mean.var(unbiased=False) + 1e-5).sqrt())
    assert torch.equal((parts[:, 1:] == 0).all(2), ~present)


@torch.inference_mode()
def test_masked_patches_are_not_seen() -> None:
    model = model_of()
    model.mask_token.fill_(0.3)
    x, present = patients()
    masks = torch.zeros(4, 2, 4, 16).bool()
    masks[:, :, 3, 5] = True
    changed = x.clone()
    changed[:, :, 3, 8:16, 8:16] = 0  # patch 5 of a 4 x 4 grid of 8 pixels
    torch.testing.assert_close(model(x, present, masks).logits, model(changed, present, masks).logits)
    assert not torch.equal(model(x, present).logits, model(changed, present).logits)


@torch.inference_mode()
def test_slices_are_pooled_in_any_order() -> None:
    model = model_of()
    x, present = patients()
    torch.testing.assert_close(model(x, present).embedding, model(x.flip(1), present).embedding)


@pytest.mark.slow
def test_what_travels_is_small() -> None:
    """The issue's limits: 3% of a ViT-S, 1.5% of a ViT-B, projection head included."""
    for name, share in (("vit_small_patch14_dinov2", 0.03), ("vit_base_patch14_dinov2", 0.015)):
        trained = sum(p.numel() for p in model_of(name, 28).parameters() if p.requires_grad)
        backbone = sum(p.numel() for p in timm.create_model(name, num_classes=0, img_size=28).parameters())
        assert trained <= share * backbone


def test_equal_configurations_give_equal_models() -> None:
    one, two = model_of().state_dict(), model_of().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
