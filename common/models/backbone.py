"""The frozen vision transformer: any timm ViT by name, weights from the hub or a local file, never silently random.

DINOv2 (Oquab et al., 2023), with registers (Darcet et al., 2024), DINOv3 (Siméoni et al., 2025) and DeiT (Touvron et al., 2021)
are only names in the configuration. timm converts the official `.pth` files and resamples position embeddings.
"""

import contextlib
import hashlib
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as filter_eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as filter_vit
from torch import Tensor, nn

from common.config.run import ModelConfig
from common.errors import ConfigError, WeightsError

SHIPPED = Path(__file__).parent / "weights" / "fedmri_vit_mini.safetensors"


@register_model
def fedmri_vit_mini(pretrained: bool = False, **kwargs: object) -> VisionTransformer:
    """A ViT of 1.6 M parameters for 64-pixel slices, small enough to be shipped: 8-pixel patches, width 160, 5 blocks."""
    del pretrained  # its weights are the shipped file, named by `model.weights = "phantom"`
    settings: dict[str, Any] = {"img_size": 64, "patch_size": 8, "embed_dim": 160, "depth": 5, "num_heads": 5, **kwargs}
    for timms_own in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        settings.pop(timms_own, None)
    return VisionTransformer(**settings)


def create_backbone(config: ModelConfig, size: int) -> tuple[nn.Module, str]:
    """Make the backbone with its weights.

    Args:
        config: names the architecture and where its weights come from.
        size: edge of a global crop in pixels.

    Returns:
        The module and the SHA-256 of its weights: of the file, or of the tensors where there is no file.

    Raises:
        ConfigError: no such architecture, or one that is no ViT.
        WeightsError: weights that cannot be had, or that do not fit.
    """
    if config.weights == "hub":
        vit = _from_hub(config.backbone, size)
        return vit, tensors_sha256(vit.state_dict())
    if config.weights == "random":
        vit = empty_backbone(config.backbone, size)
        return vit, tensors_sha256(vit.state_dict())
    path = find_weights(config.weights)
    vit = empty_backbone(config.backbone, size, filled=True)
    _load(vit, path, config.backbone)
    return vit, file_sha256(path)


def find_weights(weights: str) -> Path:
    """The local file that `model.weights` names.

    Raises:
        WeightsError: it is not there.
    """
    path = _shipped() if weights == "phantom" else Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"Backbone weights {path}: no such file. Download the architecture's safetensors or official .pth file and name "
            "it with --set weights=FILE, or ask for untrained weights by name with --set weights=random."
        )
    return path


def _shipped() -> Path:
    """The shipped file; a Flower bundle carries no weights, so the copy that `make setup` left is looked for too."""
    from common.data.cache import default_cache  # noqa: PLC0415  (only here does a model care for folders)

    copy = default_cache() / "weights" / SHIPPED.name
    return SHIPPED if SHIPPED.is_file() or not copy.is_file() else copy


def empty_backbone(name: str, size: int, *, filled: bool = False) -> nn.Module:
    """The architecture with untrained weights, for any crop size that its patches divide.

    Args:
        filled: every weight will be replaced: timm need not draw them first, which takes as long as all else.
    """
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('.', 1)[0][:8]}*")[:4]) or "vit_small_patch14_dinov2"
        raise ConfigError(f"model.backbone: timm knows no '{name}'. Near it: {near}.")
    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "img_size": size, "dynamic_img_size": True}
    try:
        with contextlib.suppress(TypeError):  # an architecture that cannot be told so
            if filled:
                return _require_vit(timm.create_model(name, **settings, weight_init="skip"), name, size)
        vit: nn.Module = timm.create_model(name, **settings)
    except TypeError as error:  # an architecture that knows no image size
        raise ConfigError(f"model.backbone: expected a plain vision transformer, '{name}' is none ({error}).") from error
    return _require_vit(vit, name, size)


def _from_hub(name: str, size: int) -> nn.Module:
    """Pre-trained weights through timm; whatever keeps them from coming is an error that says how to get them."""
    empty_backbone(name, size)
    try:
        vit: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, img_size=size, dynamic_img_size=True)
    except Exception as error:  # the hub's libraries raise many kinds; none may end in random weights
        raise WeightsError(
            f"Backbone {name}: its pre-trained weights could not be had from the hub ({type(error).__name__}). On a machine "
            f"with a network, `python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` fills the hub's "
            "cache; or name a local safetensors or .pth file with --set weights=FILE."
        ) from error
    return vit


def _require_vit(vit: nn.Module, name: str, size: int) -> nn.Module:
    """Only plain ViTs have the one grid of patch tokens that every modality shares."""
    if not isinstance(vit, VisionTransformer | Eva):
        raise ConfigError(f"model.backbone: expected a plain vision transformer, '{name}' is a {type(vit).__name__}.")
    patch = vit.patch_embed.patch_size[0]
    if size % patch:
        raise ConfigError(
            f"data.size: {size} pixels are no multiple of {name}'s {patch}-pixel patches; take {size // patch * patch or patch}."
        )
    return vit


def _load(vit: nn.Module, path: Path, name: str) -> None:
    """Fill the backbone from a local file; one missing, unknown or misshapen array refuses the whole."""
    state = _read(path)
    state = {k.removeprefix("backbone."): v.float() for k, v in state.items()}
    filter_fn = filter_eva if isinstance(vit, Eva) else filter_vit
    try:
        state = filter_fn(dict(state), vit)  # type: ignore[arg-type]
        wanted = vit.state_dict()
        missing = sorted(wanted.keys() - state.keys())
        wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
        unknown = sorted(k for k in state.keys() - wanted.keys() if not k.startswith(("head", "fc_norm")))
        problem = (missing or wrong or unknown)[:1]
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError) as error:
        raise WeightsError(f"Weights file {path.name} does not fit {name} ({error}).") from error
    if problem:
        kind = "lacks" if missing else "has another shape of" if wrong else "also has"
        raise WeightsError(
            f"Weights file {path.name} is of another architecture than {name}: it {kind} '{problem[0]}'. "
            "Set model.backbone to the architecture that the file was made for."
        )
    vit.load_state_dict(state, strict=False)


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a `.safetensors` file or of an official `.pth`; nothing is unpickled beyond tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"Weights file {path}: not readable as plain tensors ({type(error).__name__}).") from error
    state = state.get("teacher", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"Weights file {path}: expected a table of named tensors.")
    return state


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    status = path.stat()
    return _file_sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _file_sha256(path: str, size: int, modified: int) -> str:
    """Hash once per content: a ViT-g file has 4.5 GB, and every client of a process asks."""
    del size, modified
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 bytes, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()
