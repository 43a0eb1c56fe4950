"""Classification of the labelled patients, with a balance of classes that is fixed before training.

Taking class weights from the batch gives a class that is absent there a huge weight, and couples patients, which differential
privacy forbids; these come once from the site's own labels. `prior` is logit adjustment (Menon et al., ICLR 2021, eq. 10): where
a site has few or none of a class, the loss there does not push that class down, which is what spoils averages of skewed sites
(Zhang et al., ICML 2022, eq. 6). Labels are then smoothed towards the same prior: smoothed evenly, as is usual, they would ask
for more of an absent class than the adjusted loss expects, and lift its logit above the true one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from common.objectives.term import Refusal, State, StepOutputs, Term
from common.schema import choice, ranged

if TYPE_CHECKING:
    from torch import Tensor

PSEUDOCOUNT = 0.5


@dataclass(frozen=True)
class Classification(Term):
    """Cross entropy of every view with the patient's label. Its state is the balance, fixed for the round."""

    name: ClassVar[str] = "classification"
    per_patient: ClassVar[bool] = True
    on_features: ClassVar[bool] = True

    weight: float = ranged(0.5, 0.0, 100.0)
    class_balance: str = choice("none", "none", "weights", "prior")  # fixed before training, from the site's own labels
    label_smoothing: float = ranged(0.1, 0.0, 0.9)

    def begin(self, labels: Tensor, classes: int) -> State:
        """The balance of classes."""
        return class_balance(labels, classes, self.class_balance)

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """Mean over views and patients."""
        scores = step.logits.flatten(0, 1)[:, : step.classes] / step.student_temperature
        return classification_loss(scores, step.labels.repeat(len(step.logits)), state, self.label_smoothing), state

    def refusals(self) -> list[Refusal]:
        """Weights by the site's labels would disclose how many of each it has."""
        if self.class_balance == "none":
            return []
        return [Refusal("class_balance", self.class_balance, "none", "class weights disclose the site's label counts")]


def class_balance(labels: Tensor, classes: int, kind: str) -> State:
    """Count a site's labels once.

    Args:
        labels: [N] int, negative where there is none.
        classes: C.
        kind: `none`, `weights` (inverse frequency, mean 1 over the classes the site has) or `prior`.

    Returns:
        `weights` [C] of each class in the mean, `offsets` [C] that are added to the logits in training only, and `smooth` [C],
        adding up to one: what labels are smoothed towards.
    """
    import torch

    counts = torch.bincount(labels[labels >= 0], minlength=classes).double()
    weights, offsets, smooth = torch.ones(classes), torch.zeros(classes), torch.full((classes,), 1 / classes)
    if kind == "weights" and counts.any():
        inverse = torch.where(counts > 0, 1 / counts.clamp(min=1), 0)
        weights = (inverse / inverse[counts > 0].mean()).float()
    elif kind == "prior" and counts.any():
        smooth = ((counts + PSEUDOCOUNT) / (counts + PSEUDOCOUNT).sum()).float()
        offsets = smooth.log()
    return {"weights": weights, "offsets": offsets, "smooth": smooth}


def classification_loss(logits: Tensor, labels: Tensor, balance: State, smoothing: float) -> Tensor:
    """Weighted cross entropy, summed over the labelled patients and divided by all of the batch.

    So it equals the mean over the labelled times their share of the batch (MM-DINOv2), and no patient's part depends on others.

    Args:
        logits: [B, C], over the temperature.
        labels: [B], negative where there is none.
        balance: of `class_balance`.
        smoothing: share of each label that goes to `smooth` of the balance.

    Returns:
        Scalar; zero where no patient is labelled.
    """
    import torch
    from torch.nn import functional

    weights, offsets, smooth = (balance[name].to(logits.device) for name in ("weights", "offsets", "smooth"))
    labels = labels.to(logits.device)
    # No branch and no index depends on a label, which vmap over patients forbids (one_hot would read it).
    hard = (labels.unsqueeze(1) == torch.arange(logits.shape[1], device=logits.device)).float()
    target = (1 - smoothing) * hard + smoothing * smooth
    each = functional.cross_entropy(logits + offsets, target, weight=weights, reduction="none")
    return torch.where(labels >= 0, each, 0.0).sum() / len(labels)
