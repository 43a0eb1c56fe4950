"""3D encoders behind the protocol: numbers against MONAI's own ViT, missing modalities, adapters, and what is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.vit import ViT
from safetensors.torch import save_file
from torch import Tensor

from common.config.run import RunConfig, load_config
from common.data.dataset import SiteData
from common.errors import ConfigError, WeightsError
from common.models.arrays import get_arrays
from common.models.backbones import named
from common.models.backbones.create import create_backbone, family_of
from common.models.backbones.licence import weights_licence
from common.models.backbones.monai_vit import MonaiViT
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.training.local import train_round
from common.training.predict import frozen_features
from common.training.private import private_round

CONFIGS = Path(__file__).parents[3] / "configs"
MINI = ("backbone=fedmri_cube_mini", "data.size=32", "data.slices=32", "slices_per_step=32")


def config_of(*settings: str) -> RunConfig:
    return load_config(CONFIGS / "brainiac.toml", (*MINI, "weights=random", "blocks=0", *settings))


def monais() -> ViT:
    """MONAI's own, of the small architecture, with positions and biases that are not zero."""
    torch.manual_seed(3)
    shape = named.VOLUMES["fedmri_cube_mini"]
    vit = ViT(1, (32,) * 3, (8,) * 3, shape.width, shape.hidden, shape.depth, shape.heads, save_attn=True)
    for value in vit.parameters():
        torch.nn.init.normal_(value, std=0.1)
    return vit.eval()


def saved(vit: ViT, path: Path) -> Path:
    """As BrainIAC's file has it: under `backbone.`, with SimCLR's projection beside it, in a table of other things."""
    state = {f"backbone.{name}": array for name, array in vit.state_dict().items()}
    state |= {"projection_head.0.weight": torch.zeros(2, 2), "backbone.blocks.0.cross_attn.to_q.weight": torch.zeros(3)}
    torch.save({"state_dict": state, "epoch": 7}, path)
    return path


def volumes(patients: int = 2) -> Tensor:
    """x [B, S, M, H, W]; air is 0."""
    x = torch.rand(patients, 32, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return torch.where(x < 0.3, 0.0, x)


def as_monai_takes_them(x: Tensor) -> Tensor:
    """[n, S, H, W] of 0 to 1 as z-scores [n, 1, X, Y, Z] towards left, back and top (LPS), by hand."""
    z = torch.where(x > 0, x * 8 - 3, 0.0)
    return torch.stack([torch.stack([torch.stack([z[n, :, :, i] for i in range(32)])]) for n in range(len(z))]).transpose(3, 4)


@torch.inference_mode()
def test_a_file_in_brainiacs_layout_gives_monais_own_numbers(tmp_path: Path) -> None:
    vit, x = monais(), volumes()
    assert sum(name.endswith("qkv.weight") for name in vit.state_dict()) == 2
    file = saved(vit, tmp_path / "BrainIAC.pth")
    model = build_model(config_of(f"weights={file}", "adapter=head")).eval()
    theirs = vit(as_monai_takes_them(x[:, :, 1]))[0]  # [n, g g g, D], the first axis that of columns
    found = model.backbone.features(model.pixels(x[:, :, 1]))
    ordered = theirs.unflatten(1, (4, 4, 4)).permute(0, 3, 2, 1, 4).flatten(1, 3)  # layers, rows, columns
    torch.testing.assert_close(found[:, 1:], ordered, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:, 0], theirs.mean(1), atol=1e-5, rtol=1e-5)
    arrays = vit.state_dict()
    save_file(arrays, tmp_path / "plain.safetensors")
    plain, _ = create_backbone(config_of(f"weights={tmp_path / 'plain.safetensors'}").model, 32)
    assert torch.equal(plain.module.get_parameter("blocks.1.mlp.fc2.weight"), arrays["blocks.1.mlp.linear2.weight"])


def test_a_file_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    state = monais().state_dict()
    without = {name: array for name, array in state.items() if not name.startswith("blocks.1.")}
    more = {**state, "cls_token": torch.zeros(1, 1, 48)}
    for number, (arrays, said) in enumerate(((without, "lacks 'blocks.1"), (more, "also has 'cls_token'"))):
        save_file(arrays, tmp_path / f"{number}.safetensors")
        with pytest.raises(WeightsError, match=said):
            build_model(config_of(f"weights={tmp_path / f'{number}.safetensors'}"))
    with pytest.raises(WeightsError, match=r"get it from github.com/AIM-KannLab/BrainIAC"):
        MonaiViT.from_hub("brainiac", 96)


def test_brainiac_has_the_size_that_is_told_of_it() -> None:
    """88.3 million parameters, by the card of huggingface.co/nidl-neurospin/brainiac-vit-b, and 6 x 6 x 6 cubes."""
    with torch.device("meta"):
        backbone = MonaiViT.create("brainiac", 96)
    assert round(sum(value.numel() for value in backbone.module.parameters()) / 1e6, 1) == 88.3
    assert backbone.module.get_parameter("pos_embed").shape == (1, 216, 768)
    assert family_of("brainiac") is MonaiViT
    config = load_config(CONFIGS / "brainiac.toml")
    assert "academic research only" in weights_licence(config.model)
    with pytest.raises(ConfigError, match=r"data.size: brainiac .* 96 voxels .* got 64"):
        MonaiViT.create("brainiac", 64)


@torch.inference_mode()
def test_a_modality_is_seen_by_itself_and_an_absent_one_counts_for_nothing() -> None:
    model, x = build_model(config_of("adapter=head")).eval(), volumes()
    present = torch.tensor([[True, True, False, True], [False, True, False, False]])
    cls, patches = model.features(x, present)
    assert patches.shape == (2, 4, 4, 16, 48)
    for row, seen in enumerate(present):
        alone = model.backbone.features(model.pixels(x[row].transpose(0, 1)))  # [M, 1 + 64, D]
        torch.testing.assert_close(patches[row].transpose(0, 1).flatten(1, 2)[seen], alone[seen, 1:])
        torch.testing.assert_close(cls[row].mean(0), alone[seen, 0].mean(0))
    assert not patches[~present.view(2, 1, 4).expand(-1, 4, -1)].any()
    other = x.clone()
    other[:, :, 2] = 0.9  # what nobody has may hold anything
    torch.testing.assert_close(model(other, present).embedding, model(x, present).embedding)
    hidden = torch.zeros(2, 4, 4, 16, dtype=torch.bool)
    hidden[:, :, 1] = True
    assert not torch.equal(model(x, present, hidden).embedding[0], model(x, present).embedding[0])


@pytest.mark.parametrize(
    ("adapter", "part"),
    [
        ("lora", "attn.qkv.lora_b"),
        ("dora", "attn.qkv"),
        ("bottleneck", "mlp.up"),
        ("bitfit", "attn.proj.bias"),
        ("full", "patch_embed"),
    ],
)
def test_adapters_start_as_the_frozen_encoder_and_learn(adapter: str, part: str) -> None:
    x, present = volumes(), torch.ones(2, 4, dtype=torch.bool)
    plain, model = build_model(config_of("adapter=head")), build_model(config_of(f"adapter={adapter}"))
    torch.testing.assert_close(model.features(x, present).cls, plain.features(x, present).cls, atol=1e-6, rtol=1e-5)
    masks = torch.rand(2, 4, 4, 16, generator=torch.Generator().manual_seed(2)) < 0.3
    model(x, present, masks).embedding.square().sum().backward()
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    learns = [name for name, value in named.items() if name.startswith("vit.") and value.grad is not None]
    assert any(part in name for name in learns)


def site_of(patients: int = 4) -> SiteData:
    images = volumes(patients).numpy().astype(np.float16)
    present = np.ones((patients, 4), bool)
    present[0, 1:3] = False
    images[~present[:, None].repeat(32, 1)] = 0
    ids = tuple(f"sub-{n}" for n in range(patients))
    return SiteData("site", ids, images, present, np.arange(patients) % 3, "key")


@pytest.mark.parametrize("private", [False, True])
def test_a_tuning_round_moves_adapters(private: bool) -> None:
    own = (
        "privacy.enabled=true",
        "objective.terms.dino=0",
        "objective.terms.koleo=0",
        "evaluation.holdout=0",
        "centre_features=false",
    )
    more = (
        *own,
        "objective.terms.classification.class_balance=none",
        "head_optimizer=adamw",
        "privacy.steps=1",
        "privacy.sample_rate=1.0",
    )
    config = config_of("head_rounds=0", "rounds=1", "precision=fp32", "centre_features=false", *(more if private else ()))
    model, patients = build_model(config), site_of()
    start = get_arrays(model)

    def once() -> dict[str, Any]:
        if private:
            return private_round(model, start, patients, config, round_number=1, site_seed=5, charge=lambda cost: None).arrays
        return train_round(model, start, patients, config, round_number=1, site_seed=5).arrays

    after = once()
    assert any("lora_b" in name and np.any(after[name] != start[name]) for name in start)
    if not private:  # whose noise nobody can draw again
        assert all(np.array_equal(array, after[name]) for name, array in once().items())


def test_frozen_features_are_the_mean_over_cubes() -> None:
    config, patients = config_of("adapter=head"), site_of()
    model = build_model(config)
    found = frozen_features(model, patients, config)
    assert found.shape == (4, 4, 96)
    assert np.isnan(found[0, 1:3]).all()
    with torch.inference_mode():
        alone = model.backbone.features(model.pixels(patients.take([2]).x[:, :, 3]))
    np.testing.assert_allclose(found[2, 3, 48:], alone[0, 1:].mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("joint_blocks=1", r"model.joint_blocks = 1 cannot run with data.axes = \[\"volume\"\].*Set model.joint_blocks = 0"),
        ("objective.terms.ibot=0.1", "ibot.weight = 0.1 cannot run"),
        ("local_crops=2", "objective.local_crops = 2 cannot run"),
        ("data.slices=16", r"data.slices = 16 cannot run .*Set data.slices = 32"),
        ("slices_per_step=1", r"slices_per_step = 1 cannot run .*= 32"),
        ("through=tumour", 'Set data.through = "brain"'),
        ("intensity=percentiles", 'Set data.intensity = "zscore"'),
        ("pooling=centre", "model.pooling = 'centre' cannot run"),
        ("pooling=guided", "model.pooling = 'guided' cannot run"),
        ("data.field_of_view=[100.0, 192.0]", "it is the edge of one cube"),
        ('data.axes=["volume", "coronal"]', "holds the slices of every axis"),
        ("backbone=fedmri_vit_mini", 'needs a 3D encoder, and model.backbone = "fedmri_vit_mini" sees slices'),
    ],
)
def test_what_is_of_slices_is_refused_by_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(config_of(setting))


def test_an_encoder_of_volumes_refuses_slices() -> None:
    with pytest.raises(ConfigError, match=r"fedmri_cube_mini sees whole volumes, and data.axes is"):
        build_model(
            load_config(
                CONFIGS / "images.toml",
                ("backbone=fedmri_cube_mini", "weights=random", "data.size=32", "joint_blocks=0", "objective.terms.ibot=0"),
            )
        )


def test_embeddings_keep_their_width() -> None:
    model = build_model(config_of())
    assert isinstance(model, MultiModalViT)
    said = model(volumes(), torch.ones(2, 4, dtype=torch.bool))
    assert said.embedding.shape == (2, 5 * 48)
