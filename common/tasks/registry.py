"""The tasks that a configuration may name: one line each."""

from common.schema import registry
from common.tasks.classification import Classification
from common.tasks.findings import Findings
from common.tasks.segmentation import Segmentation

TASKS = registry(
    Classification,
    Segmentation,
    Findings,
)
