"""From configuration to model: the same arrays at every site and at the server, for equal configurations."""

import torch
from torch import nn

from common.config.run import RunConfig
from common.models.adapters import adapt
from common.models.backbone import create_backbone
from common.models.head import PrototypeHead
from common.models.multimodal import MultiModalViT


def build_model(config: RunConfig) -> MultiModalViT:
    """Backbone, adapters, embeddings and head; starting values come from `config.seed` alone.

    Raises:
        ConfigError: an architecture, target or size that does not fit.
        WeightsError: weights that cannot be had, or that are of another architecture.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):  # timm draws untrained weights from the global generator
        torch.manual_seed(config.seed)
        vit, sha256 = create_backbone(config.model, config.data.size)
    adapt(vit, config.model, generator)
    model = assemble(vit, config, generator)
    model.backbone_name, model.backbone_sha256 = config.model.backbone, sha256
    return model


def assemble(vit: nn.Module, config: RunConfig, generator: torch.Generator) -> MultiModalViT:
    """Tokens and head around a backbone.

    Args:
        generator: for the head's starting values.
    """
    modalities, width = len(config.data.modalities), vit.embed_dim
    return MultiModalViT(
        vit,
        modalities,
        PrototypeHead(
            (1 + modalities) * width,  # type: ignore[operator,arg-type]
            width,  # type: ignore[arg-type]
            config.model.head_hidden,
            config.model.head_bottleneck,
            config.task.outputs + config.model.prototypes,
            generator,
        ),
        *_pixel_statistics(vit),
        config.model.joint_blocks,
    )


def _pixel_statistics(vit: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the backbone was trained with."""
    settings: dict[str, tuple[float, ...]] = getattr(vit, "pretrained_cfg", None) or {}
    return settings.get("mean", (0.5, 0.5, 0.5)), settings.get("std", (0.5, 0.5, 0.5))
