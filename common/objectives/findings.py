"""Binary cross entropy of each finding that is known of a patient; one that is unknown has no part in it.

V views, B patients, C findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import State, StepOutputs, Term
from common.schema import ranged
from common.ternary import UNKNOWN, YES, answer_at

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Findings(Term):
    """The findings of labelled patients, in every view."""

    name: ClassVar[str] = "findings"
    per_patient: ClassVar[bool] = True
    on_features: ClassVar[bool] = True

    weight: float = ranged(0.0, 0.0, 100.0)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over views, patients and findings, those that are unknown as zeros."""
        scores = step.logits[..., : step.classes] / step.student_temperature
        return masked_cross_entropy(scores, step.labels.to(scores.device)), state


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed over the known findings and divided by all, so that no patient's part depends on others.

    So it equals the mean over the known ones times their share, as `classification` weighs labelled patients.

    Args:
        logits: [V, B, C].
        labels: [B], of `common.ternary`; -1: nothing is known.

    Returns:
        Scalar; zero where nothing is known of anybody.
    """
    import torch
    from torch.nn import functional

    # No branch depends on a label, which vmap over patients forbids.
    answers = torch.stack([answer_at(labels, place) for place in range(logits.shape[-1])], dim=-1)
    truth = (answers == YES).to(logits.dtype).expand_as(logits)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return torch.where(answers != UNKNOWN, each, 0.0).mean()
