"""MONAI's 3D ViT (`monai.networks.nets.ViT` without a class token), whose tokens are cubes of a whole volume: BrainIAC's layout.

BrainIAC (Tak et al., Nature Neuroscience 2026, doi 10.1038/s41593-026-02202-6) is a ViT-B on one volume of 96 x 96 x 96 voxels
and one channel, in cubes of 16: width 768, MLP 3072, 12 blocks of 12 heads, no class token, pre-trained with SimCLR. Its file
holds these arrays under `backbone.` and the projection of SimCLR beside them (model.py of github.com/AIM-KannLab/BrainIAC, MONAI
1.3.2; the card of huggingface.co/eugenehp/brainiac). Files that MONAI 1.4 and 1.5 saved also hold cross attention that no block
runs (`load_old_state_dict` of MONAI 1.6). The original takes the first cube, a corner, for the volume; here it is the mean over
all cubes behind the last norm, as in the card of huggingface.co/nidl-neurospin/brainiac-vit-b.

The blocks are timm's, which compute the same from the same arrays: MONAI's own need a further package (einops), and hold every
matrix of attention in memory. Each modality runs through all blocks by itself, as the encoder was trained; modalities meet
afterwards, as behind a CNN (`timm_cnn`): in the mean over all their cubes, which stands in the place of CLS, and in the head.

n volumes, g = edge / p cubes along each edge, P = g g g, N = 1 + P tokens, D width. A volume lies as axial images do: layers from
below, rows from the front, columns from the patient's right. MONAI's first axis is then that of columns and its last that of
layers: the array of a NIfTI file in LPS, as UPENN-GBM's are, of which BrainIAC's own examples come.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from common.errors import ConfigError, WeightsError
from common.models.backbones.backbone import Backbone, Tokens, with_mean
from common.models.backbones.named import VOLUMES, VolumeViT
from common.models.without_compiler import without_compiler

with without_compiler():
    from timm.models.vision_transformer import Block

# `common.data.volumes.BELOW` and `ABOVE`: standard deviations of the brain that become 0 and 1 under data.intensity = "zscore"
BELOW, ABOVE = 3.0, 5.0
OURS = (  # MONAI's names, in the order in which they are replaced
    ("patch_embedding.patch_embeddings.", "patch_embed."),
    ("patch_embedding.position_embeddings", "pos_embed"),
    (".attn.out_proj.", ".attn.proj."),
    (".mlp.linear1.", ".mlp.fc1."),
    (".mlp.linear2.", ".mlp.fc2."),
)
ENCODER = ("patch_embedding.", "blocks.", "norm.", "cls_token")  # all else is a head: of SimCLR, or of a classifier
IDLE = (".cross_attn.", ".norm_cross_attn.")


class CubeViT(nn.Module):
    """The arrays, and what becomes of cubes."""

    def __init__(self, shape: VolumeViT) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = nn.Conv3d(1, shape.width, shape.patch, stride=shape.patch)
        self.pos_embed = nn.Parameter(torch.randn(1, shape.grid**3, shape.width) * 0.02)
        ratio = shape.hidden / shape.width
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, ratio, qkv_bias=False, norm_layer=nn.LayerNorm) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes [n, Z, H, W] to tokens [n, g, g, g, D] in the same order of axes."""
        found = self.patch_embed(volumes.permute(0, 3, 2, 1).unsqueeze(1))  # as MONAI has it: [n, D, columns, rows, layers]
        z = found.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            z = block(z)
        cubes: Tensor = self.norm(z).unflatten(1, (self.shape.grid,) * 3)
        return cubes.permute(0, 3, 2, 1, 4)


@dataclass(frozen=True, eq=False)
class MonaiViT(Backbone):
    """A 3D ViT. To the model its cubes are patches of g thick slices: `grid` gives these, and has run all blocks."""

    vit: CubeViT

    attends: ClassVar[bool] = False
    linear_maps: ClassVar[Mapping[str, str]] = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    mlp: ClassVar[str] = "mlp"

    @classmethod
    def knows(cls, name: str) -> bool:
        """By the table of 3D encoders."""
        return name in VOLUMES

    @classmethod
    def near(cls, name: str) -> list[str]:
        """Those that begin alike."""
        return [other for other in VOLUMES if other.startswith(name[:3])]

    @classmethod
    def create(cls, name: str, size: int, *, filled: bool = False) -> Self:
        """Untrained; `filled` saves nothing."""
        del filled
        shape = VOLUMES[name]
        if size != shape.edge:
            raise ConfigError(
                f"data.size: {name} has positions for a cube of {shape.edge} voxels along each edge, got {size}. Set data.size, "
                f"data.slices and training.slices_per_step to {shape.edge}."
            )
        return cls(CubeViT(shape))

    @classmethod
    def from_hub(cls, name: str, size: int) -> Self:
        """Never."""
        cls.create(name, size)
        where = f": get it from {VOLUMES[name].source}" if VOLUMES[name].source else " or random"
        raise WeightsError(f"Backbone {name}: no hub has weights of it. Name a local file with --set weights=FILE{where}.")

    def own_arrays(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """By our names; heads, and attention that no block runs, are left out."""
        kept = (name for name in state if name.startswith(ENCODER) and not any(idle in name for idle in IDLE))
        return {_our_name(name): state[name] for name in kept}

    @property
    def module(self) -> nn.Module:
        """Arrays and blocks."""
        return self.vit

    @property
    def width(self) -> int:
        """D."""
        return self.vit.shape.width

    @property
    def patch(self) -> int:
        """p: edge of a cube."""
        return self.vit.shape.patch

    @property
    def thickness(self) -> int:
        """p, too."""
        return self.vit.shape.patch

    @property
    def prefixes(self) -> int:
        """The mean over cubes."""
        return 1

    @property
    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What makes z-scores of 0 to 1 again."""
        return (BELOW / (BELOW + ABOVE),) * 3, (1 / (BELOW + ABOVE),) * 3

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        return list(self.vit.blocks)

    def block_width(self, block: nn.Module) -> int:
        """D."""
        del block
        return self.width

    def norms(self, blocks: list[nn.Module]) -> Iterator[nn.Parameter]:
        """`norm1` and `norm2` of blocks, `norm` behind them."""
        for block in blocks:
            yield from (value for name, value in block.named_parameters() if name.startswith("norm"))
        yield from self.vit.norm.parameters()

    def grid(self, images: Tensor) -> Tensor:
        """Volumes [n, Z, H, W] to [n, g, h, w, D], g layers: all that the encoder computes."""
        found: Tensor = self.vit(images)
        return found

    def tokens(self, grid: Tensor) -> Tokens:
        """Positions are in them. The prefix holds the place of the mean, and zeros until `encode`."""
        return Tokens(grid.new_zeros(1, 1, grid.shape[-1]), grid.flatten(1, -2), None)

    def encode(self, z: Tensor, start: int, stop: int, rope: Tensor | None = None, attended: Tensor | None = None) -> Tensor:
        """[n, N, D] to [n, N, D]: the mean over the cubes that are there takes the first place."""
        del start, rope
        return z if stop < len(self.blocks) else with_mean(z, attended)

    def features(self, images: Tensor) -> Tensor:
        """Volumes [n, Z, H, W] of z-scores to [n, N, D]: the mean, then cubes layer by layer, row by row."""
        prefix, cubes, _ = self.tokens(self.grid(images))
        return self.encode(torch.cat([prefix.expand(len(cubes), -1, -1), cubes], dim=1), 0, len(self.blocks))


def _our_name(name: str) -> str:
    for theirs, ours in OURS:
        name = name.replace(theirs, ours)
    return name
