"""Backbones that timm has no name for: what they are built of, and the terms of their weights. A row for each.

Their weights are a local file; the hub is asked for none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WITHOUT_REGISTERS = "_reg0"  # behind the name of a DINOv3: the same architecture, trained without register tokens


@dataclass(frozen=True)
class Named:
    """One of them.

    Attributes:
        architecture: timm's.
        settings: of it, where they are not timm's own.
        licence: of the weights, as their makers say.
        source: where its makers give the weights out.
    """

    architecture: str
    settings: Mapping[str, Any]
    licence: str
    source: str


NAMED = {
    "curia": Named(  # Dancette et al., arXiv 2509.06830: DINOv2 ViT-B on slices of CT and MRI
        "vit_base_patch14_dinov2",
        {"patch_size": 16},
        "research only: no clinical use (Research-only RAIL-M)",
        "huggingface.co/raidium/curia",
    ),
}


@dataclass(frozen=True)
class VolumeViT:
    """A 3D encoder (`monai_vit`).

    Attributes:
        edge: of the cube that it sees, in voxels.
        patch: of a cube that is one token.
        width, hidden, depth, heads: of tokens, of MLPs; blocks, and heads in each.
        licence, source: as of `Named`; "" where nobody gives out weights.
    """

    edge: int
    patch: int
    width: int
    hidden: int
    depth: int
    heads: int
    licence: str = ""
    source: str = ""

    @property
    def grid(self) -> int:
        """Tokens along each edge."""
        return self.edge // self.patch


VOLUMES = {
    "brainiac": VolumeViT(
        96,
        16,
        768,
        3072,
        12,
        12,
        "academic research only, no commercial use (Mass General Brigham)",
        "github.com/AIM-KannLab/BrainIAC",
    ),
    "fedmri_cube_mini": VolumeViT(32, 8, 48, 96, 2, 3),  # of no weights: to try out the way of volumes
}


def timm_name(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name of an architecture, and the settings that make it this one."""
    if name in NAMED:
        return NAMED[name].architecture, dict(NAMED[name].settings)
    if "dinov3" in name and name.endswith(WITHOUT_REGISTERS):
        return name.removesuffix(WITHOUT_REGISTERS), {"num_reg_tokens": 0}
    return name, {}
