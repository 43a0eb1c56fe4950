"""The decoders that `task.decoder` may name: a line for each."""

from common.decoders.linear import Linear
from common.decoders.unet import UNet
from common.schema import registry

DECODERS = registry(
    Linear,
    UNet,
)
