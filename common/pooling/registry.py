"""The poolings that `model.pooling` may name: a line for each."""

from common.pooling.attention import Attention
from common.pooling.centre import Centre
from common.pooling.guided import Guided
from common.pooling.mean import Mean
from common.pooling.taught import Taught
from common.schema import registry

POOLINGS = registry(
    Mean,
    Centre,
    Attention,
    Guided,
    Taught,
)
