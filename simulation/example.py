"""What `flwr run .` finds when it is given no argument: small phantom hospitals and the shipped backbones, in the user's cache.

A Flower bundle carries neither data nor weights, and runs in a folder of its own: both are looked for here
(`server.run.federate`).
"""

import shutil
from collections.abc import Callable

from common.data.cache import default_cache
from common.files import write_atomic
from common.models.backbones.weights import SHIPPED_FILES
from common.models.public_features import SHIPPED_PUBLIC
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
    """Lay what is shipped, backbones and public features, where the code in a Flower bundle looks for it."""
    for file in (*SHIPPED_FILES.values(), *SHIPPED_PUBLIC.values()):
        copy = default_cache() / "weights" / file.name
        if file.is_file() and (not copy.is_file() or copy.read_bytes() != file.read_bytes()):
            write_atomic(copy, file.read_bytes())
