"""FedProx: a site stays near the global model that it received (Li et al., MLSys 2020, eq. 2).

Sites of unlike patients, or of many local steps, drift apart, and the mean of what has drifted is no good model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class FedProx(Term):
    """Half the squared distance of the trained arrays from the received ones; `weight` is the paper's mu."""

    name: ClassVar[str] = "fedprox"
    per_patient: ClassVar[bool] = True  # it reads no patient at all
    on_features: ClassVar[bool] = True
    in_ssl_rounds: ClassVar[bool] = True

    weight: float = ranged(0.0, 0.0, 1e6)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Over all arrays that the round trains."""
        return proximal_loss(step.parameters, step.received), state


def proximal_loss(parameters: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> Tensor:
    """||w - w_received||^2 / 2; its gradient is w - w_received.

    Args:
        parameters: what is trained, by name.
        received: at least the same names.
    """
    import torch

    distances = [(value - received[name]).square().sum() for name, value in parameters.items()]
    return torch.stack(distances).sum() / 2
