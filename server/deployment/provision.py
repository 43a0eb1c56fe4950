"""A coordinator's home, made once: certificate authority, certificate, secret, settings; and what is written from them."""

import os
import secrets
from datetime import datetime
from pathlib import Path

from common.cli import CONFIGS
from common.deployment.flower_cli import NAME
from common.deployment.minisign import KEY, make_key
from common.deployment.private_file import require_private
from common.errors import ConfigError
from common.files import write_atomic, write_secret
from common.text import toml_value
from server.deployment.certificates import CA, CA_KEY, SERVER_KEY, make_authority, make_certificate
from server.deployment.credentials import ADMIN, ROLES, make_tokens, read_token, tell_flower, token_file
from server.deployment.home import FILE_NAME, Home, ServerSettings, open_home

SECRET, NGINX = "superexec.secret", "nginx.conf"
TEMPLATE = CONFIGS / "deploy" / NGINX

SETTINGS = """\
# The coordinator's settings; server/deployment/home.py lists them all. After a change: fedmri-server stop, start.
name = {name}
address = {address}      # what the hospitals connect to; another host needs `fedmri-server renew`
listen = {listen}        # IP:port that nginx takes; "": all addresses of this machine, at the port of address
front = {front}          # "none": a proxy of your own stands before the SuperLink, by the rules of nginx.conf
superlink_port = {superlink_port}    # this machine only
health_port = {health_port}       # this machine only
runs = {runs}
"""


def init_home(folder: Path, settings: ServerSettings) -> Home:
    """Make a home that is ready for `fedmri-server start`.

    Raises:
        ConfigError: the folder exists and holds anything.
    """
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already. Name a new folder; a home is made once, its keys are not made again.")
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    for name in ("sites", "sites/revoked", "flower", "state", "state/logs"):
        (folder / name).mkdir()
    make_authority(folder, settings.name)
    make_certificate(folder, settings.host)
    write_secret(folder / SECRET, secrets.token_bytes(48))
    make_tokens(folder)
    make_key(folder, passphrase="")  # as ca.key: who can read this folder is the coordinator
    text = SETTINGS.format(**{key: toml_value(value) for key, value in vars(settings).items()})
    write_atomic(folder / FILE_NAME, text.encode())  # last: a folder with it is a home
    home = open_home(folder)
    home.runs.mkdir(parents=True, exist_ok=True)
    write_configuration(home)
    return home


def write_configuration(home: Home) -> None:
    """Write what follows from server.toml: nginx.conf, Flower's config.toml and its token. Done at every start.

    Raises:
        ConfigError: others may read a key, a token or the secret of the home.
    """
    settings = home.settings
    make_tokens(home.folder)  # a home of an earlier version has none
    require_secrets(home)
    if settings.front == "nginx":
        text = TEMPLATE.read_text(encoding="utf-8")
        for name, value in {"listen": settings.listen_at, "superlink_port": str(settings.superlink_port)}.items():
            text = text.replace(f"@{name}@", value)
        write_atomic(home.folder / NGINX, text.encode())
        (home.state / "nginx").mkdir(parents=True, exist_ok=True)
    authority = toml_value(str(home.folder / CA))
    text = (
        f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "{home.superlink}"\nroot-certificates = {authority}\n'
    )
    write_atomic(home.home / "config.toml", text.encode())
    tell_flower(home.home, home.superlink, read_token(token_file(home.folder, ADMIN)))


def require_secrets(home: Home) -> None:
    """Refuse a home whose keys, tokens or secret others may read; of those that are absent others speak.

    Raises:
        ConfigError: names the first, and what to run.
    """
    served = (SERVER_KEY,) if home.settings.front == "nginx" else ()  # a proxy of one's own may run as another user
    tokens = tuple(token_file(home.folder, role).name for role in ROLES)
    for file in (home.folder / name for name in (CA_KEY, KEY, SECRET, *served, *tokens)):
        if file.is_file():
            require_private(file, "read this, and act as the coordinator")


def renew_certificate(home: Home) -> datetime:
    """A new certificate by the same authority, for the host of server.toml; hospitals notice nothing.

    Returns:
        When it expires.
    """
    return make_certificate(home.folder, home.settings.host)
