"""A GPU for machines that have none: tensors that were moved to "cuda" stay on the CPU, but are known, and may not be mixed.

A `TorchFunctionMode` sees every call of torch. It follows which tensors are "there", answers `device` as a GPU would, and refuses
what a GPU refuses: one operation on tensors of both, and numpy's view of a tensor that is there.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

THERE = torch.device("cuda")
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}  # a GPU's tensor may be indexed by the CPU's
ASKING = {torch._has_compatible_shallow_copy_type}  # computes nothing


class TwoDevices(TorchFunctionMode):
    """Attributes: `calls`, operations on tensors that are there."""

    def __init__(self) -> None:
        super().__init__()
        self._there = WeakIdKeyDictionary()
        self.calls = 0

    def is_there(self, value: object) -> bool:
        """Whether it is a tensor that was moved, or that came of one."""
        return isinstance(value, Tensor) and value in self._there

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function == Tensor.device.__get__:
            return THERE if self.is_there(args[0]) else function(*args, **kwargs)
        if function in (Tensor.to, Tensor.cpu):
            return self._moved(function, args, kwargs)
        if function == cast(Any, Tensor.data).__set__:  # how a module moves its parameters
            function(*args, **kwargs)
            return self._mark(args[0], self.is_there(args[1]))
        if function in (Tensor.numpy, Tensor.__array__) and self.is_there(args[0]):
            raise TypeError("can't convert cuda device type tensor to numpy")
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == THERE.type:
            return self._mark(function(*args, **{**kwargs, "device": "cpu"}), True)
        return self._computed(function, args, kwargs)

    def _moved(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A move keeps the values: a tensor that stays where it is is itself, one that goes is a copy."""
        given = (*args[1:], *kwargs.values())
        places = ["cpu"] if function is Tensor.cpu else [str(value) for value in given if isinstance(value, str | torch.device)]
        there = places[0].startswith(THERE.type) if places else self.is_there(args[0])
        moved = args[0] if there == self.is_there(args[0]) else args[0].clone()
        for dtype in (value for value in given if isinstance(value, torch.dtype)):
            moved = moved.to(dtype)
        return self._mark(moved, there)

    def _computed(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [self.is_there(value) for value in tensors]
        checked = [here for value, here in zip(tensors, there, strict=True) if value.ndim]
        indexes = function in INDEXING and bool(there) and there[0]
        if any(there) and not all(checked) and not indexes and function not in ASKING:
            raise RuntimeError(f"Expected all tensors to be on the same device: {getattr(function, '__name__', function)}")
        self.calls += any(there)
        return self._mark(function(*args, **kwargs), any(there))

    def _mark(self, result: Any, there: bool) -> Any:
        def one(value: Any) -> Any:
            if isinstance(value, Tensor):
                if there:
                    self._there[value] = True
                elif value in self._there:
                    del self._there[value]
            return value

        return tree_map(one, result)
