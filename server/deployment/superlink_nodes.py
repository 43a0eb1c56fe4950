"""Which sites the SuperLink lets in: its Control API, which answers on this machine only.

`flwr supernode list` tells neither names nor keys, hence Flower's own client instead of its command.
"""

import hashlib
import os
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
from flwr.proto.run_pb2 import RunStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from common.deployment.flower_cli import LOOPBACK
from common.errors import ConfigError, FederationError
from server.deployment.certificates import CA
from server.deployment.credentials import ADMIN, read_token, token_file
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


def whole_word(status: RunStatus) -> str:
    """Flower's word for a run with its second half: how it ended. By the first alone a failed run is "finished"."""
    return ":".join(filter(None, (status.status, status.sub_status)))


class Nodes:
    """The sites that the SuperLink knows; see `connect`."""

    def __init__(self, client: ControlHttpClient, database: Path | None = None) -> None:
        self._client, self._database = client, database

    def all(self) -> tuple[Node, ...]:
        """Every node, unregistered ones included."""
        with plain_errors():
            answer = self._client.ListNodes(ListNodesRequest())
        return tuple(
            Node(node.node_id, node.name, node.public_key, node.status, max(node.last_activated_at, node.last_deactivated_at))
            for node in answer.nodes_info
        )

    def run_word(self, number: str) -> str:
        """Flower's word for a run, such as `running` or `finished:failed`; "" where it knows of none."""
        request = ListRunsRequest(run_id=int(number))
        try:
            with plain_errors():
                runs = self._client.ListRuns(request).run_dict
        except UnknownToSuperLinkError:
            return ""
        return whole_word(runs[int(number)].status) if int(number) in runs else ""

    def runs(self) -> dict[str, str]:
        """Flower's word for every run, by its number."""
        with plain_errors():
            found = self._client.ListRuns(ListRunsRequest()).run_dict
        return {str(number): whole_word(run.status) for number, run in sorted(found.items())}

    def start_run(self, bundle: bytes, settings: Mapping[str, str | bool]) -> str:
        """Begin a run, as `flwr run` does; returns its number.

        Args:
            bundle: the code, as Flower packs it.
            settings: for keys of `[tool.flwr.app.config]`.
        """
        fab = fab_to_proto(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {}))
        with plain_errors():
            answer = self._client.StartRun(StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(settings))))
        if not answer.HasField("run_id"):
            raise FederationError(f"The SuperLink began no run. {answer.note}")
        return str(answer.run_id)

    def register(self, name: str, key: bytes) -> None:
        """Let a site in, by its public key as PEM."""
        with plain_errors():
            self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))

    def unregister(self, node: Node) -> None:
        """Let a site in no more; what it asks from now on is refused."""
        with plain_errors():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))

    def forget(self, node: Node) -> None:
        """Let go of an unregistered node, so that its key may be registered again: a site that was revoked, or has a new name.

        By hand in the SuperLink's database, for want of another way: flwr 1.41 only marks the row of a node as unregistered
        (`SqlLinkState.delete_node`), holds every key in the table to be unique, and has neither command nor call that
        removes or revives a row. A new database would forget the runs as well.
        """
        if self._database is None:
            raise FederationError("Only who owns the coordinator's folder can let a key in again.")
        with closing(sqlite3.connect(self._database, timeout=30)) as database, database:
            database.execute("DELETE FROM node WHERE public_key = ? AND status = ?", (node.key, UNREGISTERED))


@contextmanager
def connect(home: Home) -> Iterator[Nodes]:
    """Talk to the SuperLink of this home, as its admin.

    Raises:
        FederationError: it does not answer, or refuses; or it has not been started since it asks for a token.
    """
    try:
        token = read_token(token_file(home.folder, ADMIN))
    except ConfigError as error:
        raise FederationError(str(error)) from error
    with closing(control_client(home.superlink, home.folder / CA, token)) as client:
        yield Nodes(client, home.state / DATABASE)


def control_client(address: str, ca: Path, token: str) -> ControlHttpClient:
    """A client of the SuperLink's Control API at `address`, which shows a role's token."""
    for variable in ("NO_PROXY", "no_proxy"):  # a proxy has no business on the loopback
        os.environ[variable] = ",".join(filter(None, (os.environ.get(variable), LOOPBACK)))
    return ControlHttpClient(
        f"https://{address}",
        interceptors=[RuntimeVersionHttpInterceptor(component_name="fedmri-server"), _ShowToken(token)],
        verify=ssl.create_default_context(cafile=str(ca)),
    )


@dataclass(frozen=True)
class _ShowToken:
    """Adds the token to every call."""

    token: str

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """As Flower's own interceptors do."""
        context.request.headers["Authorization"] = f"Bearer {self.token}"
        return call_next(context)


class UnknownTokenError(FederationError):
    """The SuperLink was started with another token than the one that is shown."""


class UnknownToSuperLinkError(FederationError):
    """The SuperLink has nothing of that number."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """What goes wrong at the SuperLink, in a sentence.

    Raises:
        FederationError: it does not answer, refuses, or does not know the token.
    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code == HTTPStatus.UNAUTHORIZED:
            raise UnknownTokenError("The SuperLink does not know this token. If it was changed, stop and start.") from error
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            raise UnknownToSuperLinkError("The SuperLink does not know it.") from error
        raise FederationError(f"The SuperLink refused: {error.response.status_code} {error.response.text[:300]}") from error
    except httpx.HTTPError as error:
        raise FederationError(f"The SuperLink does not answer ({error}). Is it started? See `fedmri-server status`.") from error
