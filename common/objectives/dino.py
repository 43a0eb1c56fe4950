"""DINO: the student's output for one view matches the teacher's for another (Caron et al., ICCV 2021, eq. 1 and 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.centering import centred_targets
from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dino(Term):
    """Agreement of a patient's views. Its state is the centre of the teacher's logits."""

    name: ClassVar[str] = "dino"
    why_not_private: ClassVar[str] = "DINO's centre comes from the batch; use objective.terms.consistency"
    needs_teacher: ClassVar[bool] = True
    in_ssl_rounds: ClassVar[bool] = True

    weight: float = ranged(1.0, 0.0, 100.0)
    center_momentum: float = ranged(0.9, 0.0, 1.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Over all pairs of different views."""
        targets, state = centred_targets(
            step.prototypes(step.teacher_logits), state, self.center_momentum, step.teacher_temperature
        )
        return dino_loss(step.prototypes(step.logits), targets, step.student_temperature, skip_same=True), state


def dino_loss(student: Tensor, targets: Tensor, temperature: float, *, skip_same: bool) -> Tensor:
    """Mean cross entropy over all pairs of a student and a teacher view.

    Args:
        student: [V, B, K] logits of V views.
        targets: [U, B, K] teacher distributions.
        temperature: of the student, above 0.
        skip_same: student view i and teacher view i are the same crop and do not pair.

    Returns:
        Scalar; zero where there is no pair.
    """
    import torch

    log_p = (student / temperature).log_softmax(dim=-1)
    pairs = torch.einsum("ubk,vbk->uv", targets, log_p) / student.shape[1]
    keep = torch.ones_like(pairs)
    if skip_same:
        keep.fill_diagonal_(0)
    return -(pairs * keep).sum() / keep.sum().clamp(min=1)
