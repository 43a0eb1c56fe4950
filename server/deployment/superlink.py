"""Flower's SuperLink, whose Control API asks for a credential: `python -m server.deployment.superlink`, with its own arguments.

The open version of Flower has the place for accounts, and no plugin but one that lets everybody in. Here that place is filled:
who calls must show a token of `admin`, or of `observer`, who may look and do nothing. The Fleet API (the hospitals') and the
Runtime API (the SuperExec's) have credentials of their own.
"""

import hashlib
import hmac
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.error import ApiErrorCode, BearerAuthenticationError, FlowerError
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.dependencies.account import AccountAccessDependency

from common.errors import ConfigError
from server.deployment.credentials import ADMIN, HOME_VARIABLE, read_tokens

OBSERVED = frozenset(f"/v1/control/{call}" for call in ("list-nodes", "list-runs", "list-federations"))
PLACE = "AccountAccessDependency"  # in Flower's module: what it makes of its plugin
BEARER = "Bearer "


class RoleAccess(AccountAccessDependency):
    """Lets a call through whose token is of a role that may make it.

    Args:
        authn_plugin: Flower's own, whose account stands for every role.
        hashes: SHA-256 of each role's token.
    """

    def __init__(self, authn_plugin: ControlAuthnPlugin, hashes: Mapping[str, bytes]) -> None:
        super().__init__(authn_plugin)
        self.hashes = hashes

    def __call__(self, request: Request) -> AccountInfo:
        """The account of a call.

        Raises:
            BearerAuthenticationError: no token, or an unknown one.
            FlowerError: its role may not make this call.
        """
        told = request.headers.getlist("authorization")
        if len(told) != 1 or not told[0].startswith(BEARER):
            raise BearerAuthenticationError
        found = hashlib.sha256(told[0].removeprefix(BEARER).encode()).digest()
        roles = [role for role, known in self.hashes.items() if hmac.compare_digest(found, known)]
        if not roles:
            raise BearerAuthenticationError
        if roles[0] != ADMIN and request.url.path not in OBSERVED:
            raise FlowerError(ApiErrorCode.NO_PERMISSIONS, f"The role {roles[0]} may not do this.")
        valid, account = self.authn_plugin.validate_tokens_in_metadata([])
        if not valid or account is None:
            raise BearerAuthenticationError
        return account


def ask_for_credentials(folder: Path) -> None:
    """Let Flower's SuperLink of this process ask for a token of the coordinator in `folder`.

    Raises:
        ConfigError: there are no tokens, or Flower has no such place any more: nothing is served then.
    """
    from flwr.superlink import main as flower  # noqa: PLC0415  (heavy)

    if getattr(flower, PLACE, None) is not AccountAccessDependency:
        raise ConfigError("This version of Flower asks for accounts in another way than FedMRI knows. Install the agreed one.")
    hashes = {role: hashlib.sha256(token.encode()).digest() for role, token in read_tokens(folder).items()}
    setattr(flower, PLACE, lambda plugin: RoleAccess(plugin, hashes))


def main() -> None:
    """Flower's `flower-superlink`."""
    from flwr.superlink.cli.flower_superlink import flower_superlink  # noqa: PLC0415

    ask_for_credentials(Path(os.environ.get(HOME_VARIABLE, "")))
    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    main()
