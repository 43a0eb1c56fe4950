"""iBOT: the student's output for a masked patch matches the teacher's for the visible one (Zhou et al., ICLR 2022, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.centering import centred_targets
from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ibot(Term):
    """Agreement at the masked patches. Its state is the centre of the teacher's patch logits."""

    name: ClassVar[str] = "ibot"
    why_not_private: ClassVar[str] = "iBOT's centre comes from the batch"
    needs_teacher: ClassVar[bool] = True
    needs_attention: ClassVar[bool] = True
    in_ssl_rounds: ClassVar[bool] = True

    weight: float = ranged(1.0, 0.0, 100.0)
    center_momentum: float = ranged(0.9, 0.0, 1.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Over the masked patches of the global views."""
        targets, state = centred_targets(
            step.prototypes(step.teacher_patch_logits), state, self.center_momentum, step.teacher_temperature
        )
        return ibot_loss(step.prototypes(step.patch_logits), targets, step.student_temperature), state


def ibot_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy over all masked patch tokens.

    Args:
        student: [R, K] logits at the R masked tokens.
        targets: [R, K] teacher distributions at the same tokens.
        temperature: of the student, above 0.

    Returns:
        Scalar; zero where nothing is masked.
    """
    log_p = (student / temperature).log_softmax(dim=-1)
    return -(targets * log_p).sum() / max(len(student), 1)
