"""iBOT: the student must say of a masked patch what the teacher sees there (Zhou et al., ICLR 2022, eq. 2)."""

from torch import Tensor
from torch.nn import functional


def ibot_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy over all masked patch tokens.

    Args:
        student: [R, K] logits at the R masked tokens.
        targets: [R, K] teacher distributions at the same tokens.

    Returns:
        Scalar; zero where nothing is masked.
    """
    log_p = functional.log_softmax(student / temperature, dim=-1)
    return -(targets * log_p).sum() / max(len(student), 1)
