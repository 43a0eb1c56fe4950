"""The interface of a backbone: one grid of patch tokens an image, a list of blocks, and maps in each that an adapter may wrap.

n images, h x w patches, P = h w, R prefix tokens (CLS and registers), N = R + P tokens, D width.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from common.errors import ConfigError


class Tokens(NamedTuple):
    """A grid with its positions.

    Attributes:
        prefix: [1, R, D], the same for every image.
        patches: [n, P, D].
        rope: [P, ...], rotary positions that the blocks apply; None: positions are in the tokens.
    """

    prefix: Tensor
    patches: Tensor
    rope: Tensor | None


class Backbone(Protocol):
    """A frozen vision transformer or CNN. It is no module itself: `module` is, and its names are in every file of arrays.

    Attributes:
        attends: tokens of several modalities may look at each other in its blocks. Where they do not, as in a CNN, `grid` is all
            that it computes.
        linear_maps: paths in a block of the linear maps that adapters may wrap, by the name that configurations use.
        mlp: path in a block of its MLP as a whole; of a CNN, of what stands behind it, an identity.
    """

    attends: ClassVar[bool]
    linear_maps: ClassVar[Mapping[str, str]]
    mlp: ClassVar[str]

    @classmethod
    def knows(cls, name: str) -> bool:
        """Whether the family has this architecture."""
        ...

    @classmethod
    def near(cls, name: str) -> list[str]:
        """Names of its architectures that `name` may stand for."""
        ...

    @classmethod
    def create(cls, name: str, size: int, *, filled: bool = False) -> Self:
        """The architecture with untrained weights; see `common.models.backbones.create.empty_backbone`."""
        ...

    @classmethod
    def from_hub(cls, name: str, size: int) -> Self:
        """The architecture with the weights of its hub.

        Raises:
            WeightsError: they cannot be had; says how to get them.
        """
        ...

    def own_arrays(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The arrays of a weights file in the names and shapes of `module`; any error of it is one of the file."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module that holds all weights."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def patch(self) -> int:
        """Edge of a patch in pixels."""
        ...

    @property
    def thickness(self) -> int:
        """How many slices a patch reaches through. Above 1 the backbone sees whole volumes: `grid` and `features` take
        [n, S, H, W] and give S / thickness layers of patches."""
        return 1

    @property
    def prefixes(self) -> int:
        """R."""
        ...

    @property
    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the pixels that it was trained with, three channels each."""
        ...

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        ...

    def block_width(self, block: nn.Module) -> int:
        """Width of what leaves the `mlp` of a block."""
        ...

    def norms(self, blocks: list[nn.Module]) -> Iterator[nn.Parameter]:
        """Parameters of the norms of some blocks, and of those behind the last."""
        ...

    def grid(self, images: Tensor) -> Tensor:
        """Images [n, 3, H, W] to patch embeddings [n, h, w, D], without positions."""
        ...

    def tokens(self, grid: Tensor) -> Tokens:
        """Patch embeddings [n, h, w, D] with their positions."""
        ...

    def encode(self, z: Tensor, start: int, stop: int, rope: Tensor | None = None, attended: Tensor | None = None) -> Tensor:
        """Tokens [n, N, D] through blocks `start` to `stop`, with the norms that stand before the first and behind the last.

        Args:
            z: [n, N, D]: n series of N tokens.
            start: the first block, from 0.
            stop: the block before which it ends.
            rope: as `tokens` gave it, for the patches that are there.
            attended: bool, broadcast to [n, heads, N, N]: which tokens may be looked at; None: all.
        """
        ...

    def features(self, images: Tensor) -> Tensor:
        """Images [n, 3, H, W] as the backbone was trained to see them, to tokens [n, N, D]."""
        ...


def with_mean(z: Tensor, attended: Tensor | None) -> Tensor:
    """Tokens [n, N, D] with the mean over all but the first in the first place: of a backbone that has no CLS.

    Args:
        z: [n, N, D].
        attended: as `Backbone.encode` takes it: which tokens are there.
    """
    others = z[:, 1:]
    if attended is None:
        mean = others.mean(1, keepdim=True)
    else:
        share = attended[:, 0, :1, 1:].to(z.dtype)
        mean = (share / share.sum(2, keepdim=True)) @ others
    return torch.cat([mean, others], dim=1)


def require_whole_patches(size: int, patch: int, name: str) -> None:
    """Refuse crops that patches do not fill.

    Args:
        size: edge of a crop in pixels.
        patch: edge of a patch.
        name: of the architecture.

    Raises:
        ConfigError: says which size is near.
    """
    if size % patch:
        nearest = size // patch * patch or patch
        raise ConfigError(f"data.size: {size} pixels are no multiple of {name}'s {patch}-pixel patches; take {nearest}.")
