"""Adapters merged into the weights that they adapt: one plain model, with the same outputs and nothing to add at run time.

LoRA is linear, so W + (alpha / r) B A takes the place of W (Hu et al., ICLR 2022, section 4.1). BitFit, norms and full training
changed the weights themselves: those are copied. A bottleneck adapter has a nonlinearity inside and cannot be merged: it stays as
a module.
"""

import copy

import torch
from torch import nn

from common.models.adapters import BottleneckMlp, LoRALinear
from common.models.multimodal import MultiModalViT


def merge(model: MultiModalViT) -> MultiModalViT:
    """A copy of the model without LoRA modules, with equal outputs up to rounding; nothing in it asks for gradients."""
    plain = copy.deepcopy(model)
    for owner in list(plain.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, LoRALinear):
                setattr(owner, name, _merged(child))
    return plain.requires_grad_(False)


def kept_modules(model: nn.Module) -> tuple[str, ...]:
    """Names of the adapters that cannot be merged."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, BottleneckMlp))


def _merged(lora: LoRALinear) -> nn.Linear:
    """W + (alpha / r) B A, added up in float64 so that only the last step rounds."""
    frozen: nn.Linear = lora.frozen
    linear = nn.Linear(frozen.in_features, frozen.out_features, bias=frozen.bias is not None).to(frozen.weight.device)
    low = lora.lora_b.double() @ lora.lora_a.double()
    with torch.no_grad():
        linear.weight.copy_(frozen.weight.double() + lora.scale * low)
        if frozen.bias is not None:
            linear.bias.copy_(frozen.bias)
    return linear
