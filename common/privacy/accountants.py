"""Opacus' accountants by themselves: numpy and scipy, without the PyTorch that the rest of Opacus trains with.

Importing any part of Opacus loads all of it, and with it PyTorch's distributed tensors: three seconds before a budget is shown.
The accountants ask one name of it, for a training loop that nobody here gives them. Where PyTorch is
loaded already, nothing is won.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opacus.accountants.prv import PRVAccountant
    from opacus.accountants.rdp import RDPAccountant

LIBRARY = "opacus"
_one_at_a_time = threading.Lock()  # a second thread would find the first one's stand-ins, or take them away


def accountants() -> "tuple[type[RDPAccountant], type[PRVAccountant]]":
    """Opacus' Renyi and PRV accountants, which remember what one step costs at each order.

    One epsilon asks for these three times (Renyi once, PRV twice), and other numbers of steps ask again.
    """
    with _one_at_a_time:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> "tuple[type[RDPAccountant], type[PRVAccountant]]":
    with _accountants_alone():
        rdp = importlib.import_module(f"{LIBRARY}.accountants.analysis.rdp")
        # A pure function of rate, noise and order.
        vars(rdp)["_compute_rdp"] = lru_cache(maxsize=65536)(vars(rdp)["_compute_rdp"])
        renyi = importlib.import_module(f"{LIBRARY}.accountants.rdp")
        exact = importlib.import_module(f"{LIBRARY}.accountants.prv")
    return renyi.RDPAccountant, exact.PRVAccountant


@contextmanager
def _accountants_alone() -> Iterator[None]:
    """What is inside imports modules of Opacus without what its packages load by themselves; afterwards none of it is left."""
    place = importlib.util.find_spec(LIBRARY)
    folders = place.submodule_search_locations if place else None
    if "torch" in sys.modules or not folders:
        yield
        return
    optimizers = ModuleType(f"{LIBRARY}.optimizers")
    vars(optimizers)["DPOptimizer"] = type("DPOptimizer", (), {})  # the accountants name its type
    sys.modules |= {
        LIBRARY: _package(LIBRARY, Path(folders[0])),
        f"{LIBRARY}.accountants": _package(f"{LIBRARY}.accountants", Path(folders[0], "accountants")),
        optimizers.__name__: optimizers,
    }
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == LIBRARY]:
            del sys.modules[name]


def _package(name: str, folder: Path) -> ModuleType:
    """A package that finds its modules and has run nothing."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    return package
