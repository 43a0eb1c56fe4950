"""Weights files in the layouts of other libraries, tiny ones made here: what the loaded backbone computes, and refusals."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.layers.mlp import SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention, silu

from common.config.sections import ModelConfig
from common.errors import WeightsError
from common.models.backbones import create
from common.models.backbones.create import create_backbone
from common.models.backbones.licence import weights_licence
from common.models.backbones.timm_vit import TimmViT

State = dict[str, Tensor]
D, HEADS, PATCH, SIZE = 16, 2, 4, 12
TINY: dict[str, Any] = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": D, "depth": 2, "num_heads": HEADS}
ViT = dict[str, Any]


def load(vit: nn.Module, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TimmViT:
    """As the configuration's file of an architecture that is this small one."""
    small = TimmViT.of(vit.eval(), "small", SIZE)
    monkeypatch.setattr(create, "empty_backbone", lambda *_, **__: small)
    save_file({name: array.contiguous() for name, array in state.items()}, tmp_path / "small.safetensors")
    create_backbone(ModelConfig(backbone="small", weights=str(tmp_path / "small.safetensors")), SIZE)
    return small


def drawn(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / math.sqrt(shape[-1]) for name, shape in shapes.items()}


def transformers_file(*, registers: int, gated: bool, channels: int = 3, prefix: str = "") -> State:
    """Names and shapes of `Dinov2Model.state_dict()`, and of `Dinov2WithRegistersModel.state_dict()`."""
    hidden = 2 * D
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, D),
        "embeddings.mask_token": (1, D),
        "embeddings.position_embeddings": (1, 1 + (SIZE // PATCH) ** 2, D),
        "embeddings.patch_embeddings.projection.weight": (D, channels, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (D,),
        "layernorm.weight": (D,),
        "layernorm.bias": (D,),
    }
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, D)
    mlp = {"weights_in": (2 * hidden, D), "weights_out": (D, hidden)} if gated else {"fc1": (hidden, D), "fc2": (D, hidden)}
    maps = {f"attention.attention.{part}": (D, D) for part in ("query", "key", "value")}
    maps |= {"attention.output.dense": (D, D)} | {f"mlp.{name}": shape for name, shape in mlp.items()}
    for n in range(2):
        layer = f"encoder.layer.{n}."
        for name, shape in maps.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale1.lambda1", "layer_scale2.lambda1"):
            shapes[layer + name] = (D,)
    return {prefix + name: array for name, array in drawn(shapes).items()}


def by_hand(state: State, images: Tensor) -> Tensor:
    """DINOv2's encoder from the file's own names, without any model: [n, 3, H, W] to [n, N, D]."""
    e, n = "embeddings.", len(images)
    patches = nn.functional.conv2d(
        images, state[e + "patch_embeddings.projection.weight"], state[e + "patch_embeddings.projection.bias"], stride=PATCH
    )
    z = torch.cat([state[e + "cls_token"].expand(n, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    z = z + state[e + "position_embeddings"]
    if e + "register_tokens" in state:
        z = torch.cat([z[:, :1], state[e + "register_tokens"].expand(n, -1, -1), z[:, 1:]], dim=1)
    for number in range(2):
        layer = {name.removeprefix(f"encoder.layer.{number}."): array for name, array in state.items()}

        def linear(x: Tensor, name: str, layer: State = layer) -> Tensor:
            return x @ layer[name + ".weight"].T + layer[name + ".bias"]

        y = layer_norm(z, (D,), layer["norm1.weight"], layer["norm1.bias"], 1e-6)
        q, k, v = (
            linear(y, f"attention.attention.{part}").view(n, -1, HEADS, D // HEADS).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        y = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        z = z + linear(y, "attention.output.dense") * layer["layer_scale1.lambda1"]
        y = layer_norm(z, (D,), layer["norm2.weight"], layer["norm2.bias"], 1e-6)
        if "mlp.weights_in.weight" in layer:
            gate, value = linear(y, "mlp.weights_in").chunk(2, dim=-1)
            y = linear(silu(gate) * value, "mlp.weights_out")
        else:
            y = linear(gelu(linear(y, "mlp.fc1")), "mlp.fc2")
        z = z + y * layer["layer_scale2.lambda1"]
    return layer_norm(z, (D,), state["layernorm.weight"], state["layernorm.bias"], 1e-6)


def dinov2(*, registers: int, gated: bool) -> VisionTransformer:
    own: dict[str, Any] = {"mlp_ratio": 4.0, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if gated else {"mlp_ratio": 2.0}
    own |= {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    return VisionTransformer(**TINY, init_values=1e-5, num_classes=0, dynamic_img_size=True, **own)


@pytest.mark.parametrize(
    ("registers", "gated", "prefix"), [(0, False, ""), (4, False, "dinov2_with_registers."), (0, True, "dinov2.")]
)
@torch.inference_mode()
def test_a_dinov2_file_of_transformers_computes_what_its_arrays_say(
    registers: int, gated: bool, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = transformers_file(registers=registers, gated=gated, prefix=prefix)
    backbone = load(dinov2(registers=registers, gated=gated), state, tmp_path, monkeypatch)
    x = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    plain = {name.removeprefix(prefix): array for name, array in state.items()}
    torch.testing.assert_close(backbone.features(x), by_hand(plain, x), atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_file_for_grey_images_sees_three_equal_channels_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = transformers_file(registers=0, gated=False, channels=1)
    backbone = load(dinov2(registers=0, gated=False), state, tmp_path, monkeypatch)
    grey = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(backbone.features(grey.expand(-1, 3, -1, -1)), by_hand(state, grey), atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_vit_file_of_transformers_is_the_same_with_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViTModel's, as of DINO and MAE, with a pooler and MAE's decoder, which are left out: here renamed from timm's by hand."""
    vit = VisionTransformer(**TINY, num_classes=0, dynamic_img_size=True).eval()
    x = torch.rand(1, 3, SIZE, SIZE)
    expected = vit.forward_features(x)
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks": "encoder.layer",
        "attn.proj": "attention.output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    state: State = {"vit.pooler.dense.weight": torch.zeros(D, D), "decoder.mask_token": torch.zeros(1, 1, D)}
    for name, array in vit.state_dict().items():
        theirs = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
        for ours, other in names.items():
            theirs = theirs.replace(ours, other)
        parts = ("query", "key", "value") if "attn.qkv" in theirs else ("",)
        for part, own in zip(parts, array.clone().chunk(len(parts)), strict=True):
            state[f"vit.{theirs.replace('attn.qkv', f'attention.attention.{part}')}"] = own
    blank = VisionTransformer(**TINY, num_classes=0, dynamic_img_size=True)
    torch.testing.assert_close(load(blank, state, tmp_path, monkeypatch).features(x), expected)


def dinov3(*, registers: int, biases: bool = False) -> Eva:
    own: dict[str, Any] = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_rotate_half": True}
    own |= {"use_fc_norm": False, "init_values": 1e-5, "qkv_bias": biases, "num_reg_tokens": registers, "mlp_ratio": 2.0}
    return Eva(**TINY, num_classes=0, dynamic_img_size=True, **own)


def dinov3_file(vit: Eva, *, bias: float = 0.0) -> State:
    """The official names of timm's arrays, with what timm leaves out."""
    names = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens"}
    state: State = {"mask_token": torch.zeros(1, D), "rope_embed.periods": torch.ones(D // HEADS // 4)}
    for name, array in vit.state_dict().items():
        if name.endswith(("q_bias", "v_bias")):
            continue
        for ours, official in names.items():
            name = name.replace(ours, official)  # noqa: PLW2901
        state[name] = array.clone()
    for n in range(2):
        state[f"blocks.{n}.attn.qkv.bias"] = torch.full((3 * D,), bias)
        state[f"blocks.{n}.attn.qkv.bias_mask"] = torch.full((3 * D,), math.nan)
    return state


@pytest.mark.parametrize("registers", [0, 4])
@torch.inference_mode()
def test_a_dinov3_file_with_and_without_registers(registers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = dinov3(registers=registers).eval()
    x = torch.rand(1, 3, SIZE, SIZE)
    backbone = load(dinov3(registers=registers), dinov3_file(trained), tmp_path, monkeypatch)
    assert backbone.prefixes == 1 + registers
    torch.testing.assert_close(backbone.features(x), trained.forward_features(x))


@torch.inference_mode()
def test_dinov3s_biases_of_queries_and_values_are_loaded_where_there_is_a_place_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = dinov3_file(dinov3(registers=4), bias=0.5)
    found = load(dinov3(registers=4, biases=True), state, tmp_path, monkeypatch).module.state_dict()
    assert all((found[f"blocks.{n}.attn.{part}_bias"] == 0.5).all() for n in range(2) for part in "qv")


def _short(state: State) -> State:
    return {name: array for name, array in state.items() if "key.weight" not in name}


@pytest.mark.parametrize(
    ("vit", "state", "said"),
    [
        (lambda: dinov3(registers=4), lambda: dinov3_file(dinov3(registers=0)), "without registers.*_reg0"),
        (lambda: dinov3(registers=0), lambda: dinov3_file(dinov3(registers=4)), "with 4 registers"),
        (lambda: dinov3(registers=4), lambda: dinov3_file(dinov3(registers=4), bias=0.5), "not zero.*_qkvb"),
        (lambda: dinov2(registers=0, gated=False), lambda: _short(transformers_file(registers=0, gated=False)), "query, value"),
        (
            lambda: VisionTransformer(**{**TINY, "patch_size": 6}, num_classes=0, dynamic_img_size=True),
            lambda: transformers_file(registers=0, gated=False),
            "have 4 pixels, the architecture's 6",
        ),
        (lambda: dinov2(registers=0, gated=False), lambda: transformers_file(registers=4, gated=False), "another architecture"),
    ],
)
def test_what_does_not_fit_is_refused_and_says_why(
    vit: Callable[[], nn.Module], state: Callable[[], State], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=said):
        load(vit(), state(), tmp_path, monkeypatch)


def test_names_without_registers_and_beside_timm(tmp_path: Path) -> None:
    backbone, _ = create_backbone(ModelConfig(backbone="vit_tiny_patch16_dinov3_qkvb_reg0", weights="random"), 32)
    assert backbone.prefixes == 1
    with pytest.raises(WeightsError, match="raidium/curia"):
        create_backbone(ModelConfig(backbone="curia", weights="hub"), 32)


@pytest.mark.parametrize(
    ("backbone", "weights", "said"),
    [
        ("curia", "curia.safetensors", "research only"),
        ("vit_base_patch16_224.mae", "mae.pth", "cc-by-nc-4.0"),
        ("vit_small_patch16_dinov3_reg0", "own.pth", "dinov3-license"),
        ("fedmri_vit_mini", "phantom", "apache-2.0"),
        ("resnet50.tv_in1k", "random", "not trained"),
    ],
)
def test_the_licence_is_said(backbone: str, weights: str, said: str) -> None:
    assert said in weights_licence(ModelConfig(backbone=backbone, weights=weights))
