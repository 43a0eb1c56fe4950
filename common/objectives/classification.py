"""Classification of the labelled patients, with a balance of classes that is fixed before training.

Taking class weights from the batch gives a class that is absent there a huge weight, and couples patients, which differential
privacy forbids; these come once from the site's own labels. `prior` is logit adjustment (Menon et al., ICLR 2021, eq. 10): where
a site has few or none of a class, the loss there does not push that class down, which is what spoils averages of skewed sites
(Zhang et al., ICML 2022, eq. 6). Labels are then smoothed towards the same prior: smoothed evenly, as is usual, they would ask
for more of an absent class than the adjusted loss expects, and lift its logit above the true one's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PSEUDOCOUNT = 0.5


@dataclass(frozen=True)
class ClassBalance:
    """Fixed for the whole run.

    Attributes:
        weights: [C], of each class in the mean.
        offsets: [C], added to the logits in training only.
        smooth: [C], adds up to one: what labels are smoothed towards.
    """

    weights: Tensor
    offsets: Tensor
    smooth: Tensor


def class_balance(labels: Tensor, classes: int, kind: str) -> ClassBalance:
    """Count a site's labels once.

    Args:
        labels: [N] int, negative where there is none.
        classes: C.
        kind: `none`, `weights` (inverse frequency, mean 1 over the classes the site has) or `prior`.
    """
    counts = torch.bincount(labels[labels >= 0], minlength=classes).double()
    weights, offsets, smooth = torch.ones(classes), torch.zeros(classes), torch.full((classes,), 1 / classes)
    if kind == "weights" and counts.any():
        inverse = torch.where(counts > 0, 1 / counts.clamp(min=1), 0)
        weights = (inverse / inverse[counts > 0].mean()).float()
    elif kind == "prior" and counts.any():
        smooth = ((counts + PSEUDOCOUNT) / (counts + PSEUDOCOUNT).sum()).float()
        offsets = smooth.log()
    return ClassBalance(weights, offsets, smooth)


def classification_loss(logits: Tensor, labels: Tensor, balance: ClassBalance, smoothing: float) -> Tensor:
    """Weighted cross entropy, summed over the labelled patients and divided by all of the batch.

    So it equals the mean over the labelled times their share of the batch (MM-DINOv2), and no patient's part depends on others.

    Args:
        logits: [B, C], over the temperature.
        labels: [B], negative where there is none.
        smoothing: share of each label that goes to `balance.smooth`.

    Returns:
        Scalar; zero where no patient is labelled.
    """
    known = labels >= 0
    if not known.any():
        return logits.sum() * 0
    hard = functional.one_hot(labels[known].to(logits.device), logits.shape[1])
    each = functional.cross_entropy(
        logits[known] + balance.offsets.to(logits.device),
        (1 - smoothing) * hard + smoothing * balance.smooth.to(logits.device),
        weight=balance.weights.to(logits.device),
        reduction="none",
    )
    return each.sum() / len(labels)
