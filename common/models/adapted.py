"""Adapters (`common.adapters`) put into a frozen backbone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.adapters.adapter import Adapter
from common.adapters.lora import residual_start
from common.config.sections import ModelConfig
from common.errors import ConfigError
from common.models.backbones.backbone import Backbone

MLP = "mlp"  # as a place of `Adapter.places`; the others are linear maps


class Adapted(nn.Module):
    """A frozen map and what an adapter trains beside it: all adapters are this module.

    Args:
        frozen: the map, a linear one or not.
        adapter: computes the adapted one.
        values: the arrays to train, which become parameters of these names.
    """

    def __init__(self, frozen: nn.Module, adapter: Adapter, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.frozen = frozen
        self.adapter = adapter
        self.names = tuple(values)
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value))

    @property
    def values(self) -> dict[str, Tensor]:
        """The trained arrays as they are now: `torch.func.functional_call` may have lent others."""
        return {name: getattr(self, name) for name in self.names}

    @property
    def weight(self) -> Tensor:
        """The adapted matrix, [out, in]; timm's DINOv3 attention reads it to compute q, k, v at once."""
        return self.adapter.weight(_linear(self.frozen).weight, self.values)

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return _linear(self.frozen).bias

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return _linear(self.frozen).in_features

    def forward(self, x: Tensor) -> Tensor:
        """As the frozen map: [B, N, in] to [B, N, out]."""
        weight, bias = (self.frozen.weight, self.frozen.bias) if isinstance(self.frozen, nn.Linear) else (None, None)
        return self.adapter.forward(self.frozen, weight, bias, self.values, x)

    def merged(self) -> nn.Linear:
        """One linear map with the same outputs, added up in float64 so that only the last step rounds."""
        frozen = _linear(self.frozen)
        linear = nn.Linear(frozen.in_features, frozen.out_features, bias=frozen.bias is not None).to(frozen.weight.device)
        with torch.no_grad():
            values = {name: value.double() for name, value in self.values.items()}
            linear.weight.copy_(self.adapter.weight(frozen.weight.double(), values))
            if frozen.bias is not None:
                linear.bias.copy_(frozen.bias)
        return linear


def _linear(frozen: nn.Module) -> nn.Linear:
    """The frozen map, where it is a linear one; tracers ask any module for what a linear map has."""
    if not isinstance(frozen, nn.Linear):
        raise AttributeError(f"expected a linear map, got {type(frozen).__name__}")
    return frozen


def adapt(backbone: Backbone, config: ModelConfig, generator: torch.Generator, residual: int = 0) -> None:
    """Freeze the backbone in place and add what `config.adapter` trains.

    Args:
        backbone: changed in place.
        config: the adapter, and the number of last blocks that get it (0: all).
        generator: for the starting values, so that every site starts from the same ones.
        residual: rank of what travels beside each pair of low-rank factors (`federation.low_rank`); 0: nothing does.

    Raises:
        ConfigError: more blocks, or other targets, than the backbone has.
    """
    adapter, blocks = config.adapter, _chosen_blocks(backbone, config)
    backbone.module.requires_grad_(adapter.trains_backbone)
    for block in blocks:
        for place in adapter.places:
            _wrap(block, place, backbone, config, generator, residual)
        for name, parameter in block.named_parameters():
            if adapter.trains(name):
                parameter.requires_grad_(True)
    if config.train_norms and adapter.trains_norms:
        for parameter in backbone.norms(blocks):
            parameter.requires_grad_(True)


def _chosen_blocks(backbone: Backbone, config: ModelConfig) -> list[nn.Module]:
    """The last `config.blocks` blocks, or all."""
    blocks = backbone.blocks
    if config.joint_blocks and not backbone.attends:
        raise ConfigError(
            f"model.joint_blocks: in {config.backbone} nothing attends, so modalities meet behind its last stage, not in its "
            f"last {config.joint_blocks} blocks. Set it to 0."
        )
    for name in ("blocks", "joint_blocks"):
        if getattr(config, name) > len(blocks):
            raise ConfigError(f"model.{name}: {config.backbone} has {len(blocks)} blocks, got {getattr(config, name)}.")
    return blocks[-config.blocks :] if config.blocks else blocks


def _wrap(
    block: nn.Module, place: str, backbone: Backbone, config: ModelConfig, generator: torch.Generator, residual: int
) -> None:
    """Put the adapter around one map of one block."""
    if place != MLP and not backbone.linear_maps:
        raise ConfigError(
            f"model.adapter: '{config.adapter.name}' changes linear maps, and {config.backbone} has none in its stages. Take "
            "bottleneck (behind each stage), bitfit, full or head; with bitfit, bottleneck or head, train_norms trains its norms."
        )
    linear = place in backbone.linear_maps
    owner_path, _, attribute = (backbone.linear_maps[place] if linear else backbone.mlp).rpartition(".")
    owner = block.get_submodule(owner_path)
    frozen = getattr(owner, attribute, None)
    if not isinstance(frozen, nn.Linear if linear else nn.Module):
        raise ConfigError(f"model.adapter.targets: a block of {config.backbone} has no linear map '{place}'.")
    weight = frozen.weight if isinstance(frozen, nn.Linear) else None
    values = config.adapter.start(weight, backbone.block_width(block), generator)
    if residual and weight is not None and config.adapter.pairs:
        values |= residual_start(weight.detach(), residual)
    setattr(owner, attribute, Adapted(frozen, config.adapter, values))
