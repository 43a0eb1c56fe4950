"""Before a run on a Ray cluster: every machine must have the same code, and find the same folders at the same paths."""

import hashlib
import platform
import tempfile
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from common.errors import FederationError
from simulation.cluster import CHECKOUT, Cluster, connected, nodes_of
from simulation.example import copy_weights

ANSWER_SECONDS = 300.0  # the first task of a machine imports what it needs
LIBRARIES = ("torch", "timm", "numpy", "flwr", "ray")
PACKAGES = ("client", "common", "server", "simulation")
ABSENT = "none"
INSTALL = "Install there what is installed here, at the same path, and start Ray by that environment's `ray start`."
TOKEN = "token"

T = TypeVar("T")


def require_alike(cluster: Cluster, data: Sequence[Path], out: Path | None = None) -> None:
    """Refuse a cluster on whose machines a run would go wrong, before anything is written that stays.

    Args:
        cluster: where it is.
        data: folders, and files, that are read.
        out: the run's folder, if jobs write there; it need not be there yet.

    Raises:
        FederationError: no cluster answers, or a machine differs from this one; says which, and in what.
    """
    with connected(cluster) as ray:
        if out is None:
            _compare(ray, tuple(data), None)
            return
        present = next(folder for folder in (out, *out.parents) if folder.is_dir())
        with tempfile.TemporaryDirectory(prefix="fedmri-", dir=present) as shared:
            (Path(shared) / TOKEN).write_text(uuid.uuid4().hex, encoding="utf-8")
            _compare(ray, tuple(data), Path(shared))
        _on_each(ray, copy_weights)  # a run's code looks for what is shipped in the cache of its own machine


def _compare(ray: ModuleType, data: tuple[Path, ...], shared: Path | None) -> None:
    here = facts(data, shared)
    for name, there in _on_each(ray, facts, data, shared).items():
        differ = [f"{what}: {there.get(what)} there, {own} here" for what, own in here.items() if there.get(what) != own]
        if differ:
            raise FederationError(
                f"Ray's node {name} differs from this machine: {'; '.join(differ)}. All machines need the same FedMRI and "
                "libraries, and data and run folder at the same paths."
            )


def facts(data: tuple[Path, ...], shared: Path | None) -> dict[str, str]:
    """What must be equal on all machines, told here and now.

    Args:
        data: folders and files that are read; they are told by name and size, not by content.
        shared: a folder beside the run's, which holds a token.
    """
    found = {"FedMRI's code": checkout_hash()[:12], "Python": platform.python_version()}
    found |= {name: version(name) for name in LIBRARIES}
    found |= {str(path): _listing(path) for path in data}
    if shared is not None:
        token = shared / TOKEN
        found["the folder of the results"] = token.read_text(encoding="utf-8")[:12] if token.is_file() else ABSENT
    return found


def checkout_hash() -> str:
    """SHA-256 of all of FedMRI's source files: a baseline runs more than what travels to hospitals."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(CHECKOUT).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _listing(path: Path) -> str:
    """A folder's names, or a file's size, in a few letters."""
    if path.is_file():
        return f"{path.stat().st_size} bytes"
    if not path.is_dir():
        return ABSENT
    names = sorted(one.name for one in path.iterdir())
    return f"{len(names)} names, {hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:8]}"


def _on_each(ray: ModuleType, function: Callable[..., T], *given: Any) -> dict[str, T]:
    """What the function gives on each machine, by its address and Ray's port there.

    Raises:
        FederationError: one gives no answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  seconds, for who has a cluster

    asked = {}
    for node in nodes_of(ray):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(function)
        asked[f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"] = task.remote(*given)
    return {name: _answer(ray, name, future) for name, future in asked.items()}


def _answer(ray: ModuleType, name: str, future: object) -> Any:
    try:
        return ray.get(future, timeout=ANSWER_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise FederationError(f"Ray's node {name} cannot run FedMRI: {_cause(error)}. {INSTALL}") from error
    except ray.exceptions.RayError as error:
        raise FederationError(f"Ray's node {name} gives no answer ({type(error).__name__}). {INSTALL}") from error


def _cause(error: Any) -> str:
    return f"{type(error.cause).__name__}: {error.cause}".splitlines()[0][:200].rstrip(".")
