"""From configuration to model: the same arrays at every site and at the server, for equal configurations."""

from dataclasses import replace

import torch

from common.config.run import RunConfig
from common.models.adapted import adapt
from common.models.backbones.backbone import Backbone
from common.models.backbones.create import create_backbone
from common.models.covariates import CovariateLogits
from common.models.head import PrototypeHead
from common.models.linear_head import LinearHead
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
        backbone, sha256 = create_backbone(config.model, config.data.size)
    chosen = replace(config.model, train_norms=True) if "norms" in config.personal.keep else config.model
    adapt(backbone, chosen, generator, config.federation.low_rank.residual_rank)
    model = assemble(backbone, config, generator)
    model.backbone_name, model.backbone_sha256 = config.model.backbone, sha256
    return model


def assemble(backbone: Backbone, config: RunConfig, generator: torch.Generator) -> MultiModalViT:
    """Tokens and head around a backbone.

    Args:
        backbone: adapted already (`adapt`).
        config: modalities, covariates, `model` and the task's number of outputs are read.
        generator: for the starting values of the head, then of the pooling.
    """
    modalities, width = len(config.data.modalities), backbone.width
    head = _head((1 + modalities) * width, width, config, generator)
    pooling = config.model.pooling
    start = pooling.start(modalities, width, generator)
    return MultiModalViT(
        backbone, modalities, head, config.model.joint_blocks, (pooling, start), centred=config.model.centre_features
    )


def _head(embedding: int, width: int, config: RunConfig, generator: torch.Generator) -> PrototypeHead | LinearHead:
    """By `model.head`, for patients' embeddings of a width and patch tokens of another."""
    model, known, outputs = config.model, config.data.covariates, config.task.outputs + config.model.prototypes
    covariates = CovariateLogits(known, len(config.task.classes)) if known else None
    if model.head == "linear":
        return LinearHead(embedding, width, outputs, covariates)
    return PrototypeHead(embedding, width, model.head_hidden, model.head_bottleneck, outputs, generator, covariates)
