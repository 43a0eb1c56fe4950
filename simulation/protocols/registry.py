"""The protocols that a study runs: a line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulation.protocols.federated_few_shot import FederatedFewShot
from simulation.protocols.federated_knn import FederatedKNN
from simulation.protocols.federated_probe import FederatedProbe
from simulation.protocols.few_shot import DRAWS, SHOTS, FewShot
from simulation.protocols.knn import KNN, TEMPERATURE, K
from simulation.protocols.linear_probe import LinearProbe
from simulation.protocols.protocol import FrozenProtocol


@dataclass(frozen=True)
class Settings:
    """What the command may change."""

    k: int = K
    temperature: float = TEMPERATURE
    shots: tuple[int, ...] = SHOTS
    draws: int = DRAWS


Make = Callable[[Settings], Sequence[FrozenProtocol]]

CENTRAL: dict[str, Make] = {
    "knn": lambda asked: [KNN(asked.k, asked.temperature)],
    "probe": lambda asked: [LinearProbe()],
    "few-shot": lambda asked: [FewShot(shots, asked.draws) for shots in asked.shots],
}
FEDERATED: dict[str, Make] = {
    "federated-knn": lambda asked: [FederatedKNN(asked.k, asked.temperature)],
    "federated-probe": lambda asked: [FederatedProbe()],
    "federated-few-shot": lambda asked: [FederatedFewShot(shots, asked.draws) for shots in asked.shots],
}
