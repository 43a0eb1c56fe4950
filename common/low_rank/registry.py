"""The rules that `federation.low_rank` may name: a line for each."""

from common.low_rank.apart import Apart
from common.low_rank.fair import Fair
from common.low_rank.residual import Residual
from common.low_rank.svd import Svd
from common.schema import registry

PAIR_RULES = registry(
    Apart,
    Fair,
    Residual,
    Svd,
)
