"""DINO: the student's view must say what the teacher's other view says (Caron et al., ICCV 2021, eq. 1 and 3)."""

import torch
from torch import Tensor
from torch.nn import functional


def teacher_targets(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centred, sharpened teacher distribution.

    Args:
        logits: [..., K].
        center: [K].

    Returns:
        [..., K], rows add up to one.
    """
    return functional.softmax((logits - center) / temperature, dim=-1)


def dino_loss(student: Tensor, targets: Tensor, temperature: float, *, skip_same: bool) -> Tensor:
    """Mean cross entropy over all pairs of a student and a teacher view.

    Args:
        student: [V, B, K] logits of V views.
        targets: [U, B, K] teacher distributions.
        skip_same: student view i and teacher view i are the same crop and do not pair.

    Returns:
        Scalar; zero where there is no pair.
    """
    log_p = functional.log_softmax(student / temperature, dim=-1)
    pairs = torch.einsum("ubk,vbk->uv", targets, log_p) / student.shape[1]
    keep = torch.ones_like(pairs)
    if skip_same:
        keep.fill_diagonal_(0)
    return -(pairs * keep).sum() / keep.sum().clamp(min=1)


def update_center(center: Tensor | None, logits: Tensor, momentum: float) -> Tensor:
    """EMA of the mean teacher logits (DINO, eq. 4); the first batch starts it.

    Args:
        center: [K], or None at the start of a round: the centre is no state of the federation.
        logits: [R, K]; R may be 0.
    """
    if len(logits) == 0:
        return logits.new_zeros(logits.shape[-1]) if center is None else center
    mean = logits.mean(0)
    return mean if center is None else momentum * center + (1 - momentum) * mean
