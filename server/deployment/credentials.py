"""Who may call the coordinator's inner port: a token for `admin`, who does all, and one for `observer`, who looks on."""

import base64
import json
import secrets
from pathlib import Path

from common.deployment.private_file import require_private
from common.errors import ConfigError
from common.files import write_secret

ADMIN, OBSERVER = "admin", "observer"
HOME_VARIABLE = "FEDMRI_COORDINATOR"  # in the SuperLink's environment: the coordinator's folder, where the tokens are
ROLES = (ADMIN, OBSERVER)
FLOWERS = "credentials.yaml"  # in FLWR_HOME: where the `flwr` commands look for a token
KEYS = {"authn-type": "oidc", "oidc-access-token": "", "oidc-refresh-token": ""}  # Flower's own words, of 1.41


def token_file(folder: Path, role: str) -> Path:
    """Where a role's token is kept, for its owner alone."""
    return folder / f"{role}.token"


def make_tokens(folder: Path) -> None:
    """Make those that are absent; remove a file and start anew to change one."""
    for role in ROLES:
        if not token_file(folder, role).is_file():
            write_secret(token_file(folder, role), secrets.token_urlsafe(32).encode(), replace=True)


def read_tokens(folder: Path) -> dict[str, str]:
    """The token of each role.

    Raises:
        ConfigError: as `read_token`, of either.
    """
    return {role: read_token(token_file(folder, role)) for role in ROLES}


def read_token(file: Path) -> str:
    """One token.

    Raises:
        ConfigError: it is absent, others may read it, or it is too short to be one.
    """
    try:
        require_private(file, "read this token, and act by it")
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read. `fedmri-server start` makes it where it is absent.") from error
    if len(token) < 32:
        raise ConfigError(
            f"{file}: expected a token of 32 characters or more. Remove the file; `fedmri-server start` makes another."
        )
    return token


def tell_flower(flower_home: Path, address: str, token: str) -> None:
    """Give the `flwr` commands of this home the token, where they look for one: JSON, which is YAML."""
    values = KEYS | {"oidc-access-token": token, "oidc-refresh-token": "none"}
    stored = {f"flower.account-auth.{address}.{key}": base64.b64encode(text.encode()).decode() for key, text in values.items()}
    write_secret(flower_home / FLOWERS, json.dumps(stored).encode(), replace=True)
