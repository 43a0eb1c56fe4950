"""Every loss term that a configuration can name, in the order in which they are added up."""

from common.objectives.classification import Classification
from common.objectives.consistency import Consistency
from common.objectives.dino import Dino
from common.objectives.fedprox import FedProx
from common.objectives.findings import Findings
from common.objectives.fixmatch import FixMatch
from common.objectives.ibot import Ibot
from common.objectives.koleo import KoLeo
from common.objectives.mean_teacher import MeanTeacher
from common.objectives.segmentation import Segmentation
from common.schema import registry

TERMS = registry(
    Classification,
    KoLeo,
    Dino,
    Ibot,
    Consistency,
    FixMatch,
    MeanTeacher,
    FedProx,
    Segmentation,
    Findings,
)
