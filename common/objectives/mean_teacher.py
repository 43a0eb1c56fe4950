"""Mean teacher: class probabilities agree with the EMA teacher's (Tarvainen and Valpola, NeurIPS 2017, section 2).

`consistency` is the cross entropy over all prototypes, with a teacher sharpened as DINO's. This is the paper's: squared distance
between class probabilities, both at the temperature at which the model answers, so that an unsure teacher pulls but little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MeanTeacher(Term):
    """Every view of the student against the mean of the teacher's, for labelled and unlabelled patients."""

    name: ClassVar[str] = "mean_teacher"
    per_patient: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    weight: float = ranged(0.0, 0.0, 100.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over views and patients."""
        student, teacher = (
            (logits[..., : step.classes] / step.student_temperature).softmax(dim=-1)
            for logits in (step.logits, step.teacher_logits.detach())
        )
        return squared_distance(student, teacher.mean(0)), state


def squared_distance(student: Tensor, target: Tensor) -> Tensor:
    """Mean over views and patients of the squared distance between distributions, 0 to 2.

    Args:
        student: [V, B, C], rows add up to one.
        target: [B, C], likewise.
    """
    return (student - target).square().sum(-1).mean()
