"""AdamW over the trained arrays, and its learning rates over a run."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.config.run import RunConfig
from common.decoders.decoder import DECODER
from common.training.schedule import learning_rate


def make_optimizer(student: Mapping[str, Tensor], config: RunConfig) -> torch.optim.Optimizer:
    """AdamW; head (a decoder, too) and adapters have rates of their own, vectors (norms, biases) no decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, value in student.items():
        fresh = name.startswith(("head.", DECODER))
        rate = config.training.head_learning_rate if fresh else config.training.learning_rate
        decay = config.training.weight_decay if value.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(value)
    return torch.optim.AdamW(
        [{"params": v, "lr": rate, "weight_decay": decay, "base": rate} for (rate, decay), v in groups.items()]
    )


def set_rates(optimizer: torch.optim.Optimizer, config: RunConfig, progress: float, rounds: int = 0) -> None:
    """Move every group along a schedule of so many rounds; 0: of the whole run."""
    warmup = config.training.warmup_rounds / (rounds or config.federation.rounds)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["base"], progress, warmup)
