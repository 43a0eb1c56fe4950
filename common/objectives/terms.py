"""Every term that a configuration can name. The order is the order of the sum."""

from common.objectives.classification import Classification
from common.objectives.consistency import Consistency
from common.objectives.dino import Dino
from common.objectives.fedprox import FedProx
from common.objectives.ibot import Ibot
from common.objectives.koleo import KoLeo
from common.schema import registry

TERMS = registry(
    Classification,
    KoLeo,
    Dino,
    Ibot,
    Consistency,
    FedProx,
)
