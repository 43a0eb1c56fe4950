"""Works without torch's compiler, which nothing here uses: it is a third of what torch and timm take to start.

torchvision, timm and torch's optimizers ask three things of `torch._dynamo`: whether it can compile (no), to leave a function
alone (it does), and to break a graph (there is none). Two stand-ins answer that. Asked anything else they step aside for the real
one; afterwards they are gone.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER, ANSWERS = "torch._dynamo", "torch._dynamo.utils"


class StandIn(ModuleType):
    """A placeholder module: anything beyond what it was given loads the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _step_aside()
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def without_compiler() -> Iterator[None]:
    """What is inside does not load `torch._dynamo`, unless it needs more of it than its absence."""
    import torch  # noqa: F401, PLC0415  (the stand-ins are for what comes after it)

    place = None if COMPILER in sys.modules else importlib.util.find_spec(COMPILER)
    if place is None:  # loaded already, or a torch that has none
        yield
        return
    compiler, answers = StandIn(COMPILER), StandIn(ANSWERS)
    compiler.__path__ = list(place.submodule_search_locations or ())
    vars(compiler).update(disable=_leave_alone, graph_break=lambda msg="": None, utils=answers)
    vars(answers).update(is_compile_supported=lambda device_type: False)
    sys.modules.update({COMPILER: compiler, ANSWERS: answers})
    try:
        yield
    finally:
        _step_aside()


def _leave_alone(fn: Callable[..., Any] | None = None, recursive: bool = True, **reason: str | None) -> Callable[..., Any]:
    """`torch._dynamo.disable` where nothing is compiled: the function itself, also as a decorator with arguments."""
    del recursive, reason
    return fn if fn is not None else lambda function: function


def _step_aside() -> None:
    for name in (COMPILER, ANSWERS):
        if isinstance(sys.modules.get(name), StandIn):
            del sys.modules[name]
