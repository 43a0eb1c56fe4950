"""FixMatch: what the teacher is sure of in an unlabelled patient is the student's label (Sohn et al., NeurIPS 2020, eq. 4).

The weak view is the teacher's, which sees global crops unmasked; the strong ones are the student's. Threshold and denominator are
fixed, so one patient's part depends on no other. Pseudo-labels are usually aligned to the class shares by a running mean of
batches (ReMixMatch: Berthelot et al., ICLR 2020, section 3.1), which couples patients. Shares here are fixed before a round, and
the loss is adjusted by the same ones (logit adjustment, Menon et al., ICLR 2021, eq. 10): where most pseudo-labels are of the
class that most of the site's patients have, the logits do not move towards it, and no round finds more of it than the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.classification import class_balance, classification_loss
from common.objectives.term import Refusal, State, StepOutputs, Term
from common.schema import choice, ranged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FixMatch(Term):
    """Cross entropy of every view of an unlabelled patient with the teacher's answer. Its state is the prior, fixed for a round.

    `prior`: `labels` takes the class shares of the site's own labelled patients; `even` takes all classes for equally frequent,
    as does a site without labels. Both suit logits that know no shares: those of a `classification.class_balance` but "none".
    """

    name: ClassVar[str] = "fixmatch"
    per_patient: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    weight: float = ranged(0.0, 0.0, 100.0)
    threshold: float = ranged(0.95, 0.0, 1.0)  # probability from which the teacher's answer is a label
    prior: str = choice("even", "even", "labels")

    def begin(self, labels: Tensor, classes: int) -> State:
        """The prior, as a balance of classes."""
        return class_balance(labels, classes, "prior" if self.prior == "labels" else "none")

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Summed over views and those patients who have a pseudo-label, divided by all."""
        scores = step.logits.flatten(0, 1)[:, : step.classes] / step.student_temperature
        labels = pseudo_labels(step, state, self.threshold).repeat(len(step.logits))
        return classification_loss(scores, labels, state, 0.0), state

    def refusals(self) -> list[Refusal]:
        """A prior from the site's labels would disclose how many of each it has."""
        if not self.weight or self.prior == "even":
            return []
        return [Refusal("prior", self.prior, "even", "the class shares disclose the site's label counts")]


def pseudo_labels(step: StepOutputs, balance: State, threshold: float) -> Tensor:
    """The teacher's answer [B], the mean over its views; -1 for labelled patients, and where it is less sure than `threshold`.

    Args:
        step: labels, the teacher's logits, classes and the student's temperature, at which the model answers, are read.
        balance: its `offsets` [C] are added to the logits: a posterior for even classes becomes one for those shares.
        threshold: 0 to 1.
    """
    import torch

    offsets = balance["offsets"].to(step.teacher_logits.device)
    cosines = step.teacher_logits[..., : step.classes].detach()
    sure, answer = (cosines / step.student_temperature + offsets).softmax(dim=-1).mean(0).max(dim=-1)
    return torch.where((step.labels.to(answer.device) < 0) & (sure >= threshold), answer, -1)
