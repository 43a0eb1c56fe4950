"""A Ray cluster that is there already: several machines do what one would. It is found, used and left as it was.

Ray takes a driver only from a machine of the cluster. Whoever reaches its ports may run what they like there: it belongs behind
a researcher's own door, and hospitals have no part in it.
"""

import logging
import math
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from common.errors import ConfigError, FederationError
from simulation.marked_processes import ONE_THREAD

CHECKOUT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}")
REACH_SECONDS = 15.0  # Ray itself would try for minutes
WHO_ARE_YOU = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # the first thing that Ray's own programs ask
WITHOUT_PROXY = [("grpc.enable_http_proxy", 0)]

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Cluster:
    """Where it answers: HOST:PORT, as `ray start --head` prints it.

    Raises:
        ConfigError: the address has another form.
    """

    address: str

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ConfigError(f"--address: expected HOST:PORT, as `ray start --head` prints it; got {self.address!r}.")


@dataclass(frozen=True)
class Share:
    """What of a machine one worker has: cores, and of a GPU so much."""

    cores: int
    gpus: float


def shares(nodes: Sequence[tuple[float, float]], wanted: int) -> Share:
    """The largest equal shares of the cluster that so many workers can have at once, so that no more are started.

    Args:
        nodes: cores and GPUs of each machine. Where one has GPUs, those without have no part.
        wanted: workers; where the cores are fewer, each worker has one of them.
    """
    used = [node for node in nodes if node[1]] or list(nodes)
    at_most = max(1, int(max((cores for cores, _ in used), default=1)))
    fitting = (c for c in range(at_most, 0, -1) if sum(int(cores / c) for cores, _ in used) >= wanted)
    cores = next(fitting, 1)
    fractions = [gpus / max(1, int(has / cores)) for has, gpus in used]
    return Share(cores, min([1.0, *(math.floor(1000 * one) / 1000 for one in fractions)]))


@contextmanager
def connected(cluster: Cluster) -> Iterator[ModuleType]:
    """Ray, as a driver of the cluster for a while; what it had begun there ends with it.

    Raises:
        FederationError: no cluster answers, or not to this machine.
    """
    require_reachable(cluster)
    import ray  # noqa: PLC0415  seconds, for who has a cluster

    if ray.is_initialized():
        raise FederationError(f"This program has a Ray of its own already, and cannot use {cluster.address} beside it.")
    variables = {**ONE_THREAD, "PYTHONPATH": str(CHECKOUT)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Ray's next version, to nobody's use here
            ray.init(
                address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": variables}
            )
    except Exception as error:
        raise FederationError(
            f"--address {cluster.address}: Ray takes no program of this machine ({_first_line(error)}). Join the cluster from "
            f"here by `ray start --address {cluster.address}`, with the Ray and Python that the cluster has."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def require_reachable(cluster: Cluster) -> None:
    """Refuse an address at which no Ray cluster answers, soon.

    Raises:
        FederationError: none does.
    """
    import grpc  # noqa: PLC0415  no command waits for what it does not use

    with grpc.insecure_channel(cluster.address, options=WITHOUT_PROXY) as channel:
        try:
            channel.unary_unary(WHO_ARE_YOU)(b"", timeout=REACH_SECONDS)
        except grpc.RpcError as error:
            raise FederationError(
                f"--address {cluster.address}: no Ray cluster answers there ({error.code().name.lower().replace('_', ' ')}). "
                "Start one by `ray start --head`, and give the address that it prints."
            ) from error


def nodes_of(ray: ModuleType) -> list[dict[str, Any]]:
    """The machines of the cluster that compute, as Ray tells of them, in the order of their ids.

    Raises:
        FederationError: there is none.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise FederationError("No machine of the Ray cluster offers a core: start them with `ray start --num-cpus N`.")
    return sorted(nodes, key=lambda node: str(node["NodeID"]))


def share_of(ray: ModuleType, wanted: int) -> Share:
    """What each of so many workers can have of the cluster."""
    return shares([(node["Resources"]["CPU"], node["Resources"].get("GPU", 0)) for node in nodes_of(ray)], wanted)


def as_they_end(work: Callable[[J], R], jobs: Sequence[J], cluster: Cluster) -> Generator[tuple[J, R], None, None]:
    """As `simulation.processes.as_they_end`, each job on a core of the cluster. Whoever stops asking leaves nothing running.

    Raises:
        FederationError: no cluster answers, or a process was killed there, or its machine went.
    """
    with connected(cluster) as ray:
        run = ray.remote(num_cpus=1, num_gpus=share_of(ray, len(jobs)).gpus)(work)
        waiting = {run.remote(job): job for job in jobs}
        try:
            while waiting:
                [ended], _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ended)
                yield job, _result(ray, ended)
        finally:
            for future in waiting:
                ray.cancel(future, force=True)


def _result(ray: ModuleType, future: object) -> Any:
    """What the job gave, or its own error.

    Raises:
        FederationError: its process ended before it did.
    """
    try:
        return ray.get(future)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise FederationError(
            f"A process on the Ray cluster ended before its job was done, by want of memory most often ({_first_line(error)}). "
            "What is done is kept: give the same command again."
        ) from error


def _first_line(error: Exception) -> str:
    """The first line of somebody else's error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
