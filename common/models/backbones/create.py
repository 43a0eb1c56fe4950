"""A backbone with its weights, from the hub or a local file, never silently random."""

from pathlib import Path

from common.config.sections import ModelConfig
from common.errors import ConfigError, WeightsError
from common.models.backbones.backbone import Backbone
from common.models.backbones.registry import FAMILIES
from common.models.backbones.weights import file_sha256, find_weights, read_weights, tensors_sha256


def create_backbone(config: ModelConfig, size: int) -> tuple[Backbone, str]:
    """Make the backbone with its weights.

    Args:
        config: names the architecture and where its weights come from.
        size: edge of a global crop in pixels.

    Returns:
        The backbone and the SHA-256 of its weights: of the file, or of the tensors where there is no file.

    Raises:
        ConfigError: no such architecture, or one of no family that is known.
        WeightsError: weights that cannot be had, or that do not fit.
    """
    if config.weights == "hub":
        backbone = family_of(config.backbone).from_hub(config.backbone, size)
        return backbone, tensors_sha256(backbone.module.state_dict())
    if config.weights == "random":
        backbone = empty_backbone(config.backbone, size)
        return backbone, tensors_sha256(backbone.module.state_dict())
    path = find_weights(config.weights)
    backbone = empty_backbone(config.backbone, size, filled=True)
    _load(backbone, path, config.backbone)
    return backbone, file_sha256(path)


def empty_backbone(name: str, size: int, *, filled: bool = False) -> Backbone:
    """The architecture with untrained weights, for any crop size that its patches divide.

    Args:
        name: of the architecture, as timm has it.
        size: edge of the crops in pixels.
        filled: every weight will be replaced, so that none need be drawn.
    """
    return family_of(name).create(name, size, filled=filled)


def family_of(name: str) -> type[Backbone]:
    """The family that has the architecture.

    Raises:
        ConfigError: none has it.
    """
    for family in FAMILIES:
        if family.knows(name):
            return family
    near = [other for family in FAMILIES for other in family.near(name)] or ["vit_small_patch14_dinov2"]
    raise ConfigError(f"model.backbone: timm knows no '{name}'. Near it: {', '.join(near)}.")


def _load(backbone: Backbone, path: Path, name: str) -> None:
    """Fill the backbone from a local file; one missing, unknown or misshapen array refuses the whole."""
    state = {key.removeprefix("backbone."): value.float() for key, value in read_weights(path).items()}
    try:
        state = backbone.own_arrays(state)
        wanted = backbone.module.state_dict()
        missing = sorted(wanted.keys() - state.keys())
        wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
        problem = (missing or wrong or sorted(state.keys() - wanted.keys()))[:1]
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError) as error:
        raise WeightsError(f"Weights file {path.name} does not fit {name} ({error}).") from error
    if problem:
        kind = "lacks" if missing else "has another shape of" if wrong else "also has"
        raise WeightsError(
            f"Weights file {path.name} is of another architecture than {name}: it {kind} '{problem[0]}'. "
            "Set model.backbone to the architecture that the file was made for."
        )
    backbone.module.load_state_dict(state, strict=False)
