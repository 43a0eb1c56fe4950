"""Weights files of other libraries, in the names of the official DINOv2 code, which timm reads: one table of names for each.

D width, p edge of a patch.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# transformers' Dinov2Model, Dinov2WithRegistersModel and ViTModel (DINO, MAE, DeiT, ViT); replaced in this order.
TRANSFORMERS = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.register_tokens", "register_tokens"),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("encoder.layer.", "blocks."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".mlp.weights_in.", ".mlp.w12."),  # of the gated MLP that ViT-g has
    (".mlp.weights_out.", ".mlp.w3."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("layernorm.", "norm."),
    ("classifier.", "head."),
)
KNOWN_BY = "embeddings.patch_embeddings.projection.weight"
PARTS = re.compile(r"(blocks\.\d+\.)attention\.attention\.(query|key|value)\.(weight|bias)")
LEFT_OUT = ("pooler.", "decoder.", "decoder_")  # a pooler behind CLS; what MAE's pre-training paints images with


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's arrays by official names; other layouts than those of transformers as they are.

    Raises:
        ValueError: a block has not all three of query, key and value.
    """
    state = {name: array for name, array in state.items() if not name.startswith(LEFT_OUT)}
    known = next((name for name in state if name.endswith(KNOWN_BY)), None)
    if known is None:
        return state
    prefix = known.removesuffix(KNOWN_BY)  # "dinov2.", "vit.": of a model with a head
    return _joined({_renamed(name.removeprefix(prefix)): array for name, array in state.items()})


def _renamed(name: str) -> str:
    for theirs, official in TRANSFORMERS:
        name = name.replace(theirs, official)
    return name


def _joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as the one map that the official code has."""
    found, parts = dict[str, Tensor](), dict[str, dict[str, Tensor]]()
    for name, array in state.items():
        if part := PARTS.fullmatch(name):
            parts.setdefault(f"{part[1]}attn.qkv.{part[3]}", {})[part[2]] = array
        elif not name.startswith(LEFT_OUT):
            found[name] = array
    for name, three in parts.items():
        if len(three) != 3:
            raise ValueError(f"of query, key and value it has only {', '.join(three)} of {name}")
        found[name] = torch.cat([three["query"], three["key"], three["value"]])
    return found


def fitted_patches(state: Mapping[str, Tensor], patch: int) -> dict[str, Tensor]:
    """Patch embeddings of grey images as ones of three equal channels, with the same sum.

    Args:
        state: with `patch_embed.proj.weight` [D, 1 or 3, p, p].
        patch: p of the architecture.

    Raises:
        ValueError: patches of another size: resampled, they would be another backbone.
    """
    name = "patch_embed.proj.weight"
    weight = state.get(name)
    if weight is None or weight.ndim != 4:
        return dict(state)
    if weight.shape[-1] != patch:
        raise ValueError(f"its patches have {weight.shape[-1]} pixels, the architecture's {patch}")
    if weight.shape[1] == 1:
        return {**state, name: weight.expand(-1, 3, -1, -1) / 3}
    return dict(state)
