"""Agreement with the EMA teacher, for labelled and unlabelled patients alike, as differential privacy allows it.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017) with DINO's cross entropy over the prototypes (Caron et al., ICCV 2021, eq. 1),
but no centre is learned from a batch and nothing is divided by what the batch holds: the loss is one patient's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Consistency(Term):
    """Every view of the student against the teacher's first."""

    name: ClassVar[str] = "consistency"
    per_patient: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    weight: float = ranged(0.0, 0.0, 100.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over views and patients."""
        targets = (step.prototypes(step.teacher_logits)[0] / step.teacher_temperature).softmax(dim=-1)
        return consistency_loss(step.prototypes(step.logits), targets, step.student_temperature), state


def consistency_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of student views against one teacher distribution a patient.

    Args:
        student: [V, ..., K] logits of the views.
        targets: [..., K], rows add up to one.
        temperature: of the student.
    """
    return -(targets * (student / temperature).log_softmax(dim=-1)).sum(-1).mean()
