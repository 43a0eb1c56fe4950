"""MONAI's residual U-Net (Kerfoot et al., STACOM 2018), with instance norms."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from simulation.peers.peer import Peer


@dataclass(frozen=True)
class MonaiUNet(Peer):
    """`channels`: of each resolution, the finest first, each half as fine as the one before; `units`: convolutions of a block."""

    name: ClassVar[str] = "monai_unet"
    channels: tuple[int, ...] = (16, 32, 64, 128)
    units: int = 2

    def network(self, modalities: int, size: int) -> nn.Module:
        """See `Peer`. Any size will do that `channels` can halve."""
        from monai.networks.nets import UNet  # type: ignore[attr-defined]  # noqa: PLC0415  MONAI takes seconds

        made: nn.Module = UNet(
            spatial_dims=2,
            in_channels=modalities,
            out_channels=1,
            channels=self.channels,
            strides=(2,) * (len(self.channels) - 1),
            num_res_units=self.units,
        )
        return made
