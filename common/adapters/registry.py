"""The adapters that `model.adapter` may name: a line for each."""

from common.adapters.bitfit import BitFit
from common.adapters.bottleneck import Bottleneck
from common.adapters.dora import DoRA
from common.adapters.full import Full
from common.adapters.head import HeadOnly
from common.adapters.lora import LoRA
from common.schema import registry

ADAPTERS = registry(
    LoRA,
    DoRA,
    Bottleneck,
    BitFit,
    HeadOnly,
    Full,
)
