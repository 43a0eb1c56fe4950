"""What is trained on a frozen ViT: LoRA, bottleneck adapters, BitFit, the head only, or everything.

LoRA: Hu et al., ICLR 2022, eq. 3. Bottleneck: Houlsby et al., ICML 2019, placed after the MLP, in the residual branch. BitFit:
Ben Zaken et al., ACL 2022. B batch, N tokens, D width, r rank.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.config.run import ModelConfig
from common.errors import ConfigError

# Attention and MLP names of timm's ViT and of its Eva (DINOv3).
_PLACES = {"qkv": ("attn", "qkv"), "proj": ("attn", "proj"), "fc1": ("mlp", "fc1"), "fc2": ("mlp", "fc2")}


class LoRALinear(nn.Module):
    """A frozen linear map plus a trained low-rank one: `y = W x + b + (alpha / r) B A x`. B starts at zero.

    The frozen map runs with gradients on: an adapter of an earlier block learns only through it.
    """

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.frozen = frozen
        self.scale = alpha / rank
        bound = math.sqrt(3.0 / frozen.in_features)  # variance 1 / D, as for a linear layer of gain 1
        start = torch.rand(rank, frozen.in_features, generator=generator) * 2 - 1
        self.lora_a = nn.Parameter(start * bound)
        self.lora_b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    @property
    def weight(self) -> Tensor:
        """The merged matrix W + (alpha / r) B A, [out, in]; timm's DINOv3 attention reads it to compute q, k, v at once."""
        return self.frozen.weight + self.scale * (self.lora_b @ self.lora_a)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.frozen.bias

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.frozen.in_features

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, in] to [B, N, out]."""
        low: Tensor = nn.functional.linear(x, self.lora_a)
        frozen: Tensor = self.frozen(x)
        return frozen + self.scale * nn.functional.linear(low, self.lora_b)


class BottleneckMlp(nn.Module):
    """A frozen MLP followed by `x + U gelu(V x)`, U starting at zero."""

    def __init__(self, frozen: nn.Module, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Parameter(torch.randn(rank, width, generator=generator) / math.sqrt(width))
        self.up = nn.Parameter(torch.zeros(width, rank))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        y: Tensor = self.frozen(x)
        inner = nn.functional.gelu(nn.functional.linear(y, self.down))
        return y + nn.functional.linear(inner, self.up)


def adapt(vit: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Freeze the backbone in place and add what `config.adapter` trains.

    Args:
        vit: a timm ViT with `blocks`.
        config: kind, rank, alpha, targets, and the number of last blocks that get adapters (0: all).
        generator: for the starting values, so that every site starts from the same ones.

    Raises:
        ConfigError: more blocks, or other targets, than the backbone has.
    """
    blocks = _chosen_blocks(vit, config)
    vit.requires_grad_(config.adapter == "full")
    for block in blocks:
        if config.adapter == "lora":
            _add_lora(block, config, generator)
        elif config.adapter == "bottleneck":
            block.mlp = BottleneckMlp(block.mlp, vit.embed_dim, config.rank, generator)  # type: ignore[arg-type]
        elif config.adapter == "bitfit":
            _train(block, lambda name: name.endswith("bias"))
        if config.train_norms and config.adapter not in ("head", "full"):
            _train(block, lambda name: name.startswith("norm"))
    if config.train_norms and config.adapter not in ("head", "full"):
        _train(vit, lambda name: name.startswith(("norm.", "fc_norm.")))


def _chosen_blocks(vit: nn.Module, config: ModelConfig) -> list[nn.Module]:
    """The last `config.blocks` blocks, or all."""
    blocks = list(vit.blocks.children())  # type: ignore[union-attr]
    for name in ("blocks", "joint_blocks"):
        if getattr(config, name) > len(blocks):
            raise ConfigError(f"model.{name}: {config.backbone} has {len(blocks)} blocks, got {getattr(config, name)}.")
    return blocks[-config.blocks :] if config.blocks else blocks


def _add_lora(block: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Wrap the targeted linear maps of one block."""
    for target in config.targets:
        owner_name, attribute = _PLACES[target]
        owner = getattr(block, owner_name)
        linear = getattr(owner, attribute, None)
        if not isinstance(linear, nn.Linear):
            raise ConfigError(f"model.targets: a block of {config.backbone} has no linear map '{target}'.")
        setattr(owner, attribute, LoRALinear(linear, config.rank, config.alpha, generator))


def _train(module: nn.Module, wanted: Callable[[str], bool]) -> None:
    """Unfreeze the parameters whose name is wanted."""
    for name, parameter in module.named_parameters():
        if wanted(name):
            parameter.requires_grad_(True)
