"""Centring and sharpening of the teacher (DINO: Caron et al., ICCV 2021, eq. 3 and 4), for patients and for patches alike.

The centre is no state of the federation: it begins anew in every round, with the first batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.objectives.term import State

if TYPE_CHECKING:
    from torch import Tensor


def centred_targets(logits: Tensor, state: State, momentum: float, temperature: float) -> tuple[Tensor, State]:
    """Move the centre by these logits, then centre and sharpen them.

    Args:
        logits: [..., K] of the teacher.
        state: `center` [K], or nothing before the first batch.
        momentum: of the centre, 0 to 1.
        temperature: of the teacher, above 0.

    Returns:
        Distributions [..., K], and the next state.
    """
    center = update_center(state.get("center"), logits.flatten(0, -2), momentum)
    return teacher_targets(logits, center, temperature), {"center": center}


def teacher_targets(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centred, sharpened teacher distribution.

    Args:
        logits: [..., K].
        center: [K].
        temperature: of the teacher, above 0.

    Returns:
        [..., K], rows add up to one.
    """
    return ((logits - center) / temperature).softmax(dim=-1)


def update_center(center: Tensor | None, logits: Tensor, momentum: float) -> Tensor:
    """EMA of the mean teacher logits (DINO, eq. 4); the first batch starts it.

    Args:
        center: [K], or None at the start of a round.
        logits: [R, K]; R may be 0.
        momentum: the share of the old centre that stays, 0 to 1.
    """
    if len(logits) == 0:
        return logits.new_zeros(logits.shape[-1]) if center is None else center
    mean = logits.mean(0)
    return mean if center is None else momentum * center + (1 - momentum) * mean
