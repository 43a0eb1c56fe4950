"""Which sites the SuperLink lets in: its Control API, which answers on this machine only.

`flwr supernode list` tells neither names nor keys, hence Flower's own client instead of its command.
"""

import os
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from common.deployment.flower_cli import LOOPBACK
from common.errors import FederationError
from server.deployment.certificates import CA
from server.deployment.home import Home

UNREGISTERED = "unregistered"
DATABASE = "superlink.db"


@dataclass(frozen=True)
class Node:
    """A site as the SuperLink knows it."""

    id: int
    name: str
    key: bytes  # public key, PEM
    status: str  # registered (never seen yet), online, offline, unregistered
    last_seen: str  # ISO; when it came online or went offline last; "": never


class Nodes:
    """The sites that the SuperLink knows; see `connect`."""

    def __init__(self, home: Home, client: ControlHttpClient) -> None:
        self._home, self._client = home, client

    def all(self) -> tuple[Node, ...]:
        """Every node, unregistered ones included."""
        with _plain_errors():
            answer = self._client.ListNodes(ListNodesRequest())
        return tuple(
            Node(node.node_id, node.name, node.public_key, node.status, max(node.last_activated_at, node.last_deactivated_at))
            for node in answer.nodes_info
        )

    def run_word(self, number: str) -> str:
        """Flower's word for a run, such as `running` or `finished:failed`; "" where it knows of none."""
        request = ListRunsRequest(run_id=int(number))
        try:
            with _plain_errors():
                runs = self._client.ListRuns(request).run_dict
        except UnknownToSuperLinkError:
            return ""
        status = runs[int(number)].status if int(number) in runs else None
        return ":".join(filter(None, (status.status, status.sub_status))) if status else ""

    def register(self, name: str, key: bytes) -> None:
        """Let a site in, by its public key as PEM."""
        with _plain_errors():
            self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))

    def unregister(self, node: Node) -> None:
        """Let a site in no more; what it asks from now on is refused."""
        with _plain_errors():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))

    def forget(self, node: Node) -> None:
        """Let go of an unregistered node, so that its key may be registered again: a site that was revoked, or has a new name.

        By hand in the SuperLink's database, for want of another way: flwr 1.41 only marks the row of a node as unregistered
        (`SqlLinkState.delete_node`), holds every key in the table to be unique, and has neither command nor call that
        removes or revives a row. A new database would forget the runs as well.
        """
        with closing(sqlite3.connect(self._home.state / DATABASE, timeout=30)) as database, database:
            database.execute("DELETE FROM node WHERE public_key = ? AND status = ?", (node.key, UNREGISTERED))


@contextmanager
def connect(home: Home) -> Iterator[Nodes]:
    """Talk to the SuperLink of this home.

    Raises:
        FederationError: it does not answer, or refuses.
    """
    for variable in ("NO_PROXY", "no_proxy"):  # a proxy has no business on the loopback
        os.environ[variable] = ",".join(filter(None, (os.environ.get(variable), LOOPBACK)))
    client = ControlHttpClient(
        f"https://{home.superlink}",
        interceptors=[RuntimeVersionHttpInterceptor(component_name="fedmri-server")],
        verify=ssl.create_default_context(cafile=str(home.folder / CA)),
    )
    try:
        yield Nodes(home, client)
    finally:
        client.close()


class UnknownToSuperLinkError(FederationError):
    """The SuperLink has nothing of that number."""


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            raise UnknownToSuperLinkError("The SuperLink does not know it.") from error
        raise FederationError(f"The SuperLink refused: {error.response.status_code} {error.response.text[:300]}") from error
    except httpx.HTTPError as error:
        raise FederationError(f"The SuperLink does not answer ({error}). Is it started? See `fedmri-server status`.") from error
