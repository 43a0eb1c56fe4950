"""timm's plain vision transformers: ViT, DeiT (Touvron et al., 2021), DINOv2 (Oquab et al., 2023), with registers (Darcet et al.,
2024), and DINOv3 (Siméoni et al., 2025), which timm builds of `Eva`.

They are only names in the configuration. timm converts the official `.pth` files and resamples position embeddings; files of
transformers are renamed first (`layouts`).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from common.errors import ConfigError, WeightsError
from common.models.backbones.backbone import Backbone, Tokens, require_whole_patches
from common.models.backbones.dinov3_file import prepared, without_registers
from common.models.backbones.layouts import fitted_patches, official_names
from common.models.backbones.named import NAMED, timm_name
from common.models.without_compiler import without_compiler

with without_compiler():
    import timm
    from timm.models import register_model
    from timm.models.eva import Eva
    from timm.models.eva import checkpoint_filter_fn as filter_eva
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit

EXPECTED = "a plain vision transformer, or a ResNet, DenseNet or VGG"


@register_model
def fedmri_vit_mini(pretrained: bool = False, **kwargs: object) -> VisionTransformer:
    """A ViT of 1.6 M parameters for 64-pixel slices, small enough to be shipped: 8-pixel patches, width 160, 5 blocks."""
    del pretrained  # its weights are the shipped file, named by `model.weights = "phantom"`
    settings: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 160, "depth": 5, "num_heads": 5, **kwargs}
    for timms_own in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        settings.pop(timms_own, None)
    return VisionTransformer(**settings)


@dataclass(frozen=True, eq=False)
class TimmViT(Backbone):
    """A timm ViT made with `dynamic_img_size=True`."""

    vit: VisionTransformer | Eva

    attends: ClassVar[bool] = True
    linear_maps: ClassVar[Mapping[str, str]] = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    mlp: ClassVar[str] = "mlp"

    @classmethod
    def knows(cls, name: str) -> bool:
        """By timm's own list, and that of `named`."""
        return bool(timm.is_model(timm_name(name)[0]))

    @classmethod
    def near(cls, name: str) -> list[str]:
        """Those of timm that begin alike."""
        own = [other for other in NAMED if other.startswith(name[:3])]
        return own + list(timm.list_models(f"*{name.split('.', 1)[0][:8]}*")[:4])

    @classmethod
    def create(cls, name: str, size: int, *, filled: bool = False) -> Self:
        """Untrained; where every weight will be replaced, timm need not draw them first, which takes as long as all else."""
        settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "img_size": size, "dynamic_img_size": True}
        architecture, own = timm_name(name)
        settings |= own
        try:
            with contextlib.suppress(TypeError):  # an architecture that cannot be told so
                if filled:
                    return cls.of(timm.create_model(architecture, **settings, weight_init="skip"), name, size)
            vit = timm.create_model(architecture, **settings)
        except TypeError as error:  # an architecture that knows no image size
            raise ConfigError(f"model.backbone: expected {EXPECTED}, '{name}' is neither ({error}).") from error
        return cls.of(vit, name, size)

    @classmethod
    def from_hub(cls, name: str, size: int) -> Self:
        """Download through timm; if the weights cannot be had, the error says how to get them."""
        cls.create(name, size)
        if timm_name(name)[1]:
            where = f": get it from {NAMED[name].source}" if name in NAMED else ""
            raise WeightsError(
                f"Backbone {name}: timm's hub has no weights of it. Name a local file with --set weights=FILE{where}."
            )
        try:
            vit = timm.create_model(name, pretrained=True, num_classes=0, img_size=size, dynamic_img_size=True)
        except Exception as error:  # the hub's libraries raise many kinds; none may end in random weights
            raise WeightsError(
                f"Backbone {name}: its pre-trained weights could not be had from the hub ({type(error).__name__}). On a machine "
                f"with a network, `python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` fills the hub's "
                "cache; or name a local safetensors or .pth file with --set weights=FILE."
            ) from error
        return cls.of(vit, name, size)

    @classmethod
    def of(cls, vit: nn.Module, name: str, size: int) -> Self:
        """A module that timm made. Only plain ViTs have the one grid of patch tokens that every modality shares."""
        if not isinstance(vit, VisionTransformer | Eva):
            raise ConfigError(f"model.backbone: expected {EXPECTED}, '{name}' is a {type(vit).__name__}.")
        backbone = cls(vit)
        require_whole_patches(size, backbone.patch, name)
        return backbone

    def own_arrays(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """By timm's own filters; the head of a classifier is left out."""
        wanted = self.vit.state_dict()
        state = fitted_patches(official_names(state), self.patch)
        if isinstance(self.vit, Eva):
            found = without_registers(filter_eva(prepared(state, self.vit), self.vit))
        else:
            found = filter_vit(state, self.vit)
        return {name: array for name, array in found.items() if name in wanted or not name.startswith(("head", "fc_norm"))}

    @property
    def module(self) -> nn.Module:
        """timm's own."""
        module: nn.Module = self.vit
        return module

    @property
    def width(self) -> int:
        """D."""
        return int(self.vit.embed_dim)

    @property
    def patch(self) -> int:
        """Edge of a patch in pixels."""
        return int(self.vit.patch_embed.patch_size[0])

    @property
    def prefixes(self) -> int:
        """R."""
        return int(self.vit.num_prefix_tokens)

    @property
    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By timm's configuration of the weights."""
        settings: dict[str, tuple[float, ...]] = getattr(self.vit, "pretrained_cfg", None) or {}
        return settings.get("mean", (0.5, 0.5, 0.5)), settings.get("std", (0.5, 0.5, 0.5))

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        return list(self.vit.blocks.children())

    def block_width(self, block: nn.Module) -> int:
        """D."""
        del block
        return self.width

    def norms(self, blocks: list[nn.Module]) -> Iterator[nn.Parameter]:
        """`norm1` and `norm2` of blocks, `norm` and `fc_norm` behind them."""
        for block in blocks:
            yield from (value for name, value in block.named_parameters() if name.startswith("norm"))
        yield from (value for name, value in self.module.named_parameters() if name.startswith(("norm.", "fc_norm.")))

    def grid(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] to [n, h, w, D]."""
        found: Tensor = self.vit.patch_embed(images)
        return found

    def tokens(self, grid: Tensor) -> Tokens:
        """timm adds positions and prefix tokens in one call; `Eva` gives its rotary positions beside them."""
        placed = self.vit._pos_embed(grid)
        placed, rope = placed if isinstance(placed, tuple) else (placed, None)
        return Tokens(placed[:1, : self.prefixes], placed[:, self.prefixes :], rope)

    def encode(self, z: Tensor, start: int, stop: int, rope: Tensor | None = None, attended: Tensor | None = None) -> Tensor:
        """[n, N, D] to [n, N, D]."""
        told = {"rope": rope, "attn_mask": attended}
        given = {name: value for name, value in told.items() if value is not None}
        blocks = self.blocks
        z = z if start else self.vit.norm_pre(z)
        for block in blocks[start:stop]:
            z = block(z, **given)
        z = self.vit.norm(z) if stop == len(blocks) else z
        return z

    def features(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] to [n, N, D]."""
        found: Tensor = self.vit.forward_features(images)
        return found
