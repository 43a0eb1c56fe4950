"""The features that protocols are given: what the untouched backbone makes of a patient, three ways.

N patients, S slices, M modalities, D width, F features.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training.forward import Function, embed, forward_batches
from common.training.predict import frozen_features
from simulation.protocols.protocol import Floats

CHANNELS = 3
TUMOUR = ("t1c", "t2", "flair")  # the three that show enhancing tumour, tumour and oedema
TOKENS = "multi-modality tokens"


@dataclass(frozen=True, eq=False)
class Input:
    """One kind of features.

    Attributes:
        name: in tables.
        sites: [N, F] of each group of patients, NaN where absent.
        seconds: of processors, for all groups together.
    """

    name: str
    sites: tuple[Floats, ...]
    seconds: float


def channels_of(asked: Sequence[str], modalities: Sequence[str]) -> tuple[int, ...]:
    """Which modalities become colour channels; by default the tumour's three, else the first three; () where there are fewer.

    Args:
        asked: three names, or none for the default.
        modalities: of the run.

    Raises:
        ConfigError: not three different modalities of the run.
    """
    if not asked:
        names = TUMOUR if set(TUMOUR) <= set(modalities) else tuple(modalities[:CHANNELS])
        return tuple(modalities.index(name) for name in names) if len(names) == CHANNELS else ()
    if len(asked) != CHANNELS or len(set(asked)) != CHANNELS or not set(asked) <= set(modalities):
        raise ConfigError(f"--fusion: expected three different ones of {', '.join(modalities)}; got {', '.join(asked)}.")
    return tuple(modalities.index(name) for name in asked)


def all_inputs(model: MultiModalViT, groups: Sequence[SiteData], config: RunConfig, channels: tuple[int, ...]) -> list[Input]:
    """Every kind of features of some groups of patients.

    - All modalities' tokens in one sequence, as MM-DINOv2 has them, pooled to one embedding a patient (`patient_embedding`).
    - Early fusion: three modalities as the colours of one image; an absent one is black. CLS and mean patch token.
    - Each modality by itself: the same two. All come from one pass, whose time is told in equal parts.

    Args:
        model: fresh from `build_model`.
        groups: patients, with M modalities.
        config: of the run.
        channels: as `channels_of` gives them; (): no early fusion.
    """
    names = config.data.modalities
    started = time.process_time()
    tokens = [_run(model, group, config, embed) for group in groups]
    found = [Input(TOKENS, tuple(tokens), time.process_time() - started)]
    if channels:
        started = time.process_time()
        fused = [_run(model, group, config, partial(_fused, channels=list(channels))) for group in groups]
        found.append(Input(f"early fusion: {', '.join(names[c] for c in channels)}", tuple(fused), time.process_time() - started))
    started = time.process_time()
    alone = [frozen_features(model, group, config) for group in groups]
    each = (time.process_time() - started) / len(names)
    return found + [Input(f"{name} alone", tuple(x[:, m] for x in alone), each) for m, name in enumerate(names)]


def _run(model: MultiModalViT, patients: SiteData, config: RunConfig, function: Function) -> Floats:
    """[N, F] in float64."""
    rows = [batch.float().cpu().numpy() for batch in forward_batches(TrainedModel(model, {}, config), patients, function)]
    return np.concatenate(rows).astype(np.float64)


def _fused(model: MultiModalViT, x: Tensor, present: Tensor, _: Tensor, channels: list[int]) -> Tensor:
    """Three modalities as one image through the plain backbone [B, 2D]; NaN where a patient has none of them."""
    B, S = x.shape[:2]
    images = (x[:, :, channels].flatten(0, 1) - model.pixel_mean) / model.pixel_std
    tokens = model.backbone.features(images)
    parts = torch.cat([tokens[:, 0], tokens[:, model.backbone.prefixes :].mean(1)], dim=-1).float()
    found = parts.view(B, S, -1).mean(1)
    return torch.where(present[:, channels].any(1, keepdim=True), found, torch.nan)
