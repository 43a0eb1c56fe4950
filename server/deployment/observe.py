"""What an observer sees: by a folder that the coordinator made for them, and the token in it, the hospitals and the runs."""

import shutil
import tomllib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flwr.proto.control_pb2 import ListRunsRequest

from common.deployment.private_file import require_private
from common.errors import ConfigError, FederationError
from common.files import write_atomic, write_secret
from common.text import toml_value
from server.deployment.certificates import CA
from server.deployment.credentials import OBSERVER, read_token, token_file
from server.deployment.home import Home
from server.deployment.superlink_nodes import Node, Nodes, UnknownTokenError, control_client, plain_errors, whole_word

FILE = "observer.toml"
ANEW = "Ask the coordinator for the folder anew: `fedmri-server observer HOME FOLDER`."


@dataclass(frozen=True)
class Seen:
    """Hospitals, and the runs that Flower knows."""

    nodes: tuple[Node, ...]
    runs: tuple[tuple[str, str], ...]  # number and status


def make_observer(home: Home, folder: Path) -> None:
    """Write what another user of this machine needs to look on: no key, no right to do anything.

    Raises:
        ConfigError: the folder is there already.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already. Name a folder that is not.")
    folder.mkdir(parents=True)
    shutil.copyfile(home.folder / CA, folder / CA)
    write_secret(token_file(folder, OBSERVER), read_token(token_file(home.folder, OBSERVER)).encode())
    write_atomic(folder / FILE, f"superlink = {toml_value(home.superlink)}\n".encode())


def observe(folder: Path) -> Seen:
    """Look once.

    Raises:
        ConfigError: the folder is none of an observer, or others may read its token.
        FederationError: the SuperLink does not answer, or refuses.
    """
    try:
        address = str(tomllib.loads((folder / FILE).read_text(encoding="utf-8"))["superlink"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder}: expected a folder that `fedmri-server observer HOME FOLDER` made.") from error
    file = token_file(folder, OBSERVER)
    if file.is_file():
        require_private(file, "read this token, and look on by it")
    try:
        token = read_token(file)
    except ConfigError as error:
        raise ConfigError(f"{folder}: it holds no token of an observer. {ANEW}") from error
    try:
        return _seen(address, folder, token)
    except UnknownTokenError as error:
        raise FederationError(f"{folder}: its token was changed at the coordinator, and counts no more. {ANEW}") from error


def _seen(address: str, folder: Path, token: str) -> Seen:
    with closing(control_client(address, folder / CA, token)) as client:
        with plain_errors():
            runs = client.ListRuns(ListRunsRequest()).run_dict
        return Seen(Nodes(client).all(), tuple((str(number), whole_word(run.status)) for number, run in sorted(runs.items())))
