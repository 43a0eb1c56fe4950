"""One gradient for each patient: all slices, modalities and views of a patient are one example.

Hooks that take the first axis for the example (Opacus' own, on a model that folds slices into the batch) make the slice the unit,
and a patient of six slices then moves the sum by up to six clipping norms. Here the loss itself is the patient's, so nothing can
be counted wrongly. P parameters by name, n patients.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap

Parameters = Mapping[str, Tensor]


def looped_gradients(loss: Callable[[Parameters, int], Tensor], parameters: Parameters, patients: int) -> dict[str, Tensor]:
    """Gradients by one backward pass a patient: little memory, and no layer need know of it.

    Args:
        loss: scalar loss of patient i (0 to n-1).
        parameters: leaves that take gradients.
        patients: n, may be 0.

    Returns:
        [n, *shape] by name; zeros where the loss does not depend on a parameter, and for all of a patient whose gradient is not
        finite (such a patient then moves nothing, which no bound forbids).
    """
    names, leaves = list(parameters), list(parameters.values())
    stacked = {name: leaf.new_zeros((patients, *leaf.shape)) for name, leaf in parameters.items()}
    for i in range(patients):
        found = torch.autograd.grad(loss(parameters, i), leaves, allow_unused=True)
        for name, value in zip(names, found, strict=True):
            if value is not None:
                stacked[name][i] = value
    return _finite(stacked)


def mapped_gradients(
    loss: Callable[[Parameters, tuple[Tensor, ...]], Tensor], parameters: Parameters, inputs: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """The same by `vmap`, for a head alone: operations that have no batching rule, as fused attention, it runs one by one.

    Args:
        loss: scalar loss of one patient's inputs (each without its first axis); the same operations for every patient.
        parameters: as above.
        inputs: each [n, ...], n at least 1.
    """
    values = {name: value.detach() for name, value in parameters.items()}
    stacked = vmap(grad(loss), in_dims=(None, 0), randomness="error")(values, inputs)
    return _finite({name: value.detach() for name, value in stacked.items()})


def batched_gradients(losses: Callable[[Parameters], Tensor], parameters: Parameters, patients: int) -> dict[str, Tensor]:
    """The same in one forward and one backward pass, in which each patient has arrays of their own; takes the memory of all.

    Equal to rounding: in which order a product adds up may depend on how many patients go together.

    Args:
        losses: [n], of copies [n, *shape] of the arrays: patient i's depends on the copy of number i alone.
        parameters: as above.
        patients: n, at least 1.
    """
    own = {name: value.detach().repeat(patients, *[1] * value.ndim).requires_grad_() for name, value in parameters.items()}
    found = torch.autograd.grad(losses(own).sum(), list(own.values()), allow_unused=True)
    pairs = zip(own.items(), found, strict=True)
    return _finite({name: torch.zeros_like(value) if grad is None else grad for (name, value), grad in pairs})


def _finite(stacked: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take out patients with a value that is not a number or infinite: one such would spoil the clipping of all."""
    good = torch.stack([value.flatten(1).isfinite().all(1) for value in stacked.values()]).all(0)
    if bool(good.all()):
        return stacked
    return {name: torch.where(good.view(-1, *[1] * (value.ndim - 1)), value, 0.0) for name, value in stacked.items()}
