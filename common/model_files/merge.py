"""Merges adapters into the weights that they adapt: one plain model with the same outputs and no cost at run time.

An adapter that gives a plain matrix (`mergeable`) is replaced by it; what was trained of the backbone's own weights is copied.
One that is not mergeable stays as a module.
"""

import copy

from torch import nn

from common.models.adapted import Adapted
from common.models.multimodal import MultiModalViT


def merge(model: MultiModalViT) -> MultiModalViT:
    """A copy of the model without mergeable adapters, with equal outputs up to rounding; nothing in it asks for gradients."""
    plain = copy.deepcopy(model)
    for owner in list(plain.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, Adapted) and child.adapter.mergeable:
                setattr(owner, name, child.merged())
    return plain.requires_grad_(False)


def kept_modules(model: nn.Module) -> tuple[str, ...]:
    """Names of the adapters that cannot be merged."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, Adapted))
