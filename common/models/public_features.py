"""Public features: how patches are pooled, which mean is taken off, which directions are kept; of public patients alone.

A private head pays for each value that it trains with noise, and features share a large part that takes up every clipped
gradient. What is learned from public patients costs no privacy: queries for the pooling (`common.pooling.taught`), the mean, and
the principal directions of what is left. They are made of phantoms (`fedmri-sim public`), and phantoms' statistics are not those
of brains: they are shipped for what they are.

The file is safetensors: "pool.query" [M, D], "feature_centre" [1 + M, D] over sqrt(D), "projection" [K, E], its rows orthonormal,
the directions in which public patients differ most first; M modalities, D width, E = (1 + M) D.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.run import RunConfig, config_from_json
from common.errors import ConfigError, WeightsError
from common.models.arrays import Arrays, load_arrays
from common.models.backbones.weights import SHIPPED, shipped

if TYPE_CHECKING:
    import torch

SHIPPED_PUBLIC = {  # by `model.public_features`; a name never comes to mean another file
    "phantom-tissue": SHIPPED.with_name("fedmri_vit_mini_tissue_public.safetensors"),
}
QUERY, CENTRE, PROJECTION = NAMES = ("pool.query", "feature_centre", "projection")


def read_public(config: RunConfig, backbone_sha256: str) -> Arrays:
    """The public arrays for a run's model.

    Args:
        config: `model.public_features` names the file; its first `model.public_width` directions are taken.
        backbone_sha256: of the weights that the run has.

    Raises:
        WeightsError: no such file, or a damaged one.
        ConfigError: it was made of other features.
    """
    named, width = config.model.public_features, config.model.public_width
    path = shipped(SHIPPED_PUBLIC[named]) if named in SHIPPED_PUBLIC else Path(named).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"Public features {path}: no such file. Make one with `fedmri-sim public`, or take: {', '.join(SHIPPED_PUBLIC)}."
        )
    arrays, about = load_arrays(path)
    if sorted(arrays) != sorted(NAMES):
        raise WeightsError(
            f"Public features {path}: expected the arrays {', '.join(NAMES)}, got {', '.join(sorted(arrays)[:5])}."
        )
    there = _told(path, about)
    for what, here in made_of(config, backbone_sha256).items():
        if here != there.get(what):
            raise ConfigError(
                f"model.public_features = {named!r}: made with {what} = {there.get(what)!r}, and the run has {here!r}. "
                "Make them anew with `fedmri-sim public` and the run's configuration."
            )
    if width > len(arrays[PROJECTION]):
        raise ConfigError(
            f"model.public_width = {width}: {named!r} holds {len(arrays[PROJECTION])} directions. Set that or less."
        )
    return arrays | {PROJECTION: arrays[PROJECTION][:width]}


def made_of(config: RunConfig, backbone_sha256: str) -> dict[str, Any]:
    """All that features depend on, by the names of the settings."""
    cut = {f"data.{name}": value for name, value in config.data.of_slices().items()}
    settings = {"model.joint_blocks": config.model.joint_blocks, "model.pooling": config.model.pooling}
    return {"backbone": backbone_sha256, **settings, **cut}


def _told(path: Path, about: Mapping[str, str]) -> dict[str, Any]:
    """`made_of` by what the file says of itself."""
    try:
        return made_of(config_from_json(about["config"]), about["backbone"])
    except (KeyError, ConfigError) as error:
        raise WeightsError(
            f"Public features {path}: the file does not say what it was made with ({error}). Make it anew."
        ) from error


def no_values(config: RunConfig, width: int) -> dict[str, "torch.Tensor"]:
    """Arrays of the right shapes, for a model whose values come by the wire."""
    import torch  # noqa: PLC0415  a configuration is read without it

    modalities = len(config.data.modalities)
    shapes: dict[str, Any] = {
        QUERY: (modalities, width),
        CENTRE: (1 + modalities, width),
        PROJECTION: (config.model.public_width, (1 + modalities) * width),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()}
