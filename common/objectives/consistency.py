"""Agreement with the EMA teacher, for labelled and unlabelled patients alike, as differential privacy allows it.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017) with DINO's cross entropy over the prototypes (Caron et al., ICCV 2021, eq. 1),
but no centre is learned from a batch and nothing is divided by what the batch holds: the loss is one patient's own.
"""

import torch
from torch import Tensor
from torch.nn import functional


def consistency_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of one patient's student views against one teacher distribution.

    Args:
        student: [V, K] logits of the views.
        targets: [K], adds up to one.
        temperature: of the student.
    """
    return -(targets * functional.log_softmax(student / temperature, dim=-1)).sum(-1).mean()


def labelled_loss(student: Tensor, label: Tensor, classes: int, temperature: float, smoothing: float) -> Tensor:
    """Mean cross entropy of one patient's views with his label; zero where he has none.

    Args:
        student: [V, K] logits; the first `classes` are the classes'.
        label: scalar, negative for none. No branch depends on it, so that patients may be mapped over.
    """
    log_p = functional.log_softmax(student[:, :classes] / temperature, dim=-1)
    hard = (torch.arange(classes, device=label.device) == label).float()  # one_hot would read the label, which vmap forbids
    target = (1 - smoothing) * hard + smoothing / classes
    return torch.where(label >= 0, -(target * log_p).sum(-1).mean(), 0.0)
