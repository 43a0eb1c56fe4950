"""One model on several devices of a machine: the rows of a batch are split among them, and their outputs put together again.

It is one process with a thread a device: nobody need find a second process, wait for it or end it. Frozen weights go once;
what is trained goes to every device in each step, and its gradients come back as one sum, in the order of the devices. Loss and
optimizer see the whole batch on the first device: terms that couple patients stay what they are. With one device the model is
called as it is.

N rows of a batch.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from common.models.multimodal import MultiModalViT, Output
from common.training.device import place

Parameters = dict[str, Tensor]
T = TypeVar("T")


class Replicas:
    """The model and its copies.

    Args:
        model: lends its weights, and becomes the first of them.
        devices: one or more; the first one is where batches come from and results go to.
    """

    def __init__(self, model: MultiModalViT, devices: Sequence[torch.device]) -> None:
        place(model, devices[0])
        self.devices = tuple(devices)
        self.models = (model, *(copy.deepcopy(model) for _ in devices[1:]))
        for one, device in zip(self.models, devices, strict=True):
            place(one, device)

    def lend(self, arrays: Parameters) -> list[Parameters]:
        """The arrays on every device; gradients of all go to the given ones."""
        if len(self.devices) == 1:
            return [arrays]
        copies = {name: _Copies.apply(value, self.devices) for name, value in arrays.items()}
        return [{name: values[place] for name, values in copies.items()} for place in range(len(self.devices))]

    def __call__(self, arrays: Sequence[Parameters], inputs: Sequence[Tensor | None], dense: bool = False) -> Output:
        """The model's outputs for all rows, on the first device.

        Args:
            arrays: from `lend`.
            inputs: of `MultiModalViT.forward`, each [N, ...] or None.
            dense: as there.
        """
        if len(self.devices) == 1:
            output: Output = functional_call(self.models[0], arrays[0], tuple(inputs), {"dense": dense})
            return output
        parts = _split(inputs, len(self.devices))
        calls = [partial(self._part, place, arrays[place], part, dense) for place, part in enumerate(parts)]
        outputs: list[Output] = moved(at_once(calls, self.devices), self.devices[0])
        embedding, logits, patch_logits = (torch.cat(parts) for parts in list(zip(*outputs, strict=True))[:3])
        pixels = [one.dense for one in outputs if one.dense is not None]
        return Output(embedding, logits, patch_logits, torch.cat(pixels) if pixels else None)

    def _part(self, place: int, arrays: Parameters, inputs: Sequence[Tensor | None], dense: bool) -> Output:
        here = tuple(moved(one, self.devices[place]) for one in inputs)
        output: Output = functional_call(self.models[place], arrays, here, {"dense": dense})
        return output


def _split(inputs: Sequence[Tensor | None], devices: int) -> list[list[Tensor | None]]:
    """Rows in parts of like size, in order; no part is empty, so that fewer rows than devices make fewer parts."""
    [rows] = {len(one) for one in inputs if one is not None}
    parts = min(devices, rows)
    chunks = [[None] * parts if one is None else torch.tensor_split(one, parts) for one in inputs]
    return [list(part) for part in zip(*chunks, strict=True)]


def at_once(calls: Sequence[Callable[[], T]], devices: Sequence[torch.device]) -> list[T]:
    """What each call gives, in order: each in a thread of its own, on its device, with this thread's gradients and precision."""
    if len(calls) == 1:
        return [calls[0]()]
    kind, grad = devices[0].type, torch.is_grad_enabled()
    mixed, precision = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def run(call: Callable[[], T], device: torch.device) -> T:
        with _current(device), torch.set_grad_enabled(grad), torch.autocast(kind, precision, enabled=mixed):
            return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls, devices))


def moved(found: Any, device: torch.device) -> Any:
    """The tensors in tuples and lists on another device; all else as it is."""
    if isinstance(found, Tensor):
        return found.to(device)
    if isinstance(found, list):
        return [moved(one, device) for one in found]
    if isinstance(found, tuple):
        parts = [moved(one, device) for one in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return found


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _Copies(torch.autograd.Function):
    """A tensor on every device. Its gradient is the sum of theirs in the order of the devices, whichever is ready first."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, devices: Sequence[torch.device]) -> tuple[Tensor, ...]:
        ctx.device = value.device
        return tuple(value.to(device, copy=True) for device in devices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].to(ctx.device)
        for gradient in gradients[1:]:
            total = total + gradient.to(ctx.device)
        return total, None
