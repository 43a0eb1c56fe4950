"""From configuration to model: the same arrays at every site and at the server, for equal configurations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from common.config.axes import VOLUME, on_volumes
from common.config.run import RunConfig
from common.errors import ConfigError
from common.models.adapted import adapt
from common.models.backbones.backbone import Backbone
from common.models.backbones.create import create_backbone
from common.models.covariates import CovariateLogits
from common.models.head import PrototypeHead
from common.models.linear_head import LinearHead
from common.models.multimodal import Front, MultiModalViT
from common.models.public_features import CENTRE, PROJECTION, no_values, read_public
from common.pooling.pooling import POOL

Source = Literal["file", "wire", "nowhere"]


def build_model(config: RunConfig, *, public: Source = "file") -> MultiModalViT:
    """Backbone, adapters, embeddings and head; starting values come from `config.seed` alone.

    Args:
        config: of the run.
        public: where the run's public features come from, if it has any: their file; the wire, as all arrays that travel, so
            that the file need not be here; or nowhere, where they are about to be made.

    Raises:
        ConfigError: an architecture, target, size or loss term that does not fit, public features of another model.
        WeightsError: weights that cannot be had, or that are of another architecture.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):  # timm draws untrained weights from the global generator
        torch.manual_seed(config.seed)
        backbone, sha256 = create_backbone(config.model, config.data.size)
    _require_usable_terms(backbone, config)
    _require_same_view(backbone, config)
    chosen = replace(config.model, train_norms=True) if "norms" in config.personal.keep else config.model
    adapt(backbone, chosen, generator, config.federation.low_rank.residual_rank)
    found: Mapping[str, Tensor] | None = None
    if config.model.public_features and public == "file":
        found = {name: torch.from_numpy(array.copy()) for name, array in read_public(config, sha256).items()}
    elif config.model.public_features and public == "wire":
        found = no_values(config, backbone.width)
    model = assemble(backbone, config, generator, found)
    model.backbone_name, model.backbone_sha256 = config.model.backbone, sha256
    return model


def assemble(
    backbone: Backbone, config: RunConfig, generator: torch.Generator, public: Mapping[str, Tensor] | None = None
) -> MultiModalViT:
    """Tokens and head around a backbone.

    Args:
        backbone: adapted already (`adapt`).
        config: modalities, covariates, `model` and the task's number of outputs are read.
        generator: for the starting values of the head, then of the pooling, then of the decoder.
        public: arrays of `common.models.public_features`; None: the model has none.
    """
    modalities, width = len(config.data.modalities), backbone.width
    head = _head(config.model.public_width if public else (1 + modalities) * width, width, config, generator)
    pooling = config.model.pooling
    start = pooling.start(modalities, width, generator)
    if public and start:
        start = {name.removeprefix(POOL): value for name, value in public.items() if name.startswith(POOL)}
    centre = torch.zeros(1 + modalities, width) if config.model.centre_features else None
    front = Front(centre) if public is None else Front(public[CENTRE], public[PROJECTION])
    decoder, depth = config.task.decoder, len(backbone.blocks)
    dense = None
    if decoder:
        dense = (decoder, decoder.start(modalities, width, backbone.patch, len(decoder.reads(depth)), generator))
    return MultiModalViT(backbone, modalities, head, config.model.joint_blocks, (pooling, start), front, dense)


def _require_same_view(backbone: Backbone, config: RunConfig) -> None:
    """Refuse slices for a backbone of volumes, and volumes for one of slices."""
    name, whole = config.model.backbone, backbone.thickness > 1
    if whole and not on_volumes(config.data):
        raise ConfigError(
            f"model.backbone: {name} sees whole volumes, and data.axes is {list(config.data.axes)}. Set data.axes = "
            f'["{VOLUME}"], as configs/brainiac.toml does.'
        )
    if on_volumes(config.data) and not whole:
        raise ConfigError(
            f'data.axes = ["{VOLUME}"] needs a 3D encoder, and model.backbone = "{name}" sees slices. Set model.backbone = '
            '"brainiac", or data.axes = ["axial"].'
        )


def _require_usable_terms(backbone: Backbone, config: RunConfig) -> None:
    """Refuse a term that such a backbone could learn nothing by."""
    for term in config.objective.running():
        if term.needs_attention and not backbone.attends:
            raise ConfigError(
                f"objective.terms.{term.name}.weight: it asks what a hidden patch tells of those around it, and in "
                f"{config.model.backbone} no cell looks at another. Set it to 0."
            )


def _head(embedding: int, width: int, config: RunConfig, generator: torch.Generator) -> PrototypeHead | LinearHead:
    """By `model.head`, for patients' embeddings of a width and patch tokens of another."""
    model, known, outputs = config.model, config.data.covariates, config.task.outputs + config.model.prototypes
    covariates = CovariateLogits(known, len(config.task.classes)) if known else None
    if model.head == "linear":
        return LinearHead(embedding, width, outputs, covariates)
    return PrototypeHead(embedding, width, model.head_hidden, model.head_bottleneck, outputs, generator, covariates)
