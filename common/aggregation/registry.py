"""The aggregators that a configuration may name: a line each."""

from common.aggregation.fedavg import FedAvg
from common.aggregation.fedavgm import FedAvgM
from common.schema import registry

AGGREGATORS = registry(
    FedAvg,
    FedAvgM,
)
