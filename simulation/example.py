"""What `flwr run .` finds when it is given no argument: small phantom hospitals and the shipped backbone, in the user's cache.

A Flower bundle carries neither data nor weights, and runs in a folder of its own: both are looked for here
(`server.run.federate`).
"""

import shutil
from collections.abc import Callable

from common.data.cache import default_cache
from common.files import write_atomic
from common.models.backbones.weights import SHIPPED
from simulation.phantom import write_hospitals

SEED = 7


def write_example(progress: Callable[[int, int], None] | None = None) -> None:
    """Make what is absent; `make setup` calls it."""
    cache = default_cache()
    if not (cache / "example").is_dir():
        shutil.rmtree(cache / "example", ignore_errors=True)
        write_hospitals(cache / "example", sites=4, patients=8, external=12, seed=SEED, progress=progress)
    copy_weights()


def copy_weights() -> None:
    """Lay the shipped backbone where the code in a Flower bundle looks for it."""
    copy = default_cache() / "weights" / SHIPPED.name
    if SHIPPED.is_file() and (not copy.is_file() or copy.read_bytes() != SHIPPED.read_bytes()):
        write_atomic(copy, SHIPPED.read_bytes())
