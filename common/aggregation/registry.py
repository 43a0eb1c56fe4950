"""The aggregators that a configuration may name: a line each."""

from common.aggregation.bulyan import Bulyan
from common.aggregation.fedadam import FedAdam
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedavgm import FedAvgM
from common.aggregation.fedyogi import FedYogi
from common.aggregation.krum import Krum
from common.aggregation.median import Median
from common.aggregation.multikrum import MultiKrum
from common.aggregation.scaffold import Scaffold
from common.aggregation.trimmed_mean import TrimmedMean
from common.schema import registry

AGGREGATORS = registry(
    FedAvg,
    FedAvgM,
    FedAdam,
    FedYogi,
    Scaffold,
    TrimmedMean,
    Median,
    Krum,
    MultiKrum,
    Bulyan,
)
