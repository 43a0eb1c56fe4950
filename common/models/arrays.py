"""Named arrays of a model: those that are trained, sent, and kept in checkpoints.

An update is a `dict[str, np.ndarray]` of float32 arrays in sorted order of their names, with safetensors semantics on disk.
Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.adapters.adapter import RESIDUAL
from common.errors import FederationError, WeightsError
from common.files import write_atomic

if TYPE_CHECKING:  # the hospital's gate reads arrays in every message, and has no use for torch
    from torch import nn

Arrays = dict[str, NDArray[np.float32]]


def get_arrays(model: "nn.Module") -> Arrays:
    """Copies of all parameters that are trained, by name."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: trained[name].detach().cpu().float().numpy().copy() for name in sorted(trained)}


def set_arrays(model: "nn.Module", arrays: Arrays) -> None:
    """Write trained arrays into the model, after `check_arrays` against its own."""
    import torch  # noqa: PLC0415

    check_arrays(arrays, get_arrays(model))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in arrays.items():
            parameters[name].copy_(torch.from_numpy(np.array(array)))


def check_arrays(arrays: Arrays, template: Arrays) -> None:
    """Refuse arrays that differ from `template` in names, shapes or type, or that hold a value that is not finite.

    Raises:
        FederationError: names the first array that is wrong, what was expected and what came.
    """
    missing, unknown = sorted(template.keys() - arrays.keys()), sorted(arrays.keys() - template.keys())
    if missing or unknown:
        raise FederationError(f"Array names differ: missing {missing[:3]}, unknown {[u[:80] for u in unknown[:3]]}.")
    for name, expected in template.items():
        array = arrays[name]
        if array.shape != expected.shape or array.dtype != np.float32:
            raise FederationError(f"Array {name}: expected float32 {expected.shape}, got {array.dtype} {array.shape}.")
        if not np.isfinite(array).all():
            raise FederationError(f"Array {name} holds values that are not finite.")


def arrays_sha256(arrays: Arrays) -> str:
    """SHA-256 over names, shapes and values: equal arrays have equal ones, on any machine."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def trained_at_sites(arrays: Arrays) -> Arrays:
    """The arrays that sites train and send the change of: all but residuals, which travel to them alone."""
    return {name: array for name, array in arrays.items() if name.rpartition(".")[2] not in RESIDUAL}


def difference(new: Arrays, old: Arrays) -> Arrays:
    """`new - old`, array by array."""
    return {name: np.asarray(new[name] - old[name]) for name in sorted(old)}


def norm(arrays: Arrays) -> float:
    """Euclidean norm of all arrays together."""
    return float(np.sqrt(sum(np.sum(arrays[name].astype(np.float64) ** 2) for name in sorted(arrays))))


def flat(arrays: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """All arrays as one vector, in the order of their names."""
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def shaped(values: NDArray[np.float64], template: Arrays) -> dict[str, NDArray[np.float64]]:
    """Undo `flat`: the vector under the names and shapes of `template`."""
    names = sorted(template)
    parts = np.split(values, np.cumsum([template[name].size for name in names])[:-1])
    return {name: part.reshape(template[name].shape) for name, part in zip(names, parts, strict=True)}


def save_arrays(path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
    """Write arrays and text metadata as one safetensors file, whole or not at all."""
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    write_atomic(path, save(ordered, metadata=_repeatable(metadata)))


def load_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Read a safetensors file of arrays.

    Raises:
        WeightsError: absent or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, plain_metadata(file.metadata())
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"Model file {path}: not a readable safetensors file ({error}).") from error


def _repeatable(metadata: dict[str, str]) -> dict[str, str]:
    """One JSON entry: safetensors does not keep the order of several, and equal runs must give equal bytes."""
    return {"fedmri": json.dumps(metadata, sort_keys=True)}


def plain_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    """A file's own metadata, as `save_arrays` was given them; a file of another maker keeps its own entries."""
    if metadata and "fedmri" in metadata:
        inner = json.loads(metadata["fedmri"])
        if not isinstance(inner, dict) or not all(isinstance(value, str) for value in inner.values()):
            raise ValueError("its metadata are no table of texts")
        return inner
    return dict(metadata or {})
