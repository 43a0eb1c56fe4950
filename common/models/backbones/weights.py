"""Files of backbone weights: found, read, told apart by their SHA-256. Nothing in them is unpickled beyond tensors.

PyTorch is loaded where tensors are read: a hospital's gate looks at files without it.
"""

import hashlib
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from common.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = Path(__file__).parents[1] / "weights" / "fedmri_vit_mini.safetensors"
SHIPPED_FILES = {  # by `model.weights`; a name never comes to mean another file
    "phantom": SHIPPED,
    "phantom-tissue": SHIPPED.with_name("fedmri_vit_mini_tissue.safetensors"),
}
WITHOUT_FILE = ("hub", "random")  # as `model.weights`: they come from the architecture's hub, or are drawn


def find_weights(weights: str) -> Path:
    """The local file that `model.weights` names.

    Raises:
        WeightsError: it is not there.
    """
    path = shipped(SHIPPED_FILES[weights]) if weights in SHIPPED_FILES else Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"Backbone weights {path}: no such file. Download the architecture's safetensors or official .pth file and name "
            "it with --set weights=FILE, or ask for untrained weights by name with --set weights=random."
        )
    return path


def shipped(file: Path) -> Path:
    """A shipped file. A simulation's Flower bundle carries none: the copy that `fedmri-sim` left in the cache stands for it.

    A real federation does not come here: its coordinator names the file, its sites keep theirs (`kept_weights`).
    """
    from common.data.cache import default_cache  # noqa: PLC0415  (only here does a model care for folders)

    copy = default_cache() / "weights" / file.name
    return file if file.is_file() or not copy.is_file() else copy


def read_weights(path: Path) -> "Mapping[str, Tensor]":
    """The tensors of a `.safetensors` file or of an official `.pth`.

    Raises:
        WeightsError: neither.
    """
    import torch  # noqa: PLC0415  see above
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"Weights file {path}: not readable as plain tensors ({type(error).__name__}).") from error
    state = state.get("teacher", state.get("model", state.get("state_dict", state))) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"Weights file {path}: expected a table of named tensors.")
    return state


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    status = path.stat()
    return _file_sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _file_sha256(path: str, size: int, modified: int) -> str:
    """Hash once per content: a ViT-g file has 4.5 GB, and every client of a process asks."""
    del size, modified
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(state: "Mapping[str, Tensor]") -> str:
    """SHA-256 over names, shapes and float32 bytes, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()
