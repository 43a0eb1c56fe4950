"""The official files of DINOv3 (Siméoni et al., 2025), made such that timm's filter reads all of them rightly.

timm knows such a file by its registers, so one that was trained without them is taken for another family's; and it leaves biases
of queries and values out where the architecture has none, whether they are zero or not.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

REGISTERS = "storage_tokens"
BIAS = ".attn.qkv.bias"


def prepared(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The arrays of a file for timm's filter; of another layout as they are.

    Args:
        state: of the file.
        model: timm's `Eva`.

    Raises:
        ValueError: registers, or biases that are not zero, on one side alone.
    """
    if REGISTERS not in state and "rope_embed.periods" not in state:
        return dict(state)
    own = dict(model.named_parameters())
    registers = state.get(REGISTERS)
    if registers is None and "reg_token" in own:
        raise ValueError('it was trained without registers: put "_reg0" behind the name of the architecture')
    if registers is not None and registers.shape[1] and "reg_token" not in own:
        raise ValueError(f"it was trained with {registers.shape[1]} registers, the architecture has none")
    found = {REGISTERS: torch.zeros(1, 0, state["cls_token"].shape[-1]), **state}
    return found if any(name.endswith("q_bias") for name in own) else _without_biases(found)


def without_registers(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What timm's filter made, less the registers that were put in for it to know the file by."""
    return {name: array for name, array in found.items() if name != "reg_token" or array.shape[1]}


def _without_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without biases of queries, keys and values; those of keys change nothing, and the official code masks them out."""
    for name in (name for name in state if name.endswith(BIAS)):
        query, _, value = state[name].chunk(3)
        if query.any() or value.any():
            raise ValueError(f"{name} is not zero: take the architecture whose name has _qkvb behind dinov3")
    return {name: array for name, array in state.items() if not name.endswith(BIAS)}
