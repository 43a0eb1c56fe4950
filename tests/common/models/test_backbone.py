import hashlib
import tomllib
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from common.config.run import load_config
from common.config.sections import ModelConfig
from common.errors import ConfigError, WeightsError
from common.models.backbones.create import create_backbone
from common.models.backbones.weights import SHIPPED, SHIPPED_FILES, file_sha256, find_weights
from common.models.public_features import SHIPPED_PUBLIC
from simulation.example import copy_weights

CHECKOUT = Path(__file__).parents[3]
SMALL = "vit_tiny_patch16_224"


def test_a_local_file_gives_timms_own_output(real_weights: Path) -> None:
    backbone, digest = create_backbone(ModelConfig(backbone="deit_tiny_patch16_224", weights=str(real_weights)), 224)
    vit = cast(Any, backbone.module)
    theirs: Any = timm.create_model("deit_tiny_patch16_224", num_classes=1000, checkpoint_path=str(real_weights))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(vit.eval().forward_features(x), theirs.eval().forward_features(x))
    assert digest == file_sha256(real_weights)
    assert len(digest) == 64


def test_positions_are_resampled_to_another_size(real_weights: Path) -> None:
    backbone, _ = create_backbone(ModelConfig(backbone="deit_tiny_patch16_224", weights=str(real_weights)), 112)
    assert backbone.module.get_parameter("pos_embed").shape[1] == 7 * 7 + 1


def test_the_official_dinov2_pth_layout_loads(tmp_path: Path) -> None:
    """The official files are timm's names plus a mask token, at 518 pixels: made here, since the hub cannot be reached."""
    official = timm.create_model("vit_small_patch14_dinov2.lvd142m", num_classes=0).state_dict()
    torch.save({**official, "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14_pretrain.pth")
    config = ModelConfig(weights=str(tmp_path / "dinov2_vits14_pretrain.pth"))
    backbone, _ = create_backbone(config, 98)
    assert torch.equal(backbone.module.get_parameter("blocks.3.mlp.fc1.weight"), official["blocks.3.mlp.fc1.weight"])
    assert backbone.module.get_parameter("pos_embed").shape[1] == 7 * 7 + 1


def test_another_architecture_is_refused_and_named(tmp_path: Path) -> None:
    save_file(timm.create_model(SMALL, num_classes=0).state_dict(), tmp_path / "tiny.safetensors")
    for other in ("vit_small_patch16_224", "vit_small_patch14_reg4_dinov2"):
        with pytest.raises(WeightsError, match=rf"tiny.safetensors.*{other}"):
            create_backbone(ModelConfig(backbone=other, weights=str(tmp_path / "tiny.safetensors")), 112)


@pytest.mark.slow
def test_weights_are_never_silently_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        create_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / "absent.safetensors")), 64)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable was read when timm was imported
    with pytest.raises(WeightsError, match="hub"):
        create_backbone(ModelConfig(backbone="vit_small_patch14_dinov2.lvd142m", weights="hub"), 56)
    create_backbone(ModelConfig(backbone=SMALL, weights="random"), 64)


def test_damaged_and_pickled_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    torch.save({"weight": Path}, tmp_path / "code.pth")  # a class: needs unpickling of more than tensors
    for name in ("torn.safetensors", "code.pth"):
        with pytest.raises(WeightsError, match=name):
            create_backbone(ModelConfig(backbone=SMALL, weights=str(tmp_path / name)), 64)


@pytest.mark.parametrize(
    ("name", "said"), [("vit_giant_nonsense", "timm knows no"), ("convnext_atto", "vision transformer, or a ResNet")]
)
def test_only_plain_vision_transformers(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_backbone(ModelConfig(backbone=name, weights="random"), 64)


def test_a_size_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.size: 100 .* take 98"):
        create_backbone(ModelConfig(weights="random"), 100)


@pytest.mark.parametrize(
    ("name", "file", "sha256", "document"),
    [
        (
            "phantom",
            "fedmri_vit_mini.safetensors",
            "60c1cd7366762127f6f08d0dcc5d59ea21fab216c14de354ba559b1c4d0cfbbc",
            "docs/results.md",
        ),
        (
            "phantom-tissue",
            "fedmri_vit_mini_tissue.safetensors",
            "8141bcc7151b719694d49c732a7b538e67771b5dc569390a5a1544d6266d3def",
            "docs/results.md",
        ),
    ],
)
def test_a_shipped_file_is_small_fits_and_is_the_one_that_is_documented(name: str, file: str, sha256: str, document: str) -> None:
    path = find_weights(name)
    assert (path.parent, path.name) == (SHIPPED.parent, file)
    assert path.stat().st_size < 4 * 2**20
    backbone, found = create_backbone(ModelConfig(backbone="fedmri_vit_mini", weights=name), 64)
    assert found == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256 in (CHECKOUT / document).read_text(encoding="utf-8")
    first = load_file(path)["blocks.0.attn.qkv.weight"].float()
    torch.testing.assert_close(backbone.module.get_parameter("blocks.0.attn.qkv.weight"), first, rtol=0, atol=0)


@pytest.mark.parametrize("recipe", ["demo", "private"])
def test_old_configurations_keep_the_first_file(recipe: str) -> None:
    config = load_config(CHECKOUT / "tests" / "fixtures" / "2a60dec" / "configs" / f"{recipe}.toml")
    assert find_weights(config.model.weights) == SHIPPED


def test_every_shipped_file_is_in_the_package_and_is_copied_for_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["common.models"]
    packed = {file for pattern in patterns for file in (CHECKOUT / "common" / "models").glob(pattern)}
    assert packed == {*SHIPPED_FILES.values(), *SHIPPED_PUBLIC.values()}
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path))
    copy_weights()
    for file in SHIPPED_PUBLIC.values():
        assert (tmp_path / "weights" / file.name).read_bytes() == file.read_bytes()
    for name, file in SHIPPED_FILES.items():
        assert (tmp_path / "weights" / file.name).read_bytes() == file.read_bytes()
        monkeypatch.setitem(SHIPPED_FILES, name, tmp_path / "absent" / file.name)  # as in a bundle
        assert find_weights(name) == tmp_path / "weights" / file.name
